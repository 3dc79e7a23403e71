#include "cluster/seal.h"

#include <sodium.h>

#include <cstring>

#include "base/fail.h"

namespace tally {
namespace {

constexpr uint8_t kMagic[2] = {'T', 's'};
constexpr uint8_t kPlainMagic[2] = {'T', 'y'};  // of a datagram that nobody sealed (wire.cc)
constexpr size_t kVersionAt = sizeof kMagic;
constexpr size_t kFingerprintAt = kVersionAt + 1;
constexpr size_t kNonceAt = kFingerprintAt + 4;
constexpr size_t kContentAt = kNonceAt + sizeof(SealNonce);

static_assert(sizeof(SealNonce) == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
static_assert(SealKey::kBytes == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);
static_assert(kSealBytes == kContentAt + crypto_aead_xchacha20poly1305_ietf_ABYTES);

bool begins_with(std::span<const uint8_t> bytes, const uint8_t (&magic)[2]) {
  return bytes.size() >= sizeof magic && std::memcmp(bytes.data(), magic, sizeof magic) == 0;
}

}  // namespace

std::span<const uint8_t> seal(std::span<const uint8_t> content, const SealKey& key, const SealNonce& nonce,
                              DatagramBuffer& out) {
  CHECK_THAT(content.size() <= kSealedContentMax);
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  out[kVersionAt] = kSealVersion;
  for (unsigned i = 0; i < 4; ++i)
    out[kFingerprintAt + i] = static_cast<uint8_t>(key.fingerprint() >> (8 * i));
  std::memcpy(out.data() + kNonceAt, nonce.data(), nonce.size());
  crypto_aead_xchacha20poly1305_ietf_encrypt(out.data() + kContentAt, nullptr, content.data(), content.size(),
                                             out.data(), kNonceAt, nullptr, nonce.data(), key.data());
  return std::span(out).first(content.size() + kSealBytes);
}

Opened open(std::span<const uint8_t> sealed, const Secret& secret, DatagramBuffer& buffer) {
  if (sealed.size() > kDatagramMax) return {OpenError::too_long, {}, nullptr};
  if (begins_with(sealed, kPlainMagic)) return {OpenError::unsealed, {}, nullptr};
  if (sealed.size() < kSealBytes) return {OpenError::too_short, {}, nullptr};
  if (!looks_sealed(sealed)) return {OpenError::bad_magic, {}, nullptr};
  if (sealed[kVersionAt] != kSealVersion) return {OpenError::version, {}, nullptr};
  uint32_t fingerprint = 0;
  for (unsigned i = 0; i < 4; ++i) fingerprint |= uint32_t{sealed[kFingerprintAt + i]} << (8 * i);
  const SealKey* key = secret.find(fingerprint);
  if (key == nullptr) return {OpenError::unknown_key, {}, nullptr};
  const auto closed = sealed.subspan(kContentAt);
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(buffer.data(), nullptr, nullptr, closed.data(),
                                                 closed.size(), sealed.data(), kNonceAt,
                                                 sealed.data() + kNonceAt, key->data()) != 0)
    return {OpenError::forged, {}, nullptr};
  return {OpenError::none, std::span(buffer).first(sealed.size() - kSealBytes), key};
}

bool looks_sealed(std::span<const uint8_t> bytes) { return begins_with(bytes, kMagic); }

std::string_view open_error_name(OpenError error) {
  switch (error) {
    case OpenError::none:
      return "none";
    case OpenError::too_short:
      return "too_short";
    case OpenError::too_long:
      return "too_long";
    case OpenError::bad_magic:
      return "bad_magic";
    case OpenError::unsealed:
      return "unsealed";
    case OpenError::version:
      return "version";
    case OpenError::unknown_key:
      return "unknown_key";
    case OpenError::forged:
      return "forged";
  }
  return "unknown";
}

}  // namespace tally
