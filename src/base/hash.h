// The two hashes of a key.
//
// Inside a process a key is its KeyHash: 128 bits of XXH3 under a seed drawn at start. XXH3 rather than a
// keyed hash because this one is on the path of every decision (about 2.5 ns against 20 for SipHash-128),
// and nobody outside ever sees it. Between nodes a key is its WireId: 96 bits of SipHash-2-4-128 (libsodium)
// under the fleet's id key, the same on every node and not to be forged; it is computed only when a key has
// to be named to the cluster thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>

namespace tally {

struct KeyHash {
  uint64_t hi = 0;
  uint64_t lo = 0;
  friend bool operator==(const KeyHash&, const KeyHash&) = default;
};

// `rule_seed` keeps the same key under two rules apart; see rule_seed_of.
KeyHash hash_key(std::string_view key, uint64_t table_seed, uint64_t rule_seed);
uint64_t rule_seed_of(std::string_view rule_name);

using IdKey = std::array<uint8_t, 16>;
// Used where no secret file is configured, and then only on loopback: it protects from accidents, not from people.
inline constexpr IdKey kPublicIdKey = {'t', 'a', 'l', 'l', 'y', 'd', '-', 'p', 'u', 'b', 'l', 'i', 'c', '-', 'i', 'd'};

struct WireId {
  std::array<uint8_t, 12> bytes{};
  friend auto operator<=>(const WireId&, const WireId&) = default;

  uint64_t word() const {  // the first 8 bytes, for tables and rendezvous weights
    uint64_t w;
    std::memcpy(&w, bytes.data(), sizeof w);
    return w;
  }
};

// A rule's own key, derived once per rule, so that naming a key hashes the key's bytes alone and copies nothing.
IdKey rule_id_key(std::string_view rule_name, const IdKey& id_key);
WireId wire_id(std::string_view key, const IdKey& rule_id_key);

// 64 bits of SipHash-2-4 over any bytes under `key`: node ids, roster fingerprints, datagram checks.
uint64_t keyed_hash(std::string_view bytes, const IdKey& key);

// A good mix of one word (the finalizer of MurmurHash3); for weights and table indexes, not for secrets.
constexpr uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

// Of texts in tables that are looked into by views (std::unordered_map with std::equal_to<>).
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// A hash as an index below n: floor(x / 2^64 * n).
constexpr size_t scaled_to(uint64_t x, size_t n) {
  return static_cast<size_t>((static_cast<unsigned __int128>(x) * n) >> 64);
}

}  // namespace tally

template <>
struct std::hash<tally::WireId> {
  size_t operator()(const tally::WireId& id) const noexcept { return static_cast<size_t>(id.word()); }
};
