// Files that a command reads and writes, whole or not at all.
#pragma once

#include <string>

#include "base/fail.h"

namespace tally::tool {

// "-": the standard input. The error names the file and says why.
Result<std::string> read_file(const std::string& path);

// Whether write_file could put a file there, as far as can be told beforehand; the error says why not.
Result<bool> may_write(const std::string& path);
// The file is there with all of `text`, or as it was before. What is no regular file (/dev/stdout) is written
// to.
Result<bool> write_file(const std::string& path, const std::string& text);

}  // namespace tally::tool
