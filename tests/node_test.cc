// Whole nodes, two or three of them, wired by hand: no simulator, no delay, no chance.
#include "cluster/node.h"

#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(60);

Rule rule_of(uint32_t limit, uint32_t ppm = 0, Algorithm algorithm = Algorithm::fixed_window) {
  Rule rule = window_rule(algorithm, limit, kWindow, {.ppm = ppm, .unbounded = false});
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

}  // namespace

// ---- floors, grants, marks ----

TEST_CASE("each node admits its floor without a word to anyone, and not one more") {
  Fleet fleet(3, rule_of(60, 100'000));  // 6 over: 2 each
  fleet.until_ready();
  for (uint16_t rank = 0; rank < 3; ++rank) {
    CHECK(fleet.explain(rank, "k").floor == 2);
    CHECK(admitted(fleet.take(rank, "k")));
    CHECK(admitted(fleet.take(rank, "k")));
    CHECK(fleet.take(rank, "k").verdict == Verdict::starved);
  }
  CHECK(fleet.sent<Report>() == 0);
}

TEST_CASE("the remainder of the overcount budget goes to the first ranks") {
  Fleet fleet(3, rule_of(50, 100'000));  // 5 over
  fleet.until_ready();
  CHECK(fleet.explain(0, "k").floor == 2);
  CHECK(fleet.explain(1, "k").floor == 2);
  CHECK(fleet.explain(2, "k").floor == 1);
}

TEST_CASE("a request that finds too little waits, is woken by the grant and then admitted") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  for (uint16_t owner = 0; owner < 3; ++owner) {
    const std::string key = fleet.key_of(owner);
    const uint16_t rank = 1;
    fleet[rank].wakes.clear();
    CHECK(fleet.take(rank, key).verdict == Verdict::starved);
    fleet.settle();
    REQUIRE_FALSE(fleet[rank].wakes.empty());
    CHECK(fleet[rank].wakes[0].hash == fleet.ask(rank, key).hash);
    CHECK(admitted(fleet[rank].limiter->take(fleet.ask(rank, key), fleet.now(), nullptr)));
    for (uint16_t other = 0; other < 3; ++other)
      if (other != rank) CHECK(fleet[other].wakes.empty());
  }
}

TEST_CASE("a strict limit admits its limit over all nodes, exactly, and then says when to come again") {
  for (const uint16_t nodes : {uint16_t{2}, uint16_t{3}}) {
    Fleet fleet(nodes, rule_of(30));
    fleet.until_ready();
    const std::string key = fleet.key_of(0);
    uint32_t total = 0;
    for (int i = 0; i < 60; ++i) {
      total += fleet.admits(static_cast<uint16_t>(i % nodes), key) ? 1 : 0;
      fleet.pass(ms(10));
    }
    CHECK(total == 30);
    fleet.pass(ms(300));
    for (uint16_t rank = 0; rank < nodes; ++rank) {
      const Answer answer = fleet.take(rank, key);
      CHECK(answer.verdict == Verdict::over_limit);
      CHECK(answer.retry_after > Duration(0));
      CHECK(answer.retry_after <= kWindow);
    }
  }
}

TEST_CASE("with floors, what the fleet admits stays under the limit and the budget together") {
  Fleet fleet(3, rule_of(40, 150'000));  // 6 over
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  uint32_t total = 0;
  for (int i = 0; i < 100; ++i) {
    for (uint16_t rank = 0; rank < 3; ++rank) total += fleet.admits(rank, key) ? 1 : 0;
    fleet.pass(ms(5));
  }
  CHECK(total >= 40);
  CHECK(total <= 46);
}

TEST_CASE("a sliding window and a bucket are granted too") {
  Fleet sliding(3, rule_of(20, 0, Algorithm::sliding_window));
  sliding.until_ready();
  sliding.pass(ms(300));
  CHECK(sliding.admitted_of(0, "k", 40) == 20);

  Rule bucket = bucket_rule(20, secs(10), {.ppm = 0, .unbounded = false});
  Fleet buckets(3, bucket);
  buckets.until_ready();
  uint32_t total = 0;
  for (int i = 0; i < 40; ++i) {
    total += buckets.admits(static_cast<uint16_t>(i % 3), "k") ? 1 : 0;
    buckets.pass(ms(20));
  }
  CHECK(total >= 15);
  CHECK(total <= 20);
}

TEST_CASE("before an owner grants, the other two of the group have its mark, and no mark passes the limit") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  uint64_t largest = 0, granted = 0;
  std::set<uint16_t> told;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (const auto* mark = std::get_if<Mark>(&entry)) {
      CHECK(from == 2);
      CHECK(mark->ballot == Ballot{0, fleet.roster.id(2)});
      CHECK(mark->length == kWindow);
      told.insert(to);
      largest = std::max(largest, mark->mark);
    }
    if (const auto* grant = std::get_if<Grant>(&entry)) {
      granted = std::max(granted, grant->granted);
      CHECK(granted <= largest);
    }
  };
  CHECK(fleet.admitted_of(0, key, 40) == 30);
  CHECK(told == std::set<uint16_t>{0, 1});
  CHECK(granted > 0);
  CHECK(largest == 30);
  CHECK(fleet.sent<Accepted>() > 0);
  CHECK(fleet.explain(2, key).mark == 30);
}

TEST_CASE("an owner whose group does not answer grants nothing") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  fleet.cut = [](uint16_t from, uint16_t to) { return from == 0 || to == 0; };
  CHECK(fleet.admitted_of(0, key, 5) == 0);
  fleet.cut = nullptr;
  fleet.pass(ms(200));
  CHECK(fleet.admitted_of(0, key, 5) == 5);
}

TEST_CASE("ten thousand keys that are hit once, under their floors, cost no entry") {
  Fleet fleet(3, rule_of(60, 100'000), 12'000);
  fleet.until_ready();
  for (int i = 0; i < 10'000; ++i) {
    REQUIRE(admitted(fleet.take(static_cast<uint16_t>(i % 3), "quiet" + std::to_string(i))));
    if (i % 500 == 0) fleet.pass(ms(20));
  }
  fleet.pass(ms(600), ms(20));
  CHECK(fleet.sent<Report>() == 0);
  CHECK(fleet.sent<Grant>() == 0);
  CHECK(fleet.sent<Mark>() == 0);
  CHECK(fleet.sent<Accepted>() == 0);
  for (uint16_t rank = 0; rank < 3; ++rank) CHECK(fleet.node(rank).stats().ledgers == 0);
}

// ---- what is refused ----

TEST_CASE(
    "a datagram that is not for this node, of this roster and from where its sender lives is dropped and "
    "counted by its reason") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const Header fine = fleet.header(1, 0);
  Header header = fine;
  std::optional<uint16_t> from = 1;
  std::string reason;
  SUBCASE("from nobody that is known") {
    header.sender = 12345;
    reason = "foreign";
  }
  SUBCASE("meant for another") {
    header.receiver = fleet.roster.id(2);
    reason = "foreign";
  }
  SUBCASE("of another version of the roster") {
    header.roster_version = 2;
    reason = "roster";
  }
  SUBCASE("of another list") {
    header.roster_hash ^= 1;
    reason = "roster";
  }
  SUBCASE("in this node's own name") {
    header.sender = fleet.roster.id(0);
    from = 0;
    reason = "own_name";
  }
  SUBCASE("in its own name, from elsewhere") {
    header.sender = fleet.roster.id(0);
    from = std::nullopt;
    reason = "own_name";
  }
  SUBCASE("from an address of another member") {
    from = 2;
    reason = "wrong_source";
  }
  SUBCASE("from an address of nobody") {
    from = std::nullopt;
    reason = "wrong_source";
  }
  SUBCASE("from an older life, which has heard nothing since the newer began") {
    header.incarnation = 9;
    reason = "older_life";
  }
  SUBCASE("from an older life that still lives") {
    header.incarnation = 9;
    header.echo_mono_ns = header.sent_mono_ns;
    reason = "clone";
  }
  // A reset would show: what was used would be there again. Its number is a wall clock's.
  REQUIRE(fleet.admitted_of(0, "k", 40) == 30);
  const auto number = static_cast<uint64_t>(nanos(fleet.now().wall));
  const NodeStats before = fleet.node(0).stats();
  fleet.node(0).receive(datagram_of(header, {Reset{fleet.id("k"), number}}), from, fleet.now());
  const NodeStats after = fleet.node(0).stats();
  CHECK(fleet.dropped(0, reason) == 1);
  CHECK(after.datagrams_in == before.datagrams_in);
  CHECK(after.entries_in[Entry(Reset{}).index()] == before.entries_in[Entry(Reset{}).index()]);
  CHECK_FALSE(admitted(fleet.take(0, "k")));

  fleet.node(0).receive(datagram_of(fine, {Reset{fleet.id("k"), number}}), 1, fleet.now());
  CHECK(fleet.node(0).stats().datagrams_in == before.datagrams_in + 1);
  fleet.node(0).take_outbox();  // an answer to a stranger, in some cases
  fleet.pass(ms(100));          // what it holds goes back, and it asks anew
  fleet.take(0, "k");
  fleet.pass(ms(100));
  CHECK(admitted(fleet.take(0, "k")));
}

TEST_CASE("what travels sealed is taken in once: said again, from wherever, it is dropped, shows no life and is not answered") {
  Fleet fleet(3, rule_of(30));
  fleet.sealed = true;
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.start(rank, {.incarnation = 10, .first = true, .reckoned_start = {}});
  fleet.until_ready();
  Header header = fleet.header(1, 0);
  const Bytes fine = datagram_of(header, {Hello{}});
  fleet.node(0).receive(fine, 1, fleet.now());
  fleet.settle();
  const NodeStats before = fleet.node(0).stats();
  fleet.stop(1);
  fleet.pass(ms(500));
  const Duration heard = fleet.node(0).peers(fleet.now())[1].last_heard;
  for (const std::optional<uint16_t> from : {std::optional<uint16_t>(1), std::optional<uint16_t>(2), std::optional<uint16_t>()})
    fleet.node(0).receive(fine, from, fleet.now());
  CHECK(fleet.dropped(0, "replayed") == 3);
  CHECK(fleet.dropped(0, "wrong_source") == 0);
  CHECK(fleet.node(0).stats().entries_in[Entry(Hello{}).index()] == before.entries_in[Entry(Hello{}).index()]);
  CHECK(fleet.node(0).peers(fleet.now())[1].last_heard == heard);
  CHECK(fleet.node(0).take_outbox().empty());
  header.sequence -= 10;  // late, and never heard
  fleet.node(0).receive(datagram_of(header, {Hello{}}), 1, fleet.now());
  CHECK(fleet.dropped(0, "replayed") == 3);
  header.sequence -= ReplayWindow::kReach;  // so old that nobody can tell
  fleet.node(0).receive(datagram_of(header, {Hello{}}), 1, fleet.now());
  CHECK(fleet.dropped(0, "replayed") == 4);
}

TEST_CASE("a node's own datagram, sent back to it, is dropped as reflected") {
  Fleet fleet(2, rule_of(30));
  fleet.until_ready();
  fleet.node(0).receive(datagram_of(fleet.header(0, 1), {Hello{}}), 1, fleet.now());
  CHECK(fleet.dropped(0, "reflected") == 1);
  CHECK(fleet.dropped(0, "foreign") == 0);
}

TEST_CASE("bytes that are no datagram are dropped and counted by what is wrong with them") {
  Fleet fleet(2, rule_of(30));
  fleet.until_ready();
  const Bytes fine = datagram_of(fleet.header(1, 0), {Hello{}});
  const auto counted = [&](Bytes bytes, const char* reason) {
    fleet.node(0).receive(bytes, 1, fleet.now());
    CHECK_MESSAGE(fleet.dropped(0, reason) == 1, reason);
  };
  counted({}, "too_short");
  counted(Bytes(kDatagramMax + 1, 0), "too_long");
  Bytes bytes = fine;
  bytes[0] ^= 1;
  counted(bytes, "bad_magic");
  bytes = fine;
  bytes[2] += 1;
  counted(bytes, "version");
  bytes = fine;
  bytes[10] ^= 1;
  counted(bytes, "forged");
  CHECK(fleet.node(0).stats().dropped.size() == 5);
}

TEST_CASE(
    "whoever uses a living member's name from elsewhere is told that it is a clone, and the member is not "
    "harmed") {
  Fleet fleet(3, rule_of(30, 200'000));
  fleet.until_ready();
  const auto told = [&](uint64_t incarnation) {
    fleet.node(0).receive(datagram_of(fleet.header(1, 0, incarnation), {Hello{}}), std::nullopt, fleet.now());
    std::vector<Clone> clones;
    for (const Outgoing& out : fleet.node(0).take_outbox()) {
      CHECK(out.to_source);
      Datagram d;
      REQUIRE(decode(out.bytes, kPublicIdKey, d) == DecodeError::none);
      CHECK(d.header.receiver == fleet.roster.id(1));
      for (const Entry& entry : d.entries)
        if (const auto* clone = std::get_if<Clone>(&entry)) clones.push_back(*clone);
    }
    return clones;
  };
  CHECK(told(11) == std::vector{Clone{10, 11, true}});
  CHECK(told(10) == std::vector{Clone{10, 10, true}});  // even its number was copied
  CHECK(admitted(fleet.take(1, "k")));

  fleet.stop(1);
  fleet.pass(ms(1100), ms(20));
  CHECK(told(11).empty());  // a name that nobody uses may have moved
}

TEST_CASE("what comes by a stream is of a member only where that is one of the nodes at the sender's address") {
  Fleet fleet(3, rule_of(30, 200'000));
  fleet.until_ready();
  Header header = fleet.header(1, 0);
  const auto told = [&](std::vector<uint16_t> there) {
    ++header.sequence;
    return fleet.node(0).receive(datagram_of(header, {Hello{}}), std::span<const uint16_t>(there), fleet.now());
  };
  CHECK(told({1}).from == uint16_t{1});
  CHECK(told({2, 1}).from == uint16_t{1});  // several at one address
  CHECK_FALSE(told({1}).moved);
  CHECK_FALSE(told({}).from);
  CHECK_FALSE(told({0, 2}).from);
  CHECK(fleet.node(0).stats().dropped.at("wrong_source") == 2);
  header.incarnation -= 1;  // an older life is still who it says it is
  CHECK(told({1}).from == uint16_t{1});
  CHECK(fleet.node(0).stats().dropped.at("older_life") == 1);

  Bytes bytes = datagram_of(header, {Hello{}});
  bytes.back() ^= 1;
  const std::vector<uint16_t> there{1};
  CHECK(fleet.node(0).receive(bytes, std::span<const uint16_t>(there), fleet.now()).malformed);
}

TEST_CASE("a knock shows that a node lives, and takes its number among the others") {
  Fleet fleet(3, rule_of(30, 200'000));
  fleet.until_ready();
  Datagram first, second;
  REQUIRE(decode(fleet.node(0).knock(1, fleet.now()), kPublicIdKey, first) == DecodeError::none);
  REQUIRE(decode(fleet.node(0).knock(1, fleet.now()), kPublicIdKey, second) == DecodeError::none);
  CHECK(second.header.sequence == first.header.sequence + 1);
  CHECK(fleet.node(1).receive(fleet.node(0).knock(1, fleet.now()), 0, fleet.now()).from == uint16_t{0});
}

TEST_CASE("a node whose name the others find elsewhere has no part until they find it here, and is shut where they never do") {
  Fleet fleet(3, rule_of(30, 200'000));
  fleet.until_ready();
  fleet.stop(0);
  fleet.movable = true;
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  bool moved = false;
  fleet.cut = [&](uint16_t from, uint16_t to) { return !moved && (from == 0 || to == 0); };
  const auto warn = [&](Duration d) {
    fleet.node(0).receive(datagram_of(fleet.header(1, 0), {Clone{10, 20, true}}), 1, fleet.now());
    fleet.pass(d, ms(20));
  };
  for (Duration warned{0}; warned < kWindow + secs(10); warned += ms(400)) warn(ms(400));
  CHECK(fleet.explain(0, "k").floor == 0);  // in a window that began after its start
  SUBCASE("they find it") {
    moved = true;
    fleet.pass(secs(2), ms(20));
    CHECK(fleet.explain(0, "k").floor == 2);
    CHECK(fleet.dropped(0, "this_node_is_a_clone") == 0);
  }
  SUBCASE("they do not") {
    for (int second = 0; second < 49; ++second) warn(secs(1));
    CHECK(fleet.dropped(0, "this_node_is_a_clone") == 0);
    for (int second = 0; second < 3; ++second) warn(secs(1));
    CHECK(fleet.dropped(0, "this_node_is_a_clone") == 1);
  }
}

TEST_CASE("a node that is told that its name was there first has no floor and grants nothing any more") {
  Fleet fleet(3, rule_of(30, 200'000));
  fleet.until_ready();
  CHECK(admitted(fleet.take(0, "k")));
  const std::string own = fleet.key_of(0);
  fleet.node(0).receive(datagram_of(fleet.header(1, 0), {Clone{3, 10, false}}), 1, fleet.now());
  CHECK(fleet.dropped(0, "this_node_is_a_clone") == 1);
  CHECK(fleet.explain(0, "new").floor == 0);
  CHECK(fleet.take(0, "new").verdict == Verdict::starved);
  CHECK(fleet.admitted_of(2, own, 5) == 2);  // its own floor, and no grant
  // Of which life it is told matters: what is said of another is none of its business.
  for (const Clone& other : {Clone{10, 3, false}, Clone{3, 9, false}, Clone{3, 11, false}, Clone{10, 0, false}})
    fleet.node(2).receive(datagram_of(fleet.header(1, 2), {other}), 1, fleet.now());
  CHECK(fleet.explain(2, "new").floor == 2);
}

// ---- a start ----

TEST_CASE("what a node's own last life still has under way does not shut it out, whatever the clocks show") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  Header last = fleet.header(0, 1);  // by a clock an hour ahead, set back before the next start
  last.sent_wall_ns = nanos(at(secs(3600)).wall);
  last.echo_mono_ns = last.sent_mono_ns;
  fleet.stop(0);
  fleet.pass(ms(10));
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(secs(7), ms(500));
  for (const Entry& said : {Entry(Member{}), Entry(Hello{.rules = 1})}) {
    fleet.node(1).receive(datagram_of(last, {said}), 0, fleet.now());
    fleet.settle();
  }
  CHECK(fleet.dropped(1, "older_life") == 2);
  CHECK(fleet.dropped(0, "this_node_is_a_clone") == 0);
}

TEST_CASE("what is said to whoever repeats a node's datagrams elsewhere does not shut the node, which is where it is looked for") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  const auto warn = [&] {
    fleet.node(0).receive(datagram_of(fleet.header(1, 0), {Clone{10, 10, true}}), 1, fleet.now());
    return fleet.dropped(0, "this_node_is_a_clone");
  };
  fleet.pass(secs(1), ms(20));
  CHECK(warn() == 0);
  fleet.cut = [](uint16_t, uint16_t to) { return to == 0; };
  fleet.pass(secs(4), ms(20));
  CHECK(warn() == 0);
  fleet.pass(secs(2), ms(20));
  CHECK(warn() == 1);  // nobody finds it there any more

  fleet.stop(2);
  fleet.start(2, {.incarnation = 20, .first = true, .reckoned_start = {}});  // has heard nobody yet
  fleet.node(2).receive(datagram_of(fleet.header(1, 2), {Clone{10, 20, true}}), 1, fleet.now());
  CHECK(fleet.dropped(2, "this_node_is_a_clone") == 1);
}

TEST_CASE("of two living lives of a name the later one shuts, and a life after it does not hear what it was told") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(secs(1), ms(20));
  std::vector<Clone> told;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (const auto* clone = std::get_if<Clone>(&entry); clone != nullptr && from == 1 && to == 0) told.push_back(*clone);
  };
  Header older = fleet.header(0, 1);  // life 10, which has heard what was sent a moment ago
  older.echo_mono_ns = older.sent_mono_ns;
  fleet.node(1).receive(datagram_of(older, {Member{}}), 0, fleet.now());
  fleet.settle();
  CHECK(told == std::vector{Clone{10, 20, false}});
  CHECK(fleet.dropped(0, "this_node_is_a_clone") == 1);
  CHECK(fleet.explain(0, "k").floor == 0);

  fleet.stop(0);
  fleet.start(0, {.incarnation = 30, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(secs(1), ms(20));
  fleet.node(0).receive(datagram_of(fleet.header(1, 0), {Clone{10, 20, false}}), 1, fleet.now());  // late
  CHECK(fleet.dropped(0, "this_node_is_a_clone") == 0);
}

TEST_CASE("a first life has no floor before all peers have answered, and is ready at once when they have") {
  Fleet fleet(3, rule_of(60, 100'000));
  CHECK_FALSE(fleet.node(0).ready());
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  fleet.cut = [](uint16_t from, uint16_t to) { return from == 2 || to == 2; };
  fleet.pass(ms(400));
  CHECK_FALSE(fleet.node(0).ready());
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  fleet.cut = nullptr;
  fleet.pass(ms(60));
  CHECK(fleet.node(0).ready());
  CHECK(admitted(fleet.take(0, "k")));
}

TEST_CASE("a first life whose peers do not answer begins after half a second") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  fleet.pass(ms(495));
  CHECK_FALSE(fleet.node(0).ready());
  fleet.pass(ms(10));
  CHECK(fleet.node(0).ready());
  CHECK(admitted(fleet.take(0, "k")));
}

TEST_CASE("a first life whose name a peer remembers is a later one: the state file was lost") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  fleet.stop(0);
  fleet.pass(ms(100));
  fleet.start(0, {.incarnation = 20, .first = true, .reckoned_start = {}});
  fleet.until_ready();
  CHECK(fleet.explain(0, "k").floor == 0);
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  CHECK(fleet.explain(1, "k").floor == 2);  // the others keep theirs
  fleet.pass(kWindow, secs(1));
  CHECK(fleet.explain(0, "k").floor == 2);
}

TEST_CASE("a peer that remembers a name only after its floors were opened shuts them again") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  fleet.stop(0);
  fleet.pass(ms(100));
  fleet.start(0, {.incarnation = 20, .first = true, .reckoned_start = {}});
  fleet.cut = [](uint16_t from, uint16_t to) { return from == 0 || to == 0; };
  fleet.pass(ms(600));
  CHECK(fleet.node(0).ready());
  CHECK(fleet.explain(0, "k").floor == 2);
  fleet.cut = nullptr;
  fleet.pass(secs(2));
  CHECK(fleet.explain(0, "k").floor == 0);
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
}

TEST_CASE(
    "an older life that asks who it is hears of the newer one, and one that says anything else does not") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const Header header = fleet.header(1, 0, 9);
  std::vector<Clone> told;
  fleet.watch = [&](const Entry& entry, uint16_t, uint16_t to) {
    if (const auto* clone = std::get_if<Clone>(&entry); clone != nullptr && to == 1) told.push_back(*clone);
  };
  for (const Entry& said :
       {Entry(Member{}), Entry(Hello{.answer = true}), Entry(Hello{})}) {
    CHECK(told.empty());
    fleet.node(0).receive(datagram_of(header, {said}), 1, fleet.now());
    fleet.settle();
  }
  CHECK(told == std::vector{Clone{10, 9, false}});
  CHECK(fleet.dropped(0, "older_life") == 3);
  CHECK(fleet.dropped(1, "this_node_is_a_clone") == 0);  // the living one is not meant
}

TEST_CASE("what was answered to an earlier life does not make a later one a first life") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.stop(rank);
  fleet.start(0, {.incarnation = 20, .first = true});  // its state file is lost
  const auto both_answer = [&](uint64_t life) {
    for (const uint16_t from : {uint16_t{1}, uint16_t{2}})
      fleet.node(0).receive(datagram_of(fleet.header(from, 0), {Hello{.answer = true, .remembered = 0, .rules = 1, .life = life}}), from, fleet.now());
    fleet.pass(ms(20));
  };
  both_answer(10);  // recorded when it began for the first time, and said again
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  CHECK(fleet.dropped(0, "answer_to_another_life") == 2);
  both_answer(20);
  CHECK(admitted(fleet.take(0, "k")));
}

TEST_CASE("a node restarted in mid-window has no floor in it, and its full floor in the next") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  fleet.pass(secs(20), ms(500));
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(ms(100));
  CHECK(fleet.node(0).ready());  // it knows what it is, and has read its registers anew
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  fleet.pass(secs(40), ms(500));
  CHECK(admitted(fleet.take(0, "k")));
  CHECK(admitted(fleet.take(0, "k")));
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
}

TEST_CASE("a node restarted in mid-window still spends what another owner grants it, under a new line") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  CHECK(fleet.admitted_of(0, key, 10) == 10);
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(ms(100));
  const uint32_t more = fleet.admitted_of(0, key, 30);
  CHECK(more >= 10);
  CHECK(more <= 20);  // what its earlier life spent, or was granted, is charged
}

TEST_CASE("a node restarted in mid-window owns its keys in it only by a claim, which charges what its last life had marked") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  CHECK(fleet.admitted_of(1, key, 10) == 10);
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(ms(200));
  uint32_t more = 0;
  for (int i = 0; i < 40; ++i) {
    for (const uint16_t rank : {uint16_t{0}, uint16_t{2}}) more += fleet.admits(rank, key) ? 1 : 0;
    fleet.pass(ms(20));
  }
  CHECK(more > 0);
  CHECK(more <= 18);  // of 20, two are lost: they were under the mark
  CHECK(fleet.explain(1, key).ballot_counter == 1);
  fleet.pass(kWindow, ms(500));
  CHECK(fleet.admitted_of(1, key, 40) == 30);
}

TEST_CASE("a restarted member has no vote in the running window before it has read its register anew") {
  Fleet fleet(2, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  fleet.stop(1);
  fleet.start(1, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.take(0, key);
  fleet.settle();
  CHECK(fleet.take(0, key).verdict == Verdict::starved);  // the owner lives, but in a group of two both must vote
  CHECK(fleet.dropped(1, "no_vote") > 0);
  fleet.pass(ms(300));
  CHECK(fleet.admitted_of(0, key, 5) == 5);
}

TEST_CASE("a node whose clock is set back by more than a window has no floor in what it left, and votes as before") {
  Fleet fleet(3, rule_of(60, 100'000));
  fleet.until_ready();
  fleet.pass(secs(20), ms(500));
  const auto floor = [&](uint16_t rank, int64_t ahead) {
    const Limit& limit = fleet.rule(rank).limit;
    return fleet[rank].limiter->floor_in(limit, window_at(fleet.now().wall, limit.window) + ahead);
  };
  Now back = fleet.now();
  back.wall -= kWindow;
  CHECK_FALSE(fleet.node(0).look_at_clock(back));
  CHECK(floor(0, 0) == 2);
  back.wall -= Duration(1);
  CHECK(fleet.node(0).look_at_clock(back));
  CHECK_FALSE(fleet.node(0).look_at_clock(back));  // told once
  fleet.node(1).tick(back);                        // a tick tells it as well
  for (const uint16_t rank : {uint16_t{0}, uint16_t{1}}) {
    for (const int64_t ahead : {-2, -1, 0}) CHECK(floor(rank, ahead) == 0);
    CHECK(floor(rank, 1) == 2);
  }
  CHECK(floor(2, 0) == 2);
  CHECK(fleet.take(0, "k").verdict == Verdict::starved);
  // Two of three lost their floors. Had they lost their votes, nobody could grant in this window.
  for (const uint16_t owner : {uint16_t{0}, uint16_t{1}, uint16_t{2}})
    CHECK(fleet.admitted_of(2, fleet.key_of(owner), 70) >= 56);
}

// ---- give, reset, stop ----

TEST_CASE("what a node gives back of its own use may be used again, by itself and no further") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  CHECK(fleet.admitted_of(0, key, 40) == 30);
  CHECK(fleet.give(0, key, 4) == 4);
  fleet.pass(ms(200));
  CHECK(fleet.explain(2, key).used_fleet == 26);
  CHECK(fleet.admitted_of(0, key, 10) == 4);
  CHECK(fleet.give(0, key, 1000) == 30);
}

TEST_CASE("what a node gives back of another's use may be used again anywhere") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  CHECK(fleet.admitted_of(0, key, 40) == 30);
  CHECK(fleet.admitted_of(1, key, 1) == 0);  // so that it knows what the fleet used
  fleet.pass(ms(200));
  CHECK(fleet.give(1, key, 7) == 7);
  fleet.pass(ms(200));
  CHECK(fleet.explain(2, key).used_fleet == 23);
  uint32_t again = 0;
  for (int i = 0; i < 20; ++i) {
    for (uint16_t rank = 0; rank < 3; ++rank) again += fleet.admits(rank, key) ? 1 : 0;
    fleet.pass(ms(20));
  }
  CHECK(again == 7);
}

TEST_CASE(
    "what was given back of a bucket counts once, however often its giver falls silent and speaks again") {
  Fleet fleet(3, bucket_rule(20, secs(50), {.ppm = 0, .unbounded = false}));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  uint32_t total = 0;
  const auto all_try = [&] {
    uint32_t n = 0;
    for (int i = 0; i < 15; ++i) {
      for (uint16_t rank = 0; rank < 3; ++rank) n += fleet.admits(rank, key) ? 1 : 0;
      fleet.pass(ms(20));
    }
    return n;
  };
  total += all_try();
  CHECK(total <= 20);
  const uint32_t given = fleet.give(1, key, 5);
  for (int silence = 0; silence < 4; ++silence) {
    fleet.pass(secs(4), ms(20));
    total += all_try();
  }
  // One more token comes back in 50 s.
  CHECK(total >= 15);
  CHECK(total <= 21 + given);
}

TEST_CASE("a key that nobody used gives nothing back") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  CHECK(fleet.give(0, "nobody", 5) == 0);
  CHECK(fleet.admits(0, "k"));
  CHECK(fleet.give(1, "k", 5) == 0);  // this node has not heard of it
}

TEST_CASE("a reset at any node gives the whole limit back at all of them") {
  for (uint16_t at_node = 0; at_node < 3; ++at_node) {
    Fleet fleet(3, rule_of(30));
    fleet.until_ready();
    const std::string key = fleet.key_of(2);
    CHECK(fleet.admitted_of(0, key, 20) == 20);
    CHECK(fleet.admitted_of(1, key, 20) == 10);
    CHECK(fleet.admitted_of(0, key, 5) == 0);
    CHECK(fleet.reset(at_node, key) == (at_node != 2 || fleet.explain(2, key).role == "owner"));
    fleet.pass(ms(300));
    CHECK(fleet.explain(2, key).used_fleet == 0);
    uint32_t again = 0;
    for (int i = 0; i < 60; ++i) {
      for (uint16_t rank = 0; rank < 3; ++rank) again += fleet.admits(rank, key) ? 1 : 0;
      fleet.pass(ms(20));
    }
    CHECK(again == 30);
  }
}

TEST_CASE("a reset is told once, however often it is heard") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  CHECK(fleet.admitted_of(0, key, 40) == 30);
  const Bytes told = datagram_of(fleet.header(1, 0), {Reset{fleet.id(key), static_cast<uint64_t>(nanos(fleet.now().wall))}});
  for (int i = 0; i < 3; ++i) {
    fleet.node(0).receive(told, 1, fleet.now());
    fleet.settle();
    CHECK(fleet.admitted_of(0, key, 40) == (i == 0 ? 30 : 0));
  }
}

TEST_CASE("a reset of a key that nobody knows says so") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  CHECK_FALSE(fleet.reset(0, "nobody"));
}

TEST_CASE("an unbounded rule asks nobody, and stops once the fleet has used its limit") {
  Rule rule = rule_of(30);
  rule.max_overcount = {.ppm = 0, .unbounded = true};
  Fleet fleet(3, rule);
  fleet.until_ready();
  for (uint16_t rank = 0; rank < 3; ++rank)
    for (int i = 0; i < 12; ++i)
      CHECK(admitted(fleet.take(rank, "k")));  // 36: more than L, and nobody knows yet
  fleet.pass(ms(300));
  for (uint16_t rank = 0; rank < 3; ++rank)
    fleet.take(rank, "k");  // whoever had not heard, reports and does now
  fleet.pass(ms(300));
  CHECK(fleet.sent<Mark>() == 0);
  for (uint16_t rank = 0; rank < 3; ++rank) {
    const Answer answer = fleet.take(rank, "k");
    CHECK(answer.verdict == Verdict::over_limit);
    CHECK(answer.retry_after > Duration(0));
  }
  fleet.pass(kWindow, ms(500));
  CHECK(admitted(fleet.take(0, "k")));
}

TEST_CASE("a key for which there is no account is noted again once there may be room") {
  Fleet fleet(2, window_rule(Algorithm::fixed_window, 100, secs(10)));
  fleet.accounts_max = 1;
  fleet.stop(0);
  fleet.start(0, {.incarnation = 11, .first = true, .reckoned_start = {}});
  fleet.until_ready();
  fleet.take(0, "a");
  fleet.settle();
  CHECK(fleet.dropped(0, "accounts_full") == 0);
  for (uint64_t n = 1; n <= 3; ++n) {
    fleet.take(0, "b");
    fleet.settle();
    CHECK(fleet.dropped(0, "accounts_full") == n);
  }
}

TEST_CASE("a node that leaves gives back what it did not use") {
  Fleet fleet(3, rule_of(160));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  // A burst, so that it holds a look-ahead.
  for (int i = 0; i < 30; ++i) fleet.admits(0, key);
  fleet.pass(ms(100));
  const Explanation held = fleet.explain(0, key);
  REQUIRE(held.ceiling > held.used_here);
  uint64_t returned = 0;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (const auto* report = std::get_if<Report>(&entry); report != nullptr && from == 0 && to == 2)
      returned = report->returned;
  };
  fleet.node(0).leave(fleet.now());
  CHECK_FALSE(admitted(fleet[0].limiter->take(fleet.ask(0, key), fleet.now(), nullptr)));
  fleet.settle();
  CHECK(returned == held.ceiling - held.used_here);
}

TEST_CASE("a node by itself has no cluster: it is ready, asks nobody and never wants a tick") {
  Rule rule = rule_of(30);
  SlotTable slots(100, 1, false);
  Limiter limiter(slots, false);
  const auto rules = std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, Share{}, kPublicIdKey);
  NodeConfig config;
  config.self = "host-a:8381";
  Node node(config, {}, limiter, rules, 1, at(Duration(0)));
  CHECK(node.alone());
  CHECK(node.ready());
  CHECK(node.next_tick() == MonoTime::max());
  node.tick(at(secs(1)));
  node.flush(at(secs(1)));
  CHECK(node.take_outbox().empty());
}

// ---- bytes from a peer that is out of its mind ----

namespace {

// Numbers at the edges of what a field holds, and anything in between.
uint64_t any_number(Random& random) {
  switch (random.below(5)) {
    case 0:
      return random.below(4);
    case 1:
      return ~random.below(4);
    case 2:
      return (uint64_t{1} << random.below(64)) - random.below(2);
    default:
      return random.next() >> random.below(64);
  }
}

// Under twenty years: see within_reason.
constexpr Duration kLongest = std::chrono::hours(24 * 365 * 20);
Duration any_duration(Random& random) {
  return Duration(static_cast<int64_t>(any_number(random) % static_cast<uint64_t>(nanos(kLongest))));
}

class Madman {
 public:
  Madman(Random& random, const Fleet& fleet, WireId key) : random_(random), fleet_(fleet), key_(key) {}

  Entry entry() {
    switch (random_.below(9)) {
      case 0:
      case 1:
        return report();
      case 2:
      case 3:
        return grant();
      case 4:
        return mark();
      case 5:
        return accepted();
      case 6:
        return Member{node(), any_number(random_), any_number(random_)};
      case 7:
        return Hello{random_.chance(0.5), any_number(random_), any_number(random_), any_number(random_)};
      default:
        return Reset{key(), any_number(random_)};
    }
  }

 private:
  bool likely() { return random_.chance(0.7); }
  WireId key() { return likely() ? key_ : random_key(random_); }
  NodeId node() {
    return likely() ? fleet_.roster.id(static_cast<uint16_t>(random_.below(3))) : any_number(random_);
  }
  Ballot ballot() { return {likely() ? 0 : static_cast<uint32_t>(any_number(random_)), node()}; }
  int64_t window() {
    const int64_t running = window_at(fleet_.now().wall, kWindow);
    return likely() ? running + random_.between(-2, 2) : static_cast<int64_t>(any_number(random_));
  }
  Report report() {
    const Rule& rule = fleet_.rule(0);
    Report r;
    r.key = key();
    r.rule = likely() ? static_cast<uint32_t>(rule.seed) : static_cast<uint32_t>(random_.next());
    r.terms = {rule.limit.algorithm, rule.limit.limit, rule.max_overcount, rule.limit.window,
               rule.limit.emission};
    if (!likely()) {
      r.terms.algorithm = static_cast<Algorithm>(random_.below(3));
      r.terms.limit = static_cast<uint32_t>(random_.below(kLimitMax));
      r.terms.window = any_duration(random_);
      r.terms.emission = any_duration(random_);
      r.terms.max_overcount.unbounded = random_.chance(0.5);
    }
    r.window = window();
    r.ballot = ballot();
    r.has_ballot = random_.chance(0.5);
    r.line = static_cast<uint32_t>(random_.below(3));
    r.floor = static_cast<uint32_t>(any_number(random_));
    for (uint64_t* field :
         {&r.used, &r.returned, &r.refunded, &r.given, &r.ceiling, &r.granted_heard, &r.wanted,
          &r.waiting_min, &r.waiting, &r.demand_milli, &r.reset, &r.stamp, &r.lease})
      *field = any_number(random_);
    r.final = random_.chance(0.2);
    r.second_choice = random_.chance(0.2);
    return r;
  }
  Grant grant() {
    Grant g;
    g.key = key();
    g.window = window();
    g.ballot = ballot();
    g.line = static_cast<uint32_t>(random_.below(3));
    g.incarnation = likely() ? 10 : any_number(random_);
    for (uint64_t* field : {&g.granted, &g.used_fleet, &g.reset, &g.stamp, &g.lease})
      *field = any_number(random_);
    if (likely()) g.stamp = static_cast<uint64_t>(nanos(fleet_.now().mono));
    g.pool = static_cast<uint8_t>(random_.below(256));
    g.demand_share = static_cast<uint16_t>(random_.below(65536));
    g.exhausted = random_.chance(0.2);
    g.stop = random_.chance(0.2);
    g.backed = random_.chance(0.7);
    for (Duration* field : {&g.ask_again, &g.lease_for, &g.tat_ahead}) *field = any_duration(random_);
    return g;
  }
  Mark mark() {
    Mark m;
    m.key = key();
    m.window = likely() ? window() : 0;
    m.ballot = ballot();
    m.mark = any_number(random_);
    m.length = likely() ? kWindow : any_duration(random_);
    m.sliding = random_.chance(0.5);
    m.number = any_number(random_);
    return m;
  }
  Accepted accepted() {
    Accepted a;
    a.key = key();
    a.window = likely() ? window() : 0;
    a.ballot = ballot();
    a.refused = random_.chance(0.2);
    a.mark = any_number(random_);
    a.number = any_number(random_);
    a.previous_told = random_.chance(0.5);
    a.previous_ballot = ballot();
    a.previous_mark = any_number(random_);
    return a;
  }

  Random& random_;
  const Fleet& fleet_;
  const WireId key_;
};

// As it may have been written by a node of another version: its hash is right all the same.
void sign(Bytes& bytes) {
  const size_t n = bytes.size() - 8;
  const uint64_t hash = keyed_hash({reinterpret_cast<const char*>(bytes.data()), n}, kPublicIdKey);
  for (size_t i = 0; i < 8; ++i) bytes[n + i] = static_cast<uint8_t>(hash >> (8 * i));
}

// Bytes that were changed may state times that no clock reaches.
bool within_reason(const Bytes& bytes) {
  Datagram datagram;
  if (decode(bytes, kPublicIdKey, datagram) != DecodeError::none) return true;
  return std::ranges::all_of(datagram.entries, [](const Entry& entry) {
    const auto* grant = std::get_if<Grant>(&entry);
    return grant == nullptr || std::max({grant->ask_again, grant->lease_for, grant->tat_ahead}) <= kLongest;
  });
}

}  // namespace

TEST_CASE("whatever a member says, in whatever bytes, a node stands and goes on counting its own requests") {
  Random random(test_seed(331));
  uint64_t heard = 0;
  for (int round = 0; round < kRandomRounds / 10; ++round) {
    const int algorithm = static_cast<int>(random.below(3));
    const Rule rule = algorithm == 2 ? bucket_rule(30, ms(200), {.ppm = 100'000, .unbounded = false})
                                     : rule_of(30, 100'000, static_cast<Algorithm>(algorithm));
    Fleet fleet(3, rule);
    fleet.until_ready();
    const std::string key = fleet.key_of(static_cast<uint16_t>(random.below(2)));
    Madman madman(random, fleet, fleet.id(key));
    fleet.must_settle = false;
    fleet.cut = [](uint16_t from, uint16_t) { return from == 1; };  // what node 1 really says is not heard
    for (int step = 0; step < 150; ++step) {
      Header header = fleet.header(1, 0);
      header.sequence = any_number(random);
      header.sent_mono_ns = any_number(random);
      if (random.chance(0.3)) header.sent_wall_ns = static_cast<int64_t>(any_number(random));
      if (random.chance(0.3)) header.echo_mono_ns = any_number(random);
      if (random.chance(0.3)) header.echo_held_ns = any_number(random);
      DatagramWriter writer(header, kPublicIdKey);
      for (uint64_t n = random.below(6); n > 0; --n) writer.add(madman.entry());
      Bytes bytes = writer.finish();
      if (random.chance(0.3)) {
        for (uint64_t n = 1 + random.below(4); n > 0; --n)
          bytes[3 + random.below(bytes.size() - 11)] = static_cast<uint8_t>(random.next());
        sign(bytes);
      }
      if (!within_reason(bytes)) continue;
      fleet.node(0).receive(bytes, 1, fleet.now());
      fleet.take(static_cast<uint16_t>(random.below(3)), key, static_cast<uint32_t>(random.below(3)));
      if (random.chance(0.3)) fleet.give(0, key, static_cast<uint32_t>(random.below(100)));
      if (random.chance(0.05)) fleet.reset(0, key);
      fleet.pass(ms(random.between(0, 60)), ms(20));
      fleet.explain(0, key);
      static_cast<void>(fleet.node(0).peers(fleet.now()));
    }
    heard += fleet.node(0).stats().datagrams_in;
  }
  CHECK(heard > static_cast<uint64_t>(kRandomRounds / 10) * 100);
}

TEST_CASE("a reset from before a key's account gives that account nothing, and one from far ahead nobody") {
  Fleet fleet(2, rule_of(30));
  const auto old = static_cast<uint64_t>(nanos(fleet.now().wall));
  fleet.pass(secs(2), ms(20));
  REQUIRE(fleet.admitted_of(0, "k", 40) == 30);
  const auto told = [&](uint64_t number) {
    Header header;
    header.sender = fleet.node(0).roster().id(1);
    header.receiver = fleet.node(0).roster().id(0);
    header.incarnation = 1000;
    header.roster_version = fleet.node(0).roster().version();
    header.roster_hash = fleet.node(0).roster().hash();
    header.sequence = 1;
    fleet.node(0).receive(datagram_of(header, {Reset{fleet.id("k"), number}}), 1, fleet.now());
  };
  told(old);
  CHECK(fleet.admitted_of(0, "k", 40) == 0);
  told(~uint64_t{0});
  CHECK(fleet.dropped(0, "reset_ahead") == 1);
  CHECK(fleet.admitted_of(0, "k", 40) == 0);
  fleet.reset(0, "k");  // and a real one still works
  CHECK(fleet.node(0).known_resets(fleet.id("k")).account > old);
}
