// Files that are read, replaced and removed as a whole, so that after a crash there is the old one or the new one.
//
// Thread rule: any; all of it blocks on the disk.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/fail.h"

namespace tally {

// nullopt: there is none. More than `most` bytes are cut off behind the first one too many. What is not a regular file is refused, and
// never waited for.
Result<std::optional<std::string>> read_whole_file(const std::string& path, size_t most);
Result<std::string> read_existing_file(const std::string& path, size_t most);  // likewise; an error where there is none
// On the disk when it returns true (temporary file, fsync, rename, fsync of the directory); mode 0600.
Result<bool> replace_file(const std::string& path, std::string_view contents);
Result<bool> remove_file(const std::string& path);  // likewise; false: there was none

}  // namespace tally
