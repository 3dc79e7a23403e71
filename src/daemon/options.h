// The command line of tallyd: flags, and the configuration that comes of a file with the flags laid over it.
//
// Thread rule: main's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/secret.h"
#include "config/config.h"
#include "daemon/log.h"

namespace tally {

inline constexpr int kExitUsage = 64;          // sysexits.h: EX_USAGE
inline constexpr int kExitConfiguration = 78;  // EX_CONFIG
inline constexpr int kExitFailure = 1;  // a start that failed for a reason outside: a socket in use, ...

struct Options {
  std::string config_file;
  bool check = false, print_config = false, version = false, help = false;
  std::string name, bind, self;
  std::vector<std::string> peers;
  std::vector<Address> listen_resp, listen_http, listen_rls;
  LogLevel log_level = LogLevel::info;
  LogFormat log_format = LogFormat::text;
  std::string help_text;
};

Result<Options> parse_options(int argc, char** argv);

struct Loaded {
  Config config;
  std::vector<std::string> errors;    // whole lines, ready to be shown
  std::vector<std::string> warnings;  // likewise
  std::optional<Secret> secret;       // where the configuration names a file of it
};
// What a daemon goes by already, where it reads the configuration again.
struct Running {
  const Config& config;
  const RuleSet& rules;
};
// Reads the file (none: all defaults), lays the flags over it, and checks the whole, also against what is running, if
// anything is; then reads the secret file, unless only --print-config is asked for.
Loaded load_config(const Options& options, const Running* running = nullptr);

}  // namespace tally
