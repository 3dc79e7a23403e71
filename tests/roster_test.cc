#include "cluster/roster.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {

std::vector<std::string> entries_of(size_t n) {
  std::vector<std::string> entries;
  for (size_t i = 0; i < n; ++i) entries.push_back("10.0.0." + std::to_string(i) + ":8381");
  return entries;
}
Roster roster_of(size_t n) { return Roster(entries_of(n), 1, static_cast<uint32_t>(n), kPublicIdKey); }

WireId random_key(Random& random) {
  WireId id;
  for (uint8_t& b : id.bytes) b = static_cast<uint8_t>(random.next());
  return id;
}

// The entries of a key's group, in order.
std::vector<std::string> names(const Roster& roster, const WireId& key) {
  const Group group = roster.group(key);
  std::vector<std::string> names;
  for (size_t i = 0; i < group.size; ++i) names.push_back(roster.entry(group.rank[i]));
  return names;
}

}  // namespace

TEST_CASE("the same list in any order is the same roster, and any change is another") {
  Random random(test_seed(1));
  std::vector<std::string> entries = entries_of(12);
  const Roster first(entries, 1, 12, kPublicIdKey);
  for (int i = 0; i < 50; ++i) {
    std::shuffle(entries.begin(), entries.end(), random);
    const Roster again(entries, 2, 12, kPublicIdKey);
    REQUIRE(again.hash() == first.hash());
    for (uint16_t r = 0; r < 12; ++r) {
      REQUIRE(again.entry(r) == first.entry(r));
      REQUIRE(again.id(r) == first.id(r));
    }
  }
  CHECK(Roster(entries, 1, 13, kPublicIdKey).hash() != first.hash());
  CHECK(Roster(entries_of(11), 1, 12, kPublicIdKey).hash() != first.hash());
  IdKey other = kPublicIdKey;
  other[0] ^= 1;
  CHECK(Roster(entries, 1, 12, other).hash() != first.hash());
  // Where one name ends and the next begins is part of the list.
  CHECK(Roster({"ab", "c"}, 1, 2, kPublicIdKey).hash() != Roster({"a", "bc"}, 1, 2, kPublicIdKey).hash());
}

TEST_CASE("a rank is a place in the sorted list, found by name and by id") {
  const Roster roster({"c:1", "a:1", "b:1"}, 7, 5, kPublicIdKey);
  CHECK(roster.version() == 7);
  CHECK(roster.size() == 5);
  REQUIRE(roster.count() == 3);
  CHECK(roster.entry(0) == "a:1");
  CHECK(roster.entry(2) == "c:1");
  CHECK(roster.rank_of("b:1") == 1);
  CHECK(roster.rank_of("d:1") == std::nullopt);
  CHECK(roster.rank_of("") == std::nullopt);
  CHECK(roster.id(1) == keyed_hash("b:1", kPublicIdKey));
  for (uint16_t r = 0; r < 3; ++r) CHECK(roster.rank_of(roster.id(r)) == r);
  CHECK(roster.rank_of(NodeId{12345}) == std::nullopt);

  const Roster many = roster_of(kRosterMax);
  for (uint16_t r = 0; r < kRosterMax; ++r) {
    REQUIRE(many.rank_of(many.id(r)) == r);
    REQUIRE(many.rank_of(many.entry(r)) == r);
  }
}

TEST_CASE("a group is three different nodes, or all where there are fewer, and its majority is of its size") {
  Random random(test_seed(2));
  for (const size_t n : {1, 2, 3, 4, 10, 300}) {
    const Roster roster = roster_of(n);
    for (int i = 0; i < 1000; ++i) {
      const Group group = roster.group(random_key(random));
      REQUIRE(group.size == std::min(n, kGroupMax));
      std::set<uint16_t> members;
      for (size_t k = 0; k < group.size; ++k) {
        members.insert(group.rank[k]);
        REQUIRE(group.rank[k] < n);
        REQUIRE(group.contains(group.rank[k]));
      }
      REQUIRE(members.size() == group.size);
      REQUIRE(group.majority() == (group.size == 1 ? 1 : 2));
    }
  }
}

TEST_CASE("a group is the three largest weights, in falling order") {
  Random random(test_seed(3));
  const Roster roster = roster_of(40);
  for (int i = 0; i < 2000; ++i) {
    const WireId key = random_key(random);
    std::vector<std::pair<uint64_t, uint16_t>> weights;
    for (uint16_t r = 0; r < 40; ++r) weights.emplace_back(mix(key.word() ^ roster.id(r)), r);
    std::sort(weights.rbegin(), weights.rend());
    const Group group = roster.group(key);
    for (size_t k = 0; k < kGroupMax; ++k) REQUIRE(group.rank[k] == weights[k].second);
  }
}

TEST_CASE("each place of a group is spread evenly over the nodes") {
  Random random(test_seed(4));
  for (const size_t n : {2, 3, 5, 10, 50}) {
    const Roster roster = roster_of(n);
    constexpr size_t kKeys = 100'000;
    std::vector<std::vector<size_t>> hits(kGroupMax, std::vector<size_t>(n));
    size_t places = 0;
    for (size_t i = 0; i < kKeys; ++i) {
      const Group group = roster.group(random_key(random));
      places = group.size;
      for (size_t k = 0; k < places; ++k) ++hits[k][group.rank[k]];
    }
    for (size_t k = 0; k < places; ++k) {
      const double expected = static_cast<double>(kKeys) / static_cast<double>(n);
      double chi_square = 0;
      for (const size_t h : hits[k]) {
        const double off = static_cast<double>(h) - expected;
        chi_square += off * off / expected;
      }
      // Mean n - 1, variance 2 (n - 1): six deviations above the mean.
      const double freedom = static_cast<double>(n - 1);
      CAPTURE(n);
      CAPTURE(k);
      CHECK(chi_square < freedom + 6 * std::sqrt(2 * freedom));
    }
  }
}

TEST_CASE("when a node leaves, only the groups that had it change, and the rest of them moves up") {
  Random random(test_seed(5));
  std::vector<std::string> fewer = entries_of(20);
  const std::string gone = fewer[7];
  fewer.erase(fewer.begin() + 7);
  const Roster before = roster_of(20), after(fewer, 2, 20, kPublicIdKey);
  size_t changed = 0;
  for (int i = 0; i < 20'000; ++i) {
    const WireId key = random_key(random);
    std::vector<std::string> was = names(before, key);
    const std::vector<std::string> is = names(after, key);
    const auto had = std::find(was.begin(), was.end(), gone);
    if (had == was.end()) {
      REQUIRE(is == was);
      continue;
    }
    ++changed;
    was.erase(had);
    REQUIRE(std::equal(was.begin(), was.end(), is.begin()));
  }
  CHECK(changed > 2'600);  // 3 of 20
  CHECK(changed < 3'400);
}
