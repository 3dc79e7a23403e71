// The sketch of a full register by itself: nothing that a key put in is read smaller, nothing is dropped
// before it is over.
#include "cluster/mark_sketch.h"

#include <doctest/doctest.h>

#include <map>

#include "cluster_fixture.h"
#include "core/windows.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(10);
constexpr Ballot kLow{1, 50}, kHigh{7, 60};

WireId key_number(uint64_t n) {
  Random random(n + 1);
  return random_key(random);
}

MarkSketch::Held window_mark(uint64_t mark, Ballot promised = {}, uint64_t life = 0,
                             Duration length = kWindow) {
  MarkSketch::Held held;
  held.mark = mark;
  held.promised = promised;
  held.promised_life = life;
  held.length = length;
  return held;
}

MarkSketch::Held bucket_mark(MonoTime until, MonoTime touched, Duration keep, Ballot promised = {}) {
  MarkSketch::Held held;
  held.until = until;
  held.touched = touched;
  held.length = keep;
  held.promised = promised;
  return held;
}

// Two cells a part: every key has both of them.
constexpr size_t kOnePart = 2;

}  // namespace

TEST_CASE("a key alone in a cell reads what it put in, and the largest of it") {
  MarkSketch sketch(4096);
  const Now now = at(Duration(0));
  const RegisterKey key{key_number(1), 100};
  CHECK_FALSE(sketch.read(key, now).has_value());
  CHECK(sketch.raise(key, window_mark(30, kLow, 5), now));
  CHECK(sketch.raise(key, window_mark(20), now));
  const auto held = sketch.read(key, now);
  REQUIRE(held.has_value());
  CHECK(held->mark == 30);
  CHECK(held->promised == kLow);
  CHECK(held->promised_life == 5);
  CHECK(sketch.cells() == 2);
  CHECK_FALSE(sketch.read({key.key, 101}, now).has_value());
}

TEST_CASE("most keys read their own mark while there are fewer of them than cells, as each has two") {
  MarkSketch sketch(4096);  // the first part has 512
  const Now now = at(Duration(0));
  constexpr uint64_t kKeys = 200;
  for (uint64_t n = 0; n < kKeys; ++n) sketch.raise({key_number(n), 100}, window_mark(n + 1), now);
  uint64_t exact = 0;
  for (uint64_t n = 0; n < kKeys; ++n) exact += sketch.read({key_number(n), 100}, now)->mark == n + 1 ? 1 : 0;
  MESSAGE(exact << " of " << kKeys << " exact, " << sketch.cells() << " cells");
  CHECK(exact >= 170);  // with one cell each it would be some 140
}

TEST_CASE("the part of a window is dropped when what is known of it may be forgotten, and not before") {
  MarkSketch sketch(64);
  const Now now = at(Duration(0));
  const int64_t running = window_at(now.wall, kWindow);
  const RegisterKey key{key_number(1), running};
  sketch.raise(key, window_mark(30), now);
  const WallTime over = window_start(running + kWindowsKept + 1, kWindow);
  sketch.expire(over - Duration(1), now);
  REQUIRE(sketch.read(key, now).has_value());
  CHECK(sketch.windows_before() == window_start(running, kWindow) + Duration(1));
  sketch.expire(over, now);
  CHECK_FALSE(sketch.read(key, now).has_value());
  CHECK(sketch.cells() == 0);
  CHECK(sketch.windows_before() == WallTime::min());
}

TEST_CASE(
    "windows have parts of their own, within the cells that there are, and what finds none is not kept") {
  for (const size_t cells : {size_t{0}, size_t{1}, size_t{2}, size_t{7}, size_t{64}, size_t{5000}}) {
    MarkSketch sketch(cells);
    const Now now = at(Duration(0));
    int64_t kept = 0;
    while (kept < 10'000 &&
           sketch.raise({key_number(1), kept + 1}, window_mark(static_cast<uint64_t>(kept) + 1), now))
      ++kept;
    MESSAGE(kept << " windows in " << cells << " cells");
    CHECK(kept * 2 <= static_cast<int64_t>(cells));
    CHECK(kept <= 256);
    CHECK((cells < 2 || kept >= 1));
    CHECK((cells < 5000 || kept >= 20));
    CHECK(sketch.cells() == static_cast<size_t>(kept) * 2);
    for (int64_t w = 1; w <= kept; ++w)
      CHECK(sketch.read({key_number(1), w}, now)->mark == static_cast<uint64_t>(w));
    sketch.expire(window_start(kept + 3, kWindow),
                  now);  // all but the last two are over, as three more than the first are
    CHECK((kept == 0 || sketch.raise({key_number(1), kept + 1}, window_mark(1), now)));
  }
}

TEST_CASE("a promise to one key's claim deposes no other key's owner") {
  MarkSketch sketch(kOnePart);
  const Now now = at(Duration(0));
  const RegisterKey claimed{key_number(1), 100}, other{key_number(2), 100};
  sketch.raise(claimed, window_mark(0, kHigh, 5), now);
  sketch.raise(other, window_mark(40), now);
  CHECK(sketch.read(other, now)->promised.counter == 0);
  CHECK(sketch.read(claimed, now)->promised == kHigh);
  CHECK(sketch.read(claimed, now)->promised_life == 5);
  sketch.raise(other, window_mark(0, kLow, 5),
               now);  // claimed too: from now on the cells tell both the higher one
  for (const RegisterKey& key : {claimed, other}) CHECK(sketch.read(key, now)->promised == kHigh);
}

