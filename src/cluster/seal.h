// Sealed datagrams: what goes between hosts that share a secret can be neither read nor made by anybody else.
//
// Thread rule: pure functions. Opening is total: any bytes give what was sealed, or the reason why not.
//
//   sealed   magic (2) | version (1) | fingerprint of the key (4) | nonce (24) | ciphertext | tag (16)
//
// XChaCha20-Poly1305; the first seven bytes are authenticated with the rest. The fingerprint says which key
// of two it is, so that nothing is tried twice, and what is sealed with a key that nobody knows here costs no
// arithmetic at all. The nonce is drawn at random by the caller: 24 bytes of it need no memory of those
// before, over restarts and over all nodes that share the key.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/secret.h"
#include "cluster/wire.h"

namespace tally {

inline constexpr size_t kSealBytes = 2 + 1 + 4 + 24 + 16;  // by so many a sealed datagram is longer
inline constexpr size_t kSealedContentMax = kDatagramMax - kSealBytes;
inline constexpr uint8_t kSealVersion = 1;

using SealNonce = std::array<uint8_t, 24>;
using DatagramBuffer = std::array<uint8_t, kDatagramMax>;

// Requires at most kSealedContentMax bytes. Returns what lies in `out`, which is to go out.
std::span<const uint8_t> seal(std::span<const uint8_t> content, const SealKey& key, const SealNonce& nonce,
                              DatagramBuffer& out);

enum class OpenError : uint8_t {
  none,
  too_short,
  too_long,
  bad_magic,
  unsealed,
  version,
  unknown_key,
  forged
};
inline constexpr size_t kOpenErrors = 8;
std::string_view open_error_name(
    OpenError error);  // "too_short", ... for metrics; the names of decode's where they mean the same

struct Opened {
  OpenError error = OpenError::none;
  std::span<const uint8_t> content;  // in the buffer
  const SealKey* key = nullptr;      // of the secret: which one it was sealed with
};
Opened open(std::span<const uint8_t> sealed, const Secret& secret, DatagramBuffer& buffer);

// Whether these are the first bytes of a sealed datagram: for hosts without a secret.
bool looks_sealed(std::span<const uint8_t> bytes);

}  // namespace tally
