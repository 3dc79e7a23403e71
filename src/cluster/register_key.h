// What a mark is about, and how long it is kept.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/hash.h"

namespace tally {

// How many windows what is known of a window is kept after its own.
inline constexpr int64_t kWindowsKept = 2;

struct RegisterKey {
  WireId key;
  int64_t window = 0;  // 0: a bucket
  friend bool operator==(const RegisterKey&, const RegisterKey&) = default;
};

struct RegisterKeyHash {
  size_t operator()(const RegisterKey& k) const {
    return static_cast<size_t>(mix(k.key.word() ^ mix(static_cast<uint64_t>(k.window))));
  }
};

}  // namespace tally
