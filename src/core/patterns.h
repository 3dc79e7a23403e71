// Texts, and beginnings of texts, that a text may fit: "/login" is that text, "/api/*" all that begin with "/api/".
//
// Thread rule: add() before it is shared; immutable afterwards, any thread. Looking up allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"

namespace tally {

class Patterns {
 public:
  static constexpr bool is_prefix(std::string_view pattern) { return pattern.ends_with('*'); }
  static constexpr bool fits(std::string_view pattern, std::string_view text) {
    return is_prefix(pattern) ? text.starts_with(pattern.substr(0, pattern.size() - 1)) : text == pattern;
  }

  // `value`: what the pattern stands for. Returns what it stands for already, or nullptr where it was added.
  const uint32_t* add(std::string_view pattern, uint32_t value);

  const uint32_t* exact(std::string_view text) const {  // nullptr: it is none of the texts
    const auto found = texts_.find(text);
    return found != texts_.end() ? &found->second : nullptr;
  }
  // Calls visit(value, length) for each prefix that `text` begins with, longer before shorter, until it returns true. Whether it did.
  template <typename Visit>
  bool visit_prefixes(std::string_view text, Visit visit) const {
    for (const size_t length : lengths_) {
      if (length > text.size()) continue;
      const auto found = prefixes_.find(text.substr(0, length));
      if (found != prefixes_.end() && visit(found->second, length)) return true;
    }
    return false;
  }

 private:
  using Values = std::unordered_map<std::string, uint32_t, TextHash, std::equal_to<>>;
  Values texts_, prefixes_;
  std::vector<size_t> lengths_;  // of the prefixes, each once, falling
};

}  // namespace tally
