// Sealed datagrams: what two hosts share is opened as it was, and no other bytes at all are.
#include "cluster/seal.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "base/random.h"
#include "cluster/wire.h"
#include "seed.h"
#include "wire_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

SealNonce nonce_of(uint8_t n) {
  SealNonce nonce;
  nonce.fill(n);
  return nonce;
}

Bytes sealed_of(std::span<const uint8_t> content, const SealKey& key, const SealNonce& nonce = nonce_of(7)) {
  DatagramBuffer buffer;
  const auto sealed = seal(content, key, nonce, buffer);
  return {sealed.begin(), sealed.end()};
}

OpenError error_of(const Bytes& bytes, const Secret& secret) {
  DatagramBuffer buffer;
  return open(bytes, secret, buffer).error;
}

Bytes bytes_of(size_t n, Random& random) {
  Bytes bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  return bytes;
}

}  // namespace

TEST_CASE("what was sealed is opened as it was, up to the longest datagram") {
  Random random(test_seed(1));
  const Secret secret = Secret::random();
  for (const size_t n : {size_t{0}, size_t{1}, size_t{100}, kSealedContentMax}) {
    const Bytes content = bytes_of(n, random);
    const Bytes sealed = sealed_of(content, secret.seal);
    CHECK(sealed.size() == n + kSealBytes);
    CHECK(sealed.size() <= kDatagramMax);
    CHECK(looks_sealed(sealed));
    DatagramBuffer buffer;
    const Opened opened = open(sealed, secret, buffer);
    REQUIRE(opened.error == OpenError::none);
    CHECK(std::equal(content.begin(), content.end(), opened.content.begin(), opened.content.end()));
    CHECK(*opened.key == secret.seal);
    if (n >= 16)  // nothing of it can be read on the way
      CHECK(std::search(sealed.begin(), sealed.end(), content.begin(), content.begin() + 16) == sealed.end());
  }
}

TEST_CASE("the bytes are those of the format, so that hosts of every build understand each other") {
  std::array<uint8_t, SealKey::kBytes> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(0x80 + i);
  const SealKey key(bytes);
  CHECK(key.fingerprint_text() == "350b91c4");
  // Computed without libsodium, by BLAKE2b, HChaCha20, ChaCha20 and Poly1305 as their papers have them.
  Bytes expected = {'T', 's', 1, 0xc4, 0x91, 0x0b, 0x35};
  expected.insert(expected.end(), 24, 7);
  for (const int byte : {0xe9, 0x0b, 0x6d, 0x0e, 0xf9, 0xbb, 0x38, 0x8a, 0x74, 0xec, 0x59, 0xc1, 0xe3, 0x1b, 0x0b, 0xa8, 0x29, 0x67, 0xd7})
    expected.push_back(static_cast<uint8_t>(byte));
  CHECK(sealed_of(Bytes{1, 2, 3}, key) == expected);
}

TEST_CASE("two keys are accepted, the first one seals, and through a rotation everybody opens what anybody seals") {
  Secret a = Secret::random();
  Secret b = a;  // the host that is a step behind
  const auto understand = [&] {
    const Bytes content{1, 2, 3};
    CHECK(error_of(sealed_of(content, a.seal), b) == OpenError::none);
    CHECK(error_of(sealed_of(content, b.seal), a) == OpenError::none);
  };
  for (int round = 0; round < 3; ++round) {
    const SealKey before = a.seal;
    for (const RotationStep step : {RotationStep::add, RotationStep::use, RotationStep::drop}) {
      REQUIRE(next_step(a) == step);
      REQUIRE(rotate(a, step).value());
      understand();
      CHECK_FALSE(rotate(a, step).value());  // once more changes nothing
      b = a;
      understand();
    }
    CHECK_FALSE(a.seal == before);
    CHECK(error_of(sealed_of(Bytes{1}, before), a) == OpenError::unknown_key);
  }
}

