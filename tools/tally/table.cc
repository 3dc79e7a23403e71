#include "table.h"

#include <algorithm>
#include <cstdio>

namespace tally::tool {
namespace {

// A terminal obeys control characters, and keys come from anybody: these are shown as \x1b. Of UTF-8 those
// that begin with 0xc2 are, too.
std::string harmless(const std::string& cell) {
  std::string text;
  for (size_t i = 0; i < cell.size(); ++i) {
    const auto byte = static_cast<unsigned char>(cell[i]);
    const bool second =
        i > 0 && static_cast<unsigned char>(cell[i - 1]) == 0xc2 && byte >= 0x80 && byte < 0xa0;
    if (byte >= 0x20 && byte != 0x7f && !second) {
      text += cell[i];
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
    text += escaped;
  }
  return text;
}

}  // namespace

void print_aligned(Cells rows) {
  for (auto& row : rows)
    for (std::string& cell : row) cell = harmless(cell);
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    std::printf("%s\n", line.c_str());
  }
}

}  // namespace tally::tool
