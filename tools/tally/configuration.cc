#include "configuration.h"

#include <cstdio>

#include "config/json_tree.h"
#include "daemon/whole_file.h"
#include "files.h"

namespace tally::tool {

std::optional<Config> read_configuration(const std::string& path, bool warn, int& code) {
  constexpr int kUsage = 2;
  const auto text = read_file(path);
  if (!text) {
    std::fprintf(stderr, "tally: %s\n", text.error().c_str());
    code = kUsage;
    return std::nullopt;
  }
  Parsed parsed = parse_config(text.value(), {}, {path, [](const std::string& other) { return read_existing_file(other, kJsonBytesMax); }});
  for (const Problem& problem : parsed.errors) std::fprintf(stderr, "%s\n", format_problem(path, problem).c_str());
  if (warn)
    for (const Problem& problem : parsed.warnings) std::fprintf(stderr, "warning: %s\n", format_problem(path, problem).c_str());
  if (parsed.errors.empty()) return std::move(parsed.config);
  code = kBadConfiguration;
  return std::nullopt;
}

}  // namespace tally::tool
