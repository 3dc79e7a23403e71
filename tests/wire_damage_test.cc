// The peer wire: no bytes at all can do harm.
#include <doctest/doctest.h>

#include "base/random.h"
#include "cluster/wire.h"
#include "seed.h"
#include "wire_fixture.h"

using namespace tally;
using namespace tally::test;

TEST_CASE("a datagram cut at any length is refused") {
  Random random(test_seed(2));
  for (int i = 0; i < 50; ++i) {
    Bytes bytes;
    random_datagram(random, 20, bytes);
    for (size_t n = 0; n < bytes.size(); ++n) {
      Datagram out;
      const DecodeError error = decode(std::span(bytes).first(n), kKey, out);
      REQUIRE(error == (n < 11 ? DecodeError::too_short : DecodeError::forged));
    }
  }
}

TEST_CASE("a signed datagram cut at any length is whole entries or malformed") {
  Random random(test_seed(3));
  for (int i = 0; i < 200; ++i) {
    Bytes bytes;
    const Datagram d = random_datagram(random, 12, bytes);
    const Bytes content = unsigned_bytes(bytes);
    size_t readable = 0;
    for (size_t n = 3; n <= content.size(); ++n) {
      Datagram out;
      const DecodeError error = decode(
          signed_bytes(Bytes(content.begin(), content.begin() + static_cast<ptrdiff_t>(n))), kKey, out);
      if (error == DecodeError::none) {
        REQUIRE((out.entries.empty() || out.entries.size() > readable));  // whole lists, too
        REQUIRE(std::equal(out.entries.begin(), out.entries.end(), d.entries.begin()));
        readable = out.entries.size();
      } else {
        REQUIRE(error == DecodeError::malformed);
      }
    }
    REQUIRE(readable == d.entries.size());
  }
}

TEST_CASE("a flipped bit makes a datagram forged, or of another magic or version") {
  Random random(test_seed(4));
  for (int i = 0; i < 20; ++i) {
    Bytes bytes;
    random_datagram(random, 8, bytes);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      Datagram out;
      const DecodeError expected = bit < 16   ? DecodeError::bad_magic
                                   : bit < 24 ? DecodeError::version
                                              : DecodeError::forged;
      REQUIRE(decode(bytes, kKey, out) == expected);
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    IdKey other = kKey;
    other[15] ^= 1;
    Datagram out;
    REQUIRE(decode(bytes, other, out) == DecodeError::forged);
  }
}