TEST_CASE("a promise of one ballot to two lives is told as one to neither") {
  MarkSketch sketch(kOnePart);
  const Now now = at(Duration(0));
  const RegisterKey a{key_number(1), 100}, b{key_number(2), 100};
  sketch.raise(a, window_mark(0, kLow, 5), now);
  SUBCASE("of another key") {
    sketch.raise(b, window_mark(0, kLow, 6), now);
    CHECK(sketch.read(a, now)->promised_life == 0);
    CHECK(sketch.read(b, now)->promised_life == 0);
  }
  SUBCASE("a mark of another key, whose claim this node never saw") {
    sketch.raise(b, window_mark(9, kLow), now);
    CHECK(sketch.read(b, now)->promised_life == 0);
  }
  SUBCASE("a mark of its own under the ballot that it was promised leaves the life") {
    sketch.raise(a, window_mark(9, kLow), now);
    CHECK(sketch.read(a, now)->promised_life == 5);
  }
  SUBCASE("a higher promise is to its own life alone") {
    sketch.raise(b, window_mark(0, kHigh, 6), now);
    CHECK(sketch.read(a, now)->promised == kHigh);
    CHECK(sketch.read(a, now)->promised_life == 6);
  }
}

TEST_CASE("a cell of buckets is forgotten when each key in it has been idle for its keep") {
  MarkSketch sketch(kOnePart);
  Now now = at(Duration(0));
  const RegisterKey quick{key_number(1), 0}, slow{key_number(2), 0};
  sketch.raise(quick, bucket_mark(now.mono + secs(1), now.mono, secs(2), kLow), now);
  sketch.raise(slow, bucket_mark(now.mono + secs(3), now.mono, secs(9)), now);
  CHECK(sketch.holds_buckets());
  now = at(secs(9) - Duration(1));
  for (int i = 0; i < 40; ++i) sketch.expire(now.wall, now);
  REQUIRE(sketch.read(quick, now).has_value());
  CHECK(sketch.read(quick, now)->promised == kLow);
  CHECK(sketch.read(slow, now)->until == at(secs(3)).mono);
  now = at(secs(9));
  CHECK_FALSE(sketch.read(quick, now).has_value());
  SUBCASE("and is free for others") {
    sketch.raise(quick, bucket_mark(now.mono, now.mono, secs(2)), now);
    CHECK(sketch.read(quick, now)->promised.counter == 0);
    CHECK(sketch.read(quick, now)->until == now.mono);
  }
  SUBCASE("with its memory") {
    for (int i = 0; i < 40; ++i) sketch.expire(now.wall, now);
    CHECK(sketch.cells() == 0);
    CHECK_FALSE(sketch.holds_buckets());
  }
}

TEST_CASE("in any order, no key reads less than it put in while that is not over") {
  Random random(test_seed(4711));
  for (int round = 0; round < kRandomRounds; ++round) {
    const size_t cells[] = {8, 16, 64, 256, 2048};
    MarkSketch sketch(cells[random.below(std::size(cells))]);
    Now now = at(Duration(0));
    std::map<std::pair<uint64_t, int64_t>, MarkSketch::Held> model;
    for (int step = 0; step < 200; ++step) {
      if (random.chance(0.1)) {
        const Duration by = ms(random.between(0, 9000));
        now.mono += by;
        now.wall += by;
      }
      if (random.chance(0.2)) sketch.expire(now.wall, now);
      const uint64_t n = random.below(30);
      const bool bucket = random.chance(0.4);
      const int64_t window = bucket ? 0 : window_at(now.wall, kWindow) + random.between(-1, 1);
      MarkSketch::Held held =
          bucket ? bucket_mark(now.mono + ms(random.between(0, 5000)), now.mono, ms(random.between(1, 9000)))
                 : window_mark(random.below(100));
      if (random.chance(0.3)) {
        held.promised = {static_cast<uint32_t>(1 + random.below(4)), 1 + random.below(3)};
        if (random.chance(0.7)) held.promised_life = 1 + random.below(3);
      }
      if (!sketch.raise({key_number(n), window}, held, now)) continue;
      const auto [at_place, fresh] = model.try_emplace({n, window}, held);
      MarkSketch::Held& known = at_place->second;
      if (fresh) continue;
      if (bucket && now.mono - known.touched >= known.length) {
        known = held;
        continue;
      }
      if (held.promised == known.promised && held.promised_life != known.promised_life &&
          held.promised_life != 0)
        known.promised_life = 0;
      if (held.promised > known.promised)
        known.promised = held.promised, known.promised_life = held.promised_life;
      known.mark = std::max(known.mark, held.mark);
      known.until = std::max(known.until, held.until);
      known.touched = std::max(known.touched, held.touched);
      known.length = std::max(known.length, held.length);
    }
    for (const auto& [name, known] : model) {
      const bool over = name.second == 0 ? now.mono - known.touched >= known.length
                                         : window_at(now.wall, kWindow) > name.second + kWindowsKept;
      if (over) continue;
      const auto held = sketch.read({key_number(name.first), name.second}, now);
      REQUIRE(held.has_value());
      REQUIRE(held->promised >= known.promised);
      if (held->promised == known.promised && known.promised.counter != 0)
        REQUIRE((held->promised_life == known.promised_life || held->promised_life == 0));
      REQUIRE(held->mark >= known.mark);
      REQUIRE((name.second != 0 ||
               (held->until >= known.until && held->touched + held->length >= known.touched + known.length)));
    }
  }
}
