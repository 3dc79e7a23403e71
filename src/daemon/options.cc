#include "daemon/options.h"

#include <cerrno>
#include <cstring>
#include <cxxopts.hpp>
#include <fstream>
#include <sstream>

#include "config/json_tree.h"
#include "daemon/paths.h"
#include "daemon/secret_file.h"
#include "daemon/whole_file.h"

namespace tally {
namespace {

using Strings = std::vector<std::string>;

cxxopts::Options described() {
  cxxopts::Options options("tallyd",
                           "tallyd - one rate limit, shared by a fleet of hosts, decided in local memory\n");
  const auto text = cxxopts::value<std::string>();
  const auto texts = cxxopts::value<Strings>();
  options.add_options()                                                                 //
      ("c,config", "configuration file; without it every default holds", text, "FILE")  //
      ("check", "check the configuration, say what is wrong or unwise, and exit")       //
      ("print-config", "print the whole configuration with its defaults, and exit")     //
      ("name", "name of this node; its socket is then tallyd-NAME.sock, its state NAME.state", text,
       "NAME")                                                                                          //
      ("bind", "address for the other nodes, like 127.0.0.1:8381", text, "ADDR")                        //
      ("self", "which of the peers this node is, where that is not --bind", text, "ENTRY")              //
      ("peers", "all nodes of the fleet, this one included, by commas", texts, "A,B,C")                 //
      ("listen-resp", "where to serve RESP: unix:PATH or HOST:PORT; may be repeated", texts, "ADDR")    //
      ("listen-http", "where to serve HTTP: decisions, /metrics, /healthz, /readyz; may be repeated", texts, "ADDR")  //
      ("listen-rls", "where to serve Envoy's rate limit service (gRPC); may be repeated", texts, "ADDR")  //
      ("log-level", "debug, info, warning or error", cxxopts::value<std::string>()->default_value("info"),
       "L")                                                                                           //
      ("log-format", "text or json", cxxopts::value<std::string>()->default_value("text"), "FORMAT")  //
      ("version", "print the version and exit")                                                       //
      ("h,help", "print this help and exit");
  return options;
}

Result<bool> read_addresses(const cxxopts::ParseResult& parsed, const std::string& flag,
                            std::vector<Address>& out) {
  if (parsed.count(flag) == 0) return true;
  for (const std::string& text : parsed[flag].as<Strings>()) {
    const auto address = parse_address(text);
    if (!address) return Failure{"--" + flag + " " + text + ": " + address.error()};
    out.push_back(address.value());
  }
  return true;
}

std::string text_of(const cxxopts::ParseResult& parsed, const std::string& flag) {
  return parsed.count(flag) != 0 ? parsed[flag].as<std::string>() : std::string();
}

Result<Options> from_parsed(const cxxopts::ParseResult& parsed) {
  Options options;
  if (!parsed.unmatched().empty()) return Failure{"unexpected argument '" + parsed.unmatched().front() + "'"};
  options.config_file = text_of(parsed, "config");
  options.check = parsed.count("check") != 0;
  options.print_config = parsed.count("print-config") != 0;
  options.version = parsed.count("version") != 0;
  options.help = parsed.count("help") != 0;
  options.name = text_of(parsed, "name");
  options.bind = text_of(parsed, "bind");
  options.self = text_of(parsed, "self");
  if (parsed.count("peers") != 0) options.peers = parsed["peers"].as<Strings>();
  if (!options.name.empty() && !is_file_name(options.name))
    return Failure{"--name " + options.name + ": letters, digits, '.', '_' and '-' only, 64 at most"};
  for (const auto& read : {read_addresses(parsed, "listen-resp", options.listen_resp),
                           read_addresses(parsed, "listen-http", options.listen_http),
                           read_addresses(parsed, "listen-rls", options.listen_rls)})
    if (!read) return Failure{read.error()};
  if (const std::string level = parsed["log-level"].as<std::string>();
      !parse_log_level(level, options.log_level))
    return Failure{"--log-level " + level + ": must be debug, info, warning or error"};
  if (const std::string format = parsed["log-format"].as<std::string>();
      !parse_log_format(format, options.log_format))
    return Failure{"--log-format " + format + ": must be text or json"};
  return options;
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Failure{path + ": cannot be read: " + std::strerror(errno)};
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) return Failure{path + ": cannot be read: " + std::strerror(errno)};
  return text.str();
}

void lay_over(const Options& options, Config& config) {
  if (!options.name.empty()) config.node_name = options.name;
  if (!options.bind.empty()) {
    config.cluster.bind = options.bind;
    config.cluster.self.reset();
  }
  if (!options.self.empty()) config.cluster.self = options.self;
  if (!options.peers.empty()) {
    config.cluster.peers = options.peers;
    config.cluster.size = 0;
  }
  if (!options.listen_resp.empty()) config.resp = options.listen_resp;
  if (!options.listen_http.empty()) config.http = options.listen_http;
  if (!options.listen_rls.empty()) config.rls = options.listen_rls;
}

// Without a file (`file` is empty) there is no place to name, only the path.
void append(std::vector<std::string>& lines, const std::string& file, const std::vector<Problem>& problems) {
  for (Problem problem : problems) {
    if (file.empty()) problem.line = 0;
    lines.push_back(format_problem(file.empty() ? "command line" : file, problem));
  }
}

// What is wrong with the file, and where the configuration names it.
void read_secret(const Options& options, const Parsed& parsed, Loaded& loaded) {
  SecretFile file = read_secret_file(loaded.config.cluster.secret_file);
  loaded.secret = std::move(file.secret);
  loaded.errors = std::move(file.errors);
  if (loaded.errors.empty()) return;
  std::vector<Problem> here{
      {0, 0, "cluster.secret_file", "cannot be used, see above; \"tally secret FILE\" makes one"}};
  parsed.places.locate(here);
  append(loaded.errors, options.config_file, here);
}

}  // namespace

Result<Options> parse_options(int argc, char** argv) {
  cxxopts::Options description = described();
  try {
    auto options = from_parsed(description.parse(argc, argv));
    if (options) options.value().help_text = description.help();
    return options;
  } catch (const std::exception& error) {  // cxxopts reports usage by exceptions
    return Failure{error.what()};
  }
}

Loaded load_config(const Options& options, const Running* running) {
  Loaded loaded;
  std::string text = "{}";
  if (!options.config_file.empty()) {
    auto read = read_file(options.config_file);
    if (!read) {
      loaded.errors.push_back(read.error());
      return loaded;
    }
    text = std::move(read.value());
  }
  const Parsed parsed = parse_config(text, [&](Config& config) { lay_over(options, config); }, {options.config_file, [](const std::string& path) { return read_existing_file(path, kJsonBytesMax); }});
  append(loaded.warnings, options.config_file, parsed.warnings);
  append(loaded.errors, options.config_file, parsed.errors);
  if (!loaded.errors.empty()) return loaded;
  loaded.config = parsed.config;
  if (running != nullptr) {
    auto refused = refused_by_reload(running->config, loaded.config, running->rules);
    parsed.places.locate(refused);
    append(loaded.errors, options.config_file, refused);
    if (!loaded.errors.empty()) return loaded;
  }
  if (!loaded.config.cluster.secret_file.empty() && (options.check || !options.print_config))
    read_secret(options, parsed, loaded);
  return loaded;
}

}  // namespace tally