TEST_CASE("steps out of order are refused, for they would shut hosts out") {
  Secret secret = Secret::random();
  CHECK_FALSE(rotate(secret, RotationStep::use));
  CHECK_FALSE(rotate(secret, RotationStep::drop).value());
  REQUIRE(rotate(secret, RotationStep::add));
  CHECK_FALSE(rotate(secret, RotationStep::drop));
  REQUIRE(rotate(secret, RotationStep::use));
  CHECK_FALSE(rotate(secret, RotationStep::add));
}

TEST_CASE("a flipped bit, a cut and an addition are refused, each by its reason") {
  Random random(test_seed(2));
  const Secret secret = Secret::random();
  for (int i = 0; i < 5; ++i) {
    Bytes content;
    random_datagram(random, 4, content);
    Bytes sealed = sealed_of(std::span(content).first(std::min(content.size(), kSealedContentMax)), secret.seal);
    for (size_t bit = 0; bit < sealed.size() * 8; ++bit) {
      sealed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      const OpenError error = error_of(sealed, secret);
      if (bit < 16)
        REQUIRE((error == OpenError::bad_magic || error == OpenError::unsealed));
      else
        REQUIRE(error == (bit < 24 ? OpenError::version : bit < 56 ? OpenError::unknown_key : OpenError::forged));
      sealed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    for (size_t n = 0; n < sealed.size(); ++n)
      REQUIRE(error_of(Bytes(sealed.begin(), sealed.begin() + static_cast<ptrdiff_t>(n)), secret) ==
              (n < kSealBytes ? OpenError::too_short : OpenError::forged));
    sealed.push_back(0);
    REQUIRE(error_of(sealed, secret) == OpenError::forged);
    sealed.resize(kDatagramMax + 1);
    REQUIRE(error_of(sealed, secret) == OpenError::too_long);
  }
}

TEST_CASE("noise is refused, behind a true start too, and a datagram that nobody sealed says so") {
  Random random(test_seed(3));
  const Secret secret = Secret::random();
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes = bytes_of(random.below(kDatagramMax + 100), random);
    if (random.chance(0.8)) {
      const Bytes start = sealed_of({}, secret.seal);
      std::copy_n(start.begin(), std::min<size_t>(bytes.size(), 7), bytes.begin());
    }
    REQUIRE(error_of(bytes, secret) != OpenError::none);
  }
  Bytes plain;
  random_datagram(random, 3, plain);
  CHECK(error_of(plain, secret) == OpenError::unsealed);
  CHECK_FALSE(looks_sealed(plain));
  CHECK(error_of({}, secret) == OpenError::too_short);
}

TEST_CASE("another secret, and another key under the same fingerprint, open nothing") {
  const Secret secret = Secret::random(), other = Secret::random();
  Bytes sealed = sealed_of(Bytes{1, 2, 3}, other.seal);
  CHECK(error_of(sealed, secret) == OpenError::unknown_key);
  const Bytes ours = sealed_of(Bytes{1, 2, 3}, secret.seal);
  std::copy_n(ours.begin(), 7, sealed.begin());
  CHECK(error_of(sealed, secret) == OpenError::forged);
}

TEST_CASE("a writer that leaves room for the seal fills a sealed datagram to the last byte but a few") {
  const Secret secret = Secret::random();
  Header header;
  header.sender = 1;
  DatagramWriter writer(header, secret.id, kSealedContentMax);
  Reset reset;
  reset.number = 1'000'000;
  while (writer.add(reset)) {
  }
  const Bytes sealed = sealed_of(writer.finish(), secret.seal);
  CHECK(sealed.size() <= kDatagramMax);
  CHECK(sealed.size() > kDatagramMax - 30);
  DatagramBuffer buffer;
  const Opened opened = open(sealed, secret, buffer);
  REQUIRE(opened.error == OpenError::none);
  Datagram out;
  CHECK(decode(opened.content, secret.id, out) == DecodeError::none);
}

TEST_CASE("every reason has a name") {
  for (size_t i = 0; i < kOpenErrors; ++i) CHECK(open_error_name(static_cast<OpenError>(i)) != "unknown");
  CHECK(open_error_name(static_cast<OpenError>(kOpenErrors)) == "unknown");
}
