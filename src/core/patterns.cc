#include "core/patterns.h"

#include <algorithm>

namespace tally {

const uint32_t* Patterns::add(std::string_view pattern, uint32_t value) {
  const bool prefix = is_prefix(pattern);
  if (prefix) pattern.remove_suffix(1);
  const auto [at, fresh] = (prefix ? prefixes_ : texts_).try_emplace(std::string(pattern), value);
  if (!fresh) return &at->second;
  const auto place = std::ranges::lower_bound(lengths_, pattern.size(), std::ranges::greater());
  if (prefix && (place == lengths_.end() || *place != pattern.size())) lengths_.insert(place, pattern.size());
  return nullptr;
}

}  // namespace tally
