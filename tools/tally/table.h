// Text in columns, on the standard output.
#pragma once

#include <string>
#include <vector>

namespace tally::tool {

using Cells = std::vector<std::vector<std::string>>;  // rows

void print_aligned(Cells rows);  // control characters are shown, not sent

}  // namespace tally::tool
