#include "cluster/key_table.h"

#include <doctest/doctest.h>

#include <map>

#include "cluster_fixture.h"
#include "seed.h"

namespace tally::test {
namespace {

// All keys have one of four hashes, so that chains are long and cross the end of the table.
struct FewHashes {
  size_t operator()(const WireId& id) const { return id.word() % 4 * 7; }
};

TEST_CASE("a table of keys has what a std::map has, whatever is put in, erased and swept") {
  Random random(test_seed(1));
  for (int round = 0; round < kRandomRounds / 10; ++round) {
    KeyTable<WireId, uint64_t, FewHashes> table;
    std::map<WireId, uint64_t> model;
    std::vector<WireId> keys;
    for (int i = 0; i < 200; ++i) keys.push_back(random_key(random));
    for (int step = 0; step < 2'000; ++step) {
      const WireId key = keys[random.below(keys.size())];
      switch (random.below(4)) {
        case 0:
        case 1: {
          const uint64_t value = random.next();
          table[key] = model[key] = value;
          break;
        }
        case 2:
          table.erase(key);
          model.erase(key);
          break;
        default: {
          const uint64_t* found = table.find(key);
          const auto expected = model.find(key);
          REQUIRE((found != nullptr) == (expected != model.end()));
          if (found != nullptr) REQUIRE(*found == expected->second);
        }
      }
      REQUIRE(table.size() == model.size());
    }
    size_t seen = 0;
    table.for_each([&](const WireId& key, uint64_t value) {
      ++seen;
      REQUIRE(model.at(key) == value);
    });
    CHECK(seen == model.size());
    table.sweep(1, MonoTime{}, [&](const WireId& key, uint64_t value) -> std::optional<MonoTime> {
      CHECK(model.at(key) == value);
      if (value % 2 == 0) return std::nullopt;
      return MonoTime::max();
    });
    std::erase_if(model, [](const auto& each) { return each.second % 2 == 0; });
    CHECK(table.size() == model.size());
    for (const auto& [key, value] : model) REQUIRE(*table.find(key) == value);
  }
}

TEST_CASE("a pointer to a value is good while the table grows") {
  Random random(test_seed(1));
  KeyTable<WireId, uint64_t> table;
  const WireId first = random_key(random);
  uint64_t& value = table[first];
  value = 17;
  for (int i = 0; i < 10'000; ++i) table[random_key(random)] = 1;
  CHECK(table.find(first) == &value);
  CHECK(value == 17);
}

TEST_CASE("a sweep looks at a value no sooner than it was told, but for one that came since") {
  Random random(test_seed(1));
  KeyTable<WireId, int> table;
  for (int i = 0; i < 64; ++i) table[random_key(random)] = 0;  // one chunk
  const auto at_seconds = [](int n) { return MonoTime(std::chrono::seconds(n)); };
  const auto looks = [&](int now, int again) {
    int n = 0;
    table.sweep(1, at_seconds(now), [&](const WireId&, int&) -> std::optional<MonoTime> {
      ++n;
      return at_seconds(again);
    });
    return n;
  };
  CHECK(looks(1, 10) == 64);
  CHECK(looks(9, 20) == 0);
  CHECK(looks(10, 20) == 64);
  const WireId last = random_key(random);
  table[last] = 1;  // in a chunk of its own
  CHECK(looks(11, 20) == 1);
  table.erase(last);
  table[random_key(random)] = 1;  // where that one was
  CHECK(looks(12, 20) == 1);
  CHECK(looks(19, 30) == 0);
  CHECK(looks(20, 30) == 65);
}

TEST_CASE("with_prefetch takes each step of each key in order, and each key after all of its steps") {
  std::vector<int> keys;
  for (int i = 0; i < 37; ++i) keys.push_back(i);
  std::vector<int> steps(keys.size()), done;
  with_prefetch(
      keys, [&](int key, int step) { CHECK(steps[static_cast<size_t>(key)]++ == step); },
      [&](int key) {
        CHECK(steps[static_cast<size_t>(key)] == kPrefetchSteps);
        done.push_back(key);
      });
  CHECK(done == keys);
}

}  // namespace
}  // namespace tally::test
