// Fields <-> bytes: a body is a presence word and the fields that it names.
//
// Thread rule: nothing is shared. Reading is total: any bytes give values, or a failure that ok() tells of.
//
// The fields of a struct are named once, in one function template over the visitor: fields(visitor, struct).
// Writer writes them, Reader reads. Each optional field and each boolean owns one bit of the presence word,
// in the order of the calls, so that what is usual costs nothing. Numbers are little-endian base-128 varints.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

#include "base/fail.h"
#include "base/time.h"

namespace tally::codec {

inline constexpr size_t kVarintMax = 10;              // bytes
inline constexpr uint64_t kDurationUnit = 1'000'000;  // most durations are whole milliseconds

constexpr size_t varint_bytes(uint64_t n) { return (static_cast<size_t>(std::bit_width(n | 1)) + 6) / 7; }
constexpr uint64_t zigzag(int64_t n) {
  return (static_cast<uint64_t>(n) << 1) ^ static_cast<uint64_t>(n >> 63);
}
constexpr int64_t unzigzag(uint64_t n) { return static_cast<int64_t>((n >> 1) ^ (0 - (n & 1))); }

inline uint8_t* put_varint(uint8_t* at, uint64_t n) {
  for (; n >= 0x80; n >>= 7) *at++ = static_cast<uint8_t>(n | 0x80);
  *at++ = static_cast<uint8_t>(n);
  return at;
}
inline uint8_t* put_word(uint8_t* at, uint64_t n) {
  for (unsigned shift = 0; shift < 64; shift += 8) *at++ = static_cast<uint8_t>(n >> shift);
  return at;
}

// --- the two visitors ---

// Writes fields one behind the other, and the presence word before them once all are known.
class Writer {
 public:
  static constexpr bool kReads = false;
  static constexpr size_t kFieldsMax = 1400;  // bytes; the fields of no struct take more

  void flag(bool set) { bits_ |= uint64_t{set} << next_++; }
  void varint(bool present, uint64_t n) {
    flag(present);
    if (present) always(n);
  }
  void word(bool present, uint64_t n) {
    flag(present);
    if (present) at_ = put_word(at_, n);
  }
  void always(uint64_t n) { at_ = put_varint(at_, n); }
  void raw(const uint8_t* from, size_t n) {
    std::memcpy(at_, from, n);
    at_ += n;
  }

  std::span<const uint8_t> body() {
    CHECK_THAT(next_ <= 64);
    uint8_t* const begin = fields_ - varint_bytes(bits_);
    put_varint(begin, bits_);
    return {begin, at_};
  }

 private:
  uint8_t bytes_[kVarintMax + kFieldsMax];  // filled as far as at_
  uint8_t* const fields_ = bytes_ + kVarintMax;
  uint8_t* at_ = fields_;
  uint64_t bits_ = 0;
  unsigned next_ = 0;
};

// Reads within its span; after the first failure everything reads as absent or zero and ok() is false.
class Reader {
 public:
  static constexpr bool kReads = true;
  explicit Reader(std::span<const uint8_t> bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  bool ok() const { return ok_; }
  size_t left() const { return static_cast<size_t>(end_ - at_); }
  void fail() {
    ok_ = false;
    at_ = end_;
    bits_ = 0;
  }

  void read_presence() {
    bits_ = take_varint();
    next_ = 0;
  }
  // What a newer version has added: a varint for each further bit.
  void skip_unknown() {
    for (uint64_t more = next_ < 64 ? bits_ >> next_ : 0; more != 0 && ok_; more >>= 1)
      if ((more & 1) != 0) take_varint();
  }
  bool flag() { return ((bits_ >> next_++) & 1) != 0; }
  // True, and sets n, where the field is there; otherwise n becomes 0.
  bool varint(uint64_t& n) {
    const bool present = flag();
    n = present ? take_varint() : 0;
    return present;
  }
  bool word(uint64_t& n) {
    const bool present = flag();
    n = present ? take_word() : 0;
    return present;
  }
  void raw(uint8_t* to, size_t n) {
    if (left() < n) return fail();
    std::memcpy(to, at_, n);
    at_ += n;
  }

  uint64_t take_varint() {
    uint64_t n = 0;
    for (unsigned shift = 0; shift < 64 && at_ != end_; shift += 7) {
      const uint64_t byte = *at_++;
      if (shift == 63 && byte > 1) break;  // more than 64 bits
      n |= (byte & 0x7f) << shift;
      if (byte < 0x80) return n;
    }
    fail();
    return 0;
  }
  uint64_t take_word() {
    uint64_t n = 0;
    if (left() < 8) {
      fail();
      return 0;
    }
    for (unsigned shift = 0; shift < 64; shift += 8) n |= uint64_t{*at_++} << shift;
    return n;
  }
  Reader take_part(uint64_t length) {
    if (length > left()) {
      fail();
      length = 0;
    }
    Reader part({at_, static_cast<size_t>(length)});
    at_ += length;
    return part;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t bits_ = 0;
  unsigned next_ = 0;  // never past 63: no body has that many fields
  bool ok_ = true;
};

// --- values, for every visitor ---

template <typename V, typename T>
using Of = std::conditional_t<V::kReads, T, const T>;

template <typename V>
void flag(V& v, Of<V, bool>& b) {
  if constexpr (V::kReads) {
    b = v.flag();
  } else {
    v.flag(b);
  }
}

template <typename V, typename T>
void number(V& v, T& x, uint64_t max = std::numeric_limits<T>::max()) {
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    if (n > max) v.fail();
    x = static_cast<T>(n);
  } else {
    v.varint(x != 0, x);
  }
}

// A number without a bit.
template <typename V, typename T>
void always(V& v, T& x) {
  if constexpr (V::kReads) {
    const uint64_t n = v.take_varint();
    if (n > std::numeric_limits<T>::max()) v.fail();
    x = static_cast<T>(n);
  } else {
    v.always(x);
  }
}

// A number that is mostly no smaller than `base`, by little; modulo 2^64.
template <typename V>
void above(V& v, Of<V, uint64_t>& x, uint64_t base) {
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    x = base + n;
  } else {
    v.varint(x != base, x - base);
  }
}

// A number that is often `base`, or near it; modulo 2^64.
template <typename V>
void difference(V& v, Of<V, uint64_t>& x, uint64_t base) {
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    x = base + static_cast<uint64_t>(unzigzag(n));
  } else {
    v.varint(x != base, zigzag(static_cast<int64_t>(x - base)));
  }
}

