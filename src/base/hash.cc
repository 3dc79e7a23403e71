#include "base/hash.h"

#include <sodium.h>

#define XXH_INLINE_ALL
#include <xxhash.h>


namespace tally {

KeyHash hash_key(std::string_view key, uint64_t table_seed, uint64_t rule_seed) {
  const XXH128_hash_t h = XXH3_128bits_withSeed(key.data(), key.size(), table_seed ^ rule_seed);
  return {h.high64, h.low64};
}

uint64_t rule_seed_of(std::string_view rule_name) { return XXH3_64bits(rule_name.data(), rule_name.size()); }

static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof(IdKey));
static_assert(crypto_shorthash_siphash24_KEYBYTES == sizeof(IdKey));
static_assert(crypto_shorthash_siphashx24_BYTES >= sizeof(WireId));

namespace {

std::array<uint8_t, crypto_shorthash_siphashx24_BYTES> sip128(std::string_view bytes, const IdKey& key) {
  std::array<uint8_t, crypto_shorthash_siphashx24_BYTES> out;
  crypto_shorthash_siphashx24(out.data(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), key.data());
  return out;
}

}  // namespace

static_assert(crypto_shorthash_siphashx24_BYTES == sizeof(IdKey));
IdKey rule_id_key(std::string_view rule_name, const IdKey& id_key) { return sip128(rule_name, id_key); }

WireId wire_id(std::string_view key, const IdKey& rule_id_key) {
  const auto h = sip128(key, rule_id_key);
  WireId id;
  std::memcpy(id.bytes.data(), h.data(), id.bytes.size());
  return id;
}

uint64_t keyed_hash(std::string_view bytes, const IdKey& key) {
  std::array<uint8_t, crypto_shorthash_siphash24_BYTES> out;
  crypto_shorthash_siphash24(out.data(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), key.data());
  uint64_t h;
  std::memcpy(&h, out.data(), sizeof h);
  return h;
}

}  // namespace tally
