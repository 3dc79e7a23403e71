#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/random.h"
#include "base/ring.h"
#include "seed.h"

using namespace tally;

namespace {

constexpr IdKey kCounting = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

std::string counting(size_t n) {
  std::string bytes;
  for (size_t i = 0; i < n; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

}  // namespace

TEST_CASE("the hashes give the values that their authors published") {
  // SipHash-2-4 and SipHash-2-4-128: the reference implementation's vectors, key 00..0f, input 00, 01, 02...
  CHECK(keyed_hash("", kCounting) == 0x726fdb47dd0e0e31);
  CHECK(keyed_hash(counting(15), kCounting) == 0xa129ca6149be45e5);
  const IdKey empty_128 = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                           0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
  CHECK(rule_id_key("", kCounting) == empty_128);
  // XXH3: the empty input under seed 0.
  CHECK(hash_key("", 0, 0) == KeyHash{0x99aa06d3014798d8, 0x6001c324468d497f});
  CHECK(rule_seed_of("") == 0x2d06800538d394c2);
}

TEST_CASE("a key's hash depends on the key, the table's seed and the rule") {
  const KeyHash h = hash_key("user:1", 7, 9);
  CHECK(h == hash_key("user:1", 7, 9));
  CHECK_FALSE(h == hash_key("user:2", 7, 9));
  CHECK_FALSE(h == hash_key("user:1", 8, 9));
  CHECK_FALSE(h == hash_key("user:1", 7, 10));
  CHECK_FALSE(hash_key(std::string_view("a\0b", 3), 0, 0) == hash_key("a", 0, 0));
}

TEST_CASE("a key's name between nodes depends on the key, the rule and the fleet's key") {
  const IdKey api = rule_id_key("api", kPublicIdKey), login = rule_id_key("login", kPublicIdKey);
  const WireId id = wire_id("user:1", api);
  CHECK(id == wire_id("user:1", api));
  CHECK(id != wire_id("user:2", api));
  CHECK(id != wire_id("user:1", login));
  CHECK(id != wire_id("user:1", rule_id_key("api", kCounting)));
  CHECK(id.word() == std::hash<WireId>{}(id));
}

TEST_CASE("a hundred thousand similar keys have as many names") {
  const IdKey rule = rule_id_key("api", kPublicIdKey);
  std::set<WireId> names;
  for (int i = 0; i < 100'000; ++i) names.insert(wire_id("user:" + std::to_string(i), rule));
  CHECK(names.size() == 100'000);
}

TEST_CASE("each input bit of mix changes about half of the output bits") {
  Random random(test_seed(1));
  for (unsigned bit = 0; bit < 64; ++bit) {
    int changed = 0;
    for (int i = 0; i < 200; ++i) {
      const uint64_t x = random.next();
      changed += std::popcount(mix(x) ^ mix(x ^ uint64_t{1} << bit));
    }
    CAPTURE(bit);
    CHECK(changed > 200 * 28);
    CHECK(changed < 200 * 36);
  }
}

TEST_CASE("the generator is xoshiro256** seeded by splitmix64, and a seed gives one sequence") {
  Random random(0);
  CHECK(random.next() == 0x99ec5f36cb75f2b4);
  CHECK(random.next() == 0xbf6e1f784956452a);
  CHECK(random.next() == 0x1a5f849d4933e6e0);
  Random a(5), b(5), c(6);
  for (int i = 0; i < 100; ++i) {
    const uint64_t x = a.next();
    REQUIRE(x == b.next());
    REQUIRE(x != c.next());
  }
}

TEST_CASE("below, between, unit and chance stay in their ranges and are even") {
  Random random(test_seed(2));
  CHECK(random.below(0) == 0);
  CHECK(random.below(1) == 0);
  CHECK(random.between(-3, -3) == -3);
  std::vector<int> hits(7);
  for (int i = 0; i < 70'000; ++i) ++hits[static_cast<size_t>(random.between(-3, 3) + 3)];
  for (const int h : hits) {  // mean 10,000, deviation 93
    CHECK(h > 9'500);
    CHECK(h < 10'500);
  }
  double sum = 0;
  int yes = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double u = random.unit();
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    sum += u;
    yes += random.chance(0.25);
    REQUIRE(random.below(1000) < 1000);
  }
  CHECK(std::abs(sum / 100'000 - 0.5) < 0.006);  // deviation 0.0009
  CHECK(std::abs(yes / 100'000.0 - 0.25) < 0.009);
  CHECK_FALSE(random.chance(0));
  CHECK(random.chance(1));
}

TEST_CASE("a ring keeps order, says when it is full and can be filled again") {
  Ring<int> ring(5);  // rounded up to 8
  int out = 0, pushed = 0, popped = 0;
  CHECK_FALSE(ring.pop(out));
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 8; ++i) REQUIRE(ring.push(pushed++));
    REQUIRE_FALSE(ring.push(-1));
    for (int i = 0; i < 3; ++i) {
      REQUIRE(ring.pop(out));
      REQUIRE(out == popped++);
    }
    for (int i = 0; i < 3; ++i) REQUIRE(ring.push(pushed++));
    while (ring.pop(out)) REQUIRE(out == popped++);
    REQUIRE(popped == pushed);
  }
}
