// The busiest keys in bounded memory, against counts that are exact.
#include "core/top_sketch.h"

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>

#include "../tools/bench/zipf.h"
#include "core_fixture.h"

namespace tally {
namespace {

KeyHash hash_of(std::string_view key) { return hash_key(key, test::seed(), 1); }

const TopSketch::Entry* find(const TopSketch& sketch, std::string_view key) {
  for (const auto& entry : sketch.entries())
    if (entry.key == key) return &entry;
  return nullptr;
}

// What is exact, beside the sketch.
struct Both {
  struct Exact {
    uint64_t admitted = 0, limited = 0;
  };
  void add(const std::string& key, bool limited, uint64_t weight) {
    sketch.add(3, key, hash_of(key), limited, weight);
    Exact& of_key = exact[key];
    (limited ? of_key.limited : of_key.admitted) += weight;
    total += weight;
  }
  // All that the head of top_sketch.h promises.
  void check() const {
    REQUIRE(sketch.entries().size() <= TopSketch::kEntries);
    std::set<std::string_view> listed;
    const uint64_t off = total / TopSketch::kEntries;
    uint64_t all = 0;
    for (const auto& entry : sketch.entries()) {
      REQUIRE(listed.insert(entry.key).second);
      const Exact& real = exact.at(entry.key);
      REQUIRE(entry.rule == 3);
      REQUIRE(entry.admitted <= real.admitted);
      REQUIRE(entry.limited <= real.limited);
      REQUIRE(real.admitted + real.limited <= entry.all());
      REQUIRE(entry.missed <= off);
      all += entry.all();
    }
    REQUIRE(all == total);
    for (const auto& [key, real] : exact)
      if (real.admitted + real.limited > off) REQUIRE(listed.contains(key));
  }

  TopSketch sketch;
  std::map<std::string, Exact> exact;
  uint64_t total = 0;
};

TEST_CASE("as long as all keys have an entry the counts are exact") {
  Both both;
  Random random(test::seed());
  for (int i = 0; i < 50'000; ++i)
    both.add("key:" + std::to_string(random.below(TopSketch::kEntries)), random.chance(0.3),
             1 + random.below(3));
  both.check();
  for (const auto& entry : both.sketch.entries()) {
    CHECK(entry.missed == 0);
    CHECK(entry.admitted == both.exact[entry.key].admitted);
    CHECK(entry.limited == both.exact[entry.key].limited);
  }
}

TEST_CASE("of many keys by Zipf's law the busiest are there, in order, and counted within the bound") {
  for (const uint64_t weights : {1, 50}) {
    CAPTURE(weights);
    Both both;
    Random random(test::seed());
    const bench::Zipf zipf(200'000);
    for (int i = 0; i < 500'000; ++i) {
      both.add("user:" + std::to_string(zipf.draw([&] { return random.unit(); })), random.chance(0.2),
               1 + random.below(weights));
      if (i % 100'000 == 0) both.check();
    }
    both.check();
    uint64_t before = UINT64_MAX;
    for (int rank = 1; rank <= 5; ++rank) {
      const auto* entry = find(both.sketch, "user:" + std::to_string(rank));
      REQUIRE(entry != nullptr);
      CHECK(entry->admitted + entry->limited < before);
      before = entry->admitted + entry->limited;
    }
  }
}

TEST_CASE("a flood of keys that never come again hides no busy one, and seems no busier than it is") {
  Both both;
  for (int i = 0; i < 200'000; ++i) {
    both.add("once:" + std::to_string(i), false, 1);
    if (i % 100 == 0) both.add("busy", true, 1);
  }
  both.check();
  const auto* busy = find(both.sketch, "busy");
  REQUIRE(busy != nullptr);
  CHECK(busy->limited >= 2'000 - both.total / TopSketch::kEntries);
  for (const auto& entry : both.sketch.entries())
    if (entry.key != "busy") CHECK(entry.admitted == 1);
}

TEST_CASE("keys are any bytes, and one of two rules is two") {
  TopSketch sketch;
  const std::string binary("\0\r\n\xff key", 8);
  sketch.add(1, binary, hash_key(binary, 7, 1), false, 1);
  sketch.add(2, binary, hash_key(binary, 7, 2), true, 1);
  REQUIRE(sketch.entries().size() == 2);
  for (const auto& entry : sketch.entries()) {
    CHECK(entry.key == binary);
    CHECK(entry.admitted == (entry.rule == 1 ? 1 : 0));
    CHECK(entry.limited == (entry.rule == 2 ? 1 : 0));
  }
}

TEST_CASE("what is taken back is not counted, and no more than was admitted") {
  TopSketch sketch;
  sketch.add(1, "k", hash_of("k"), false, 10);
  sketch.add(1, "k", hash_of("k"), true, 2);
  sketch.take_back(hash_of("k"), 4);
  sketch.take_back(hash_of("nobody"), 4);
  CHECK(find(sketch, "k")->admitted == 6);
  CHECK(find(sketch, "k")->limited == 2);
  sketch.take_back(hash_of("k"), 100);
  CHECK(find(sketch, "k")->admitted == 0);
  CHECK(sketch.entries().size() == 1);
}

TEST_CASE("a cleared sketch is as a new one") {
  Both used;
  for (int i = 0; i < 10'000; ++i) used.add("key:" + std::to_string(i), false, 1);
  used.sketch.clear();
  CHECK(used.sketch.entries().empty());
  used.exact.clear();
  used.total = 0;
  for (int i = 0; i < 10'000; ++i) used.add("key:" + std::to_string(i % 3'000), true, 1);
  used.check();
}

}  // namespace
}  // namespace tally
