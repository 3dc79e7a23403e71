// A configuration, as the commands that need no daemon read it.
#pragma once

#include <optional>
#include <string>

#include "config/config.h"

namespace tally::tool {

inline constexpr int kBadConfiguration = 78;

// Reads a file ("-": the standard input) and those that it names, and says on the standard error what is wrong with it.
// `code`, where there is none: how the command ends, 2 where the file cannot be read or 78. `warn`: also says what is unwise.
std::optional<Config> read_configuration(const std::string& path, bool warn, int& code);

}  // namespace tally::tool
