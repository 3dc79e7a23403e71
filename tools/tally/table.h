// Text in columns, on the standard output.
#pragma once

#include <string>
#include <vector>

namespace tally::tool {

using Cells = std::vector<std::vector<std::string>>;  // rows

void print_aligned(const Cells& rows);

}  // namespace tally::tool
