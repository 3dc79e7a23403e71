// What the nodes of a fleet know and nobody else: the key of the names of keys, and the keys that datagrams
// are sealed with.
//
// Thread rule: a value; one owner each. Every copy wipes its own keys when it goes.
//
// A rotation is three steps, each done on all hosts before the next begins, so that whatever is sealed can be
// opened by everybody: {seal: A} -> {seal: A, next: B} -> {seal: B, old: A} -> {seal: B}.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/fail.h"
#include "base/hash.h"

namespace tally {

class SealKey {
 public:
  static constexpr size_t kBytes = 32;

  static SealKey random();
  explicit SealKey(std::span<const uint8_t, kBytes> bytes);
  SealKey(const SealKey&) = default;
  SealKey& operator=(const SealKey&) = default;
  ~SealKey();

  const uint8_t* data() const { return bytes_.data(); }
  // 32 bits of a hash: tells keys apart, in datagrams and to people, and does not help to find one.
  uint32_t fingerprint() const { return fingerprint_; }
  std::string fingerprint_text() const;  // eight hexadecimal digits
  bool operator==(const SealKey& other) const;

 private:
  std::array<uint8_t, kBytes> bytes_;
  uint32_t fingerprint_;
};

struct Secret {
  static Secret random();
  Secret(const IdKey& id_key, const SealKey& seal_key) : id(id_key), seal(seal_key) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret();

  IdKey id;      // of the names of keys and nodes: the same for the life of a fleet
  SealKey seal;  // what this node seals with; it opens with all
  // At most one of the two.
  std::optional<SealKey> next;  // it will be sealed with
  std::optional<SealKey> old;   // it was sealed with

  const SealKey* find(uint32_t fingerprint) const;  // nullptr: none of these
};

enum class RotationStep : uint8_t { add, use, drop };
// The step that comes next.
RotationStep next_step(const Secret& secret);
// Takes it. False: it was taken already, and nothing changes. A step out of order is a failure that says what
// comes before.
Result<bool> rotate(Secret& secret, RotationStep step);

// Overwrites what a text held, however the compiler sees it.
void wipe(std::string& text);

}  // namespace tally
