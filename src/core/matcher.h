// Stand-in until the rule matching is merged: its interface alone.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/rules.h"

namespace tally {

struct DescriptorEntry {
  std::string_view key, value;
};

class Matcher {
 public:
  struct Matched {
    const Rule* rule = nullptr;
    std::string key;
  };
  void match(std::string_view domain, std::span<const DescriptorEntry> entries, std::vector<Matched>& into) const;
};

}  // namespace tally