TEST_CASE("signed bytes of any kind are read or malformed, and what is read can be written again") {
  Random random(test_seed(5));
  size_t read = 0, malformed = 0;
  Datagram out;
  for (int i = 0; i < 300'000; ++i) {
    Bytes bytes;
    if (random.chance(0.2)) {  // noise behind a true start
      bytes = {'T', 'y', kWireVersion};
      const size_t n = random.below(200);
      for (size_t k = 0; k < n; ++k) bytes.push_back(static_cast<uint8_t>(random.next()));
    } else {  // a true datagram with a few bytes changed, taken out or put in
      random_datagram(random, random.below(6), bytes);
      bytes = unsigned_bytes(bytes);
      for (uint64_t k = 1 + random.below(4); k > 0 && bytes.size() > 4; --k) {
        const auto at = bytes.begin() + static_cast<ptrdiff_t>(3 + random.below(bytes.size() - 3));
        const auto byte = static_cast<uint8_t>(random.next());
        if (random.chance(0.6))
          *at = byte;
        else if (random.chance(0.5))
          bytes.erase(at);
        else
          bytes.insert(at, byte);
      }
    }
    bytes = signed_bytes(std::move(bytes));
    const DecodeError error = decode(bytes, kKey, out);
    if (bytes.size() > kDatagramMax) {
      REQUIRE(error == DecodeError::too_long);
      continue;
    }
    if (error == DecodeError::malformed) {
      ++malformed;
      continue;
    }
    REQUIRE(error == DecodeError::none);
    ++read;
    REQUIRE(out.entries.size() <= kDatagramMax / 3);
    DatagramWriter writer(out.header, kKey);
    for (const Entry& e : out.entries) REQUIRE(writer.add(e));
    Datagram again;
    REQUIRE(decode(writer.finish(), kKey, again) == DecodeError::none);
    REQUIRE(again == out);
  }
  CHECK(read > 10'000);
  CHECK(malformed > 10'000);
}

TEST_CASE("bytes of any kind without a signature are never read") {
  Random random(test_seed(6));
  for (int i = 0; i < 200'000; ++i) {
    Bytes bytes(random.below(64));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.next());
    if (random.chance(0.5) && bytes.size() >= 3) bytes[0] = 'T', bytes[1] = 'y', bytes[2] = kWireVersion;
    Datagram out;
    const DecodeError error = decode(bytes, kKey, out);
    REQUIRE(error != DecodeError::none);
    REQUIRE(error != DecodeError::malformed);
  }
}

TEST_CASE("a number that its field cannot hold is malformed") {
  constexpr uint64_t kLimit = 1 << 0, kPpm = 1 << 1, kWindow = 1 << 2, kAlgorithm = 1 << 6;
  CHECK(decode_report(kLimit, kLimitMax) == DecodeError::none);
  CHECK(decode_report(kLimit, uint64_t{kLimitMax} + 1) == DecodeError::malformed);
  CHECK(decode_report(kPpm, 2 * 1'000'000) == DecodeError::none);  // an even number counts ones
  CHECK(decode_report(kPpm, 2 * 1'000'001) == DecodeError::malformed);
  CHECK(decode_report(kPpm, 2 * 1'000 + 1) == DecodeError::none);  // an odd number counts thousands
  CHECK(decode_report(kPpm, 2 * 1'001 + 1) == DecodeError::malformed);
  constexpr uint64_t kMostMs = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 1'000'000;
  CHECK(decode_report(kWindow, ~uint64_t{0} - 1) == DecodeError::none);  // Duration::max()
  CHECK(decode_report(kWindow, 2 * kMostMs + 1) == DecodeError::none);
  CHECK(decode_report(kWindow, 2 * kMostMs + 3) == DecodeError::malformed);

  CHECK(decode_report(kAlgorithm, 2) == DecodeError::none);
  CHECK(decode_report(kAlgorithm, 3) == DecodeError::malformed);
  CHECK(decode_report(kAlgorithm, 256) == DecodeError::malformed);

  const auto decode_line = [](uint64_t line, uint64_t used) {
    Bytes fields(12, 0);  // the key
    put_varint(fields, line);
    put_varint(fields, used);
    return decode_report_with(0, fields);
  };
  CHECK(decode_line(0xffff'ffff, ~uint64_t{0}) == DecodeError::none);
  CHECK(decode_line(0x1'0000'0000, 0) == DecodeError::malformed);
  const auto decode_pool = [](uint64_t pool) {
    Bytes list(14, 0);  // of all nothing; the first one's presence and key
    list[0] = 1 << 2;
    list.pop_back();
    put_varint(list, 7);  // its line
    put_varint(list, pool);
    return decode_entry(2, 0, list);
  };
  CHECK(decode_pool(255) == DecodeError::none);
  CHECK(decode_pool(256) == DecodeError::malformed);
}

TEST_CASE("a field, a varint or an entry that runs out of its bounds is malformed") {
  const Bytes key(12, 1);
  CHECK(decode_entry(7, 0, key) == DecodeError::none);
  CHECK(decode_entry(7, 0, Bytes(11, 1)) == DecodeError::malformed);  // half a key
  CHECK(decode_entry(7, 1, key) == DecodeError::malformed);           // a field announced, and not there
  Bytes number = key;
  number.insert(number.end(), 9, 0xff);
  CHECK(decode_entry(7, 1, number) == DecodeError::malformed);  // a varint without an end
  number.push_back(0x01);
  CHECK(decode_entry(7, 1, number) == DecodeError::none);  // 2^64 - 1
  number.back() = 0x02;
  CHECK(decode_entry(7, 1, number) == DecodeError::malformed);       // 65 bits
  CHECK(decode_entry(5, 1, Bytes(7, 1)) == DecodeError::malformed);  // 7 of 8 bytes

  Bytes mark(13, 1);  // a list that says nothing of all; presence and key of its only one
  mark[0] = 0;
  CHECK(decode_entry(3, 0, {}) == DecodeError::none);  // none in it
  CHECK(decode_entry(3, 0, mark) == DecodeError::none);
  CHECK(decode_entry(3, 0, Bytes(mark.begin(), mark.end() - 1)) == DecodeError::malformed);
  CHECK(decode_entry(3, 1, {}) == DecodeError::malformed);
  mark[0] = 1;
  CHECK(decode_entry(3, 0, mark) == DecodeError::malformed);
  mark[0] = 0b1010;  // a ballot with two nodes
  mark.insert(mark.end(), 8, 1);
  CHECK(decode_entry(3, 0, mark) == DecodeError::malformed);
  mark[0] = 0b1000;
  CHECK(decode_entry(3, 0, mark) == DecodeError::none);

  for (const uint64_t length : {uint64_t{1}, uint64_t{1000}, ~uint64_t{0}}) {
    Bytes bytes = unsigned_bytes(DatagramWriter(Header{}, kKey).finish());
    bytes.push_back(200);  // an unknown type: its length is believed no more than another's
    bytes.push_back(1);
    put_varint(bytes, length);
    Datagram out;
    CHECK(decode(signed_bytes(bytes), kKey, out) == DecodeError::malformed);
  }
}
