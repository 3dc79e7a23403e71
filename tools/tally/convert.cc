// tally convert envoy: a configuration made of one of envoyproxy/ratelimit.
#include <cstdio>
#include <cxxopts.hpp>
#include <string>
#include <vector>

#include "configuration.h"
#include "envoy_convert.h"
#include "files.h"
#include "planning.h"

namespace tally::tool {
namespace {

constexpr int kDone = 0, kUsage = 2;

int usage(const std::string& message) {
  std::fprintf(stderr, "tally: %s\n", message.c_str());
  return kUsage;
}

void say(const std::string& path, const std::vector<Problem>& problems, const char* kind) {
  for (const Problem& problem : problems) std::fprintf(stderr, "%s%s\n", kind, format_problem(path, problem).c_str());
}

}  // namespace

int run_convert_command(int argc, char** argv) {
  cxxopts::Options options("tally convert", "A configuration made of that of envoyproxy/ratelimit, on the standard output; what has no like here is\n"
                                            "said on the standard error\n");
  options.custom_help("envoy FILE");
  options.add_options()("h,help", "print this help");
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0) return std::printf("%s", options.help().c_str()), kDone;
  const std::vector<std::string>& words = args.unmatched();
  if (words.size() != 2 || words.front() != "envoy") return usage("usage: tally convert envoy FILE");
  const std::string& path = words.back();
  const auto text = read_file(path);
  if (!text) return usage(text.error());
  EnvoyFile file = read_envoy(text.value());
  say(path, file.errors, "");
  if (!file.errors.empty()) return kBadConfiguration;
  const Converted converted = convert_envoy(std::move(file), path);
  say(path, converted.errors, "");
  if (!converted.errors.empty()) return kBadConfiguration;
  say(path, converted.notes, "warning: ");
  std::printf("%s", converted.text.c_str());
  return kDone;
}

}  // namespace tally::tool
