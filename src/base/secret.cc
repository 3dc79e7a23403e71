#include "base/secret.h"

#include <sodium.h>

#include <cstdio>
#include <cstring>

namespace tally {
namespace {

// Chooses the fast ciphers. Once, before the first key is there.
void prepare() {
  static const int done = sodium_init();
  CHECK_THAT(done >= 0);
}

uint32_t fingerprint_of(std::span<const uint8_t, SealKey::kBytes> key) {
  constexpr unsigned char kPurpose[] = "tallyd fingerprint of a seal key";
  std::array<uint8_t, crypto_generichash_BYTES_MIN> hash;
  crypto_generichash(hash.data(), hash.size(), kPurpose, sizeof kPurpose - 1, key.data(), key.size());
  return hash[0] | uint32_t{hash[1]} << 8 | uint32_t{hash[2]} << 16 | uint32_t{hash[3]} << 24;
}

template <size_t N>
std::array<uint8_t, N> random_bytes() {
  prepare();
  std::array<uint8_t, N> bytes;
  randombytes_buf(bytes.data(), N);
  return bytes;
}

}  // namespace

SealKey::SealKey(std::span<const uint8_t, kBytes> bytes) {
  prepare();
  std::memcpy(bytes_.data(), bytes.data(), kBytes);
  fingerprint_ = fingerprint_of(bytes);
}

SealKey::~SealKey() { sodium_memzero(bytes_.data(), bytes_.size()); }

SealKey SealKey::random() {
  auto bytes = random_bytes<kBytes>();
  SealKey key(bytes);
  sodium_memzero(bytes.data(), bytes.size());
  return key;
}

std::string SealKey::fingerprint_text() const {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", fingerprint_);
  return text;
}

bool SealKey::operator==(const SealKey& other) const {
  return sodium_memcmp(data(), other.data(), kBytes) == 0;
}

Secret Secret::random() { return {random_bytes<sizeof(IdKey)>(), SealKey::random()}; }

Secret::~Secret() { sodium_memzero(id.data(), id.size()); }

const SealKey* Secret::find(uint32_t fingerprint) const {
  if (seal.fingerprint() == fingerprint) return &seal;
  for (const auto* other : {&next, &old})
    if (*other && (*other)->fingerprint() == fingerprint) return &**other;
  return nullptr;
}

RotationStep next_step(const Secret& secret) {
  if (secret.next) return RotationStep::use;
  return secret.old ? RotationStep::drop : RotationStep::add;
}

Result<bool> rotate(Secret& secret, RotationStep step) {
  switch (step) {
    case RotationStep::add:
      if (secret.next) return false;
      if (secret.old) return Failure{"the old key of the last rotation is still there: drop it first"};
      secret.next = SealKey::random();
      while (secret.next->fingerprint() == secret.seal.fingerprint()) secret.next = SealKey::random();
      return true;
    case RotationStep::use:
      if (secret.old) return false;
      if (!secret.next) return Failure{"there is no next key to use: add it first, on all hosts"};
      secret.old = secret.seal;
      secret.seal = *secret.next;
      secret.next.reset();
      return true;
    case RotationStep::drop:
      if (secret.next) return Failure{"the next key is not used yet: use it first, on all hosts"};
      if (!secret.old) return false;
      secret.old.reset();
      return true;
  }
  return false;
}

void wipe(std::string& text) {
  sodium_memzero(text.data(), text.size());
  text.clear();
}

}  // namespace tally