// A number that is often the largest of its type.
template <typename V, typename T>
void complement(V& v, T& x) {
  constexpr uint64_t kWhole = std::numeric_limits<std::remove_const_t<T>>::max();
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    if (n > kWhole) v.fail();
    x = static_cast<T>(kWhole - n);
  } else {
    v.varint(x != kWhole, kWhole - x);
  }
}

template <typename V>
void signed_number(V& v, Of<V, int64_t>& x) {
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    x = unzigzag(n);
  } else {
    v.varint(x != 0, zigzag(x));
  }
}

template <typename V>
void word(V& v, Of<V, uint64_t>& x) {
  if constexpr (V::kReads) {
    v.word(x);
  } else {
    v.word(x != 0, x);
  }
}

// Bytes, and their number before them; more than `max` are none.
template <typename V>
void text(V& v, Of<V, std::string>& s, size_t max) {
  if constexpr (V::kReads) {
    uint64_t n;
    v.varint(n);
    if (n > max || n > v.left()) {
      v.fail();
      n = 0;
    }
    s.resize(n);
    v.raw(reinterpret_cast<uint8_t*>(s.data()), s.size());
  } else {
    CHECK_THAT(s.size() <= max);
    v.varint(!s.empty(), s.size());
    v.raw(reinterpret_cast<const uint8_t*>(s.data()), s.size());
  }
}

// A number below 2^63, the last bit of the varint saying whether it counts units or ones.
constexpr uint64_t pack(uint64_t n, uint64_t unit) { return n % unit == 0 ? (n / unit << 1) | 1 : n << 1; }

template <typename V>
uint64_t read_packed(V& v, uint64_t unit, uint64_t max) {
  uint64_t n;
  v.varint(n);
  const uint64_t factor = (n & 1) != 0 ? unit : 1;
  if ((n >> 1) <= max / factor) return (n >> 1) * factor;
  v.fail();
  return 0;
}

template <typename V, typename T>
void packed(V& v, T& x, uint64_t unit, uint64_t max = std::numeric_limits<int64_t>::max()) {
  if constexpr (V::kReads) {
    x = static_cast<T>(read_packed(v, unit, max));
  } else {
    v.varint(x != 0, pack(x, unit));
  }
}

template <typename V>
void duration(V& v, Of<V, Duration>& d) {
  if constexpr (V::kReads) {
    d = Duration(static_cast<int64_t>(read_packed(v, kDurationUnit, std::numeric_limits<int64_t>::max())));
  } else {
    const bool present = d > Duration(0);
    v.varint(present, present ? pack(static_cast<uint64_t>(nanos(d)), kDurationUnit) : 0);
  }
}

}  // namespace tally::codec
