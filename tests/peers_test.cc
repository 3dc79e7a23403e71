#include "cluster/peers.h"

#include <doctest/doctest.h>

#include <limits>

#include "cluster_fixture.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kSync = ms(100);

// Two nodes on one clock, and what each knows of the other.
struct Two {
  Roster roster = roster_of(2);
  Peers a{roster, 0, std::nullopt, kSync};
  Peers b{roster, 1, std::nullopt, kSync};
};

Header header(uint64_t incarnation, uint64_t sequence, Now sent) {
  Header h;
  h.incarnation = incarnation;
  h.sequence = sequence;
  h.sent_mono_ns = static_cast<uint64_t>(nanos(sent.mono));
  h.sent_wall_ns = nanos(sent.wall);
  return h;
}

// From `sender` (rank `s`) to `receiver` (rank `r`), `trip` on the way.
Peers::Heard carry(Peers& sender, uint16_t s, Peers& receiver, uint16_t r, Duration sent, Duration trip,
                   uint64_t incarnation = 1) {
  Header h;
  h.incarnation = incarnation;
  sender.stamp(r, h, at(sent));
  return receiver.hear(s, h, at(sent + trip));
}

}  // namespace

TEST_CASE("a peer counts as up within five sync intervals, a second at least") {
  CHECK(up_within(ms(10)) == secs(1));
  CHECK(up_within(ms(200)) == secs(1));
  CHECK(up_within(secs(1)) == secs(5));
}

TEST_CASE("a round trip is what passed less what the other held it") {
  Two two;
  CHECK(two.a.round_trip(1) == Peers::kRoundTripAssumed);
  carry(two.a, 0, two.b, 1, ms(0), ms(3));
  carry(two.b, 1, two.a, 0, ms(50), ms(4));  // held for 47 ms
  CHECK(two.a.round_trip(1) == ms(7));
  CHECK(two.b.round_trip(0) == Peers::kRoundTripAssumed);  // it has had no echo yet
  carry(two.a, 0, two.b, 1, ms(60), ms(3));
  CHECK(two.b.round_trip(0) == ms(7));  // 63 - 50 - 6
}

TEST_CASE("a round trip is smoothed, an eighth at a time") {
  Two two;
  carry(two.a, 0, two.b, 1, ms(0), ms(4));
  carry(two.b, 1, two.a, 0, ms(10), ms(4));
  REQUIRE(two.a.round_trip(1) == ms(8));
  carry(two.a, 0, two.b, 1, ms(20), ms(8));
  carry(two.b, 1, two.a, 0, ms(30), ms(8));
  CHECK(two.a.round_trip(1) == ms(9));  // (7 * 8 + 16) / 8
}

TEST_CASE("a round trip is not what a late datagram makes of it, were it the first one to be measured") {
  Two two;
  uint64_t sequence = 0;
  const auto measure = [&](Duration sample, Duration at_time) {
    Header h = header(1, ++sequence, at(at_time));
    h.echo_mono_ns = static_cast<uint64_t>(nanos(at(at_time - sample).mono));
    two.a.hear(1, h, at(at_time));
    return two.a.round_trip(1);
  };
  CHECK(measure(secs(7), secs(10)) == secs(7));  // nothing better is known
  CHECK(measure(ms(60), secs(11)) == ms(120));
  CHECK(measure(ms(60), secs(12)) <= ms(120));
  CHECK(two.a.round_trip_lately(1, at(secs(14)).mono) == two.a.round_trip(1));
  CHECK(two.a.round_trip_lately(1, at(ms(14'001)).mono) == Peers::kRoundTripAssumed);  // nobody knows any more
  for (int i = 0; i < 20; ++i) measure(ms(60), secs(13 + i));
  CHECK(two.a.round_trip(1) < ms(70));
  for (int i = 0; i < 40; ++i) CHECK(measure(i % 5 < 2 ? secs(4) : ms(60), secs(33 + i)) <= ms(120));
  for (int i = 0; i < 5; ++i) measure(ms(300), secs(73 + i));  // a longer way is learned of
  CHECK(two.a.round_trip(1) >= ms(150));
  for (int i = 0; i < 10; ++i) measure(ms(300), secs(78 + i));
  CHECK(two.a.round_trip(1) >= ms(250));
  CHECK(measure(ms(1), secs(95)) == ms(1));  // the others are too old to count
}

TEST_CASE("an echo that cannot be true measures nothing") {
  Two two;
  const Now now = at(secs(100));
  const auto mono_ns = static_cast<uint64_t>(nanos(now.mono));
  Header h = header(1, 1, now);
  SUBCASE("from the future") { h.echo_mono_ns = mono_ns + 1; }
  SUBCASE("held for longer than it took") {
    h.echo_mono_ns = mono_ns - 1000;
    h.echo_held_ns = 1001;
  }
  SUBCASE("held for all of time") {
    h.echo_mono_ns = 1;
    h.echo_held_ns = std::numeric_limits<uint64_t>::max();
  }
  SUBCASE("longer than a minute") { h.echo_mono_ns = mono_ns - 60'000'000'000; }
  CHECK(two.a.hear(1, h, now) == Peers::Heard::fine);
  CHECK(two.a[1].round_trip == Duration(0));
}

TEST_CASE("the clock skew is the other's wall clock less ours, at half a round trip") {
  Two two;
  carry(two.a, 0, two.b, 1, ms(0), ms(5));
  Header h;
  h.incarnation = 1;
  Now ahead = at(ms(20));
  ahead.wall += secs(3);
  two.b.stamp(0, h, ahead);
  two.a.hear(1, h, at(ms(25)));
  CHECK(two.a[1].round_trip == ms(10));
  CHECK(two.a[1].clock_skew == secs(3));
}

TEST_CASE("a wall clock of any value gives a skew that can be shown") {
  for (const int64_t hostile :
       {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), int64_t{0}}) {
    Two two;
    Header h = header(1, 1, at(Duration(0)));
    h.sent_wall_ns = hostile;
    two.a.hear(1, h, at(ms(1)));
    CHECK(two.a[1].clock_skew >= -std::chrono::hours(24 * 366));
    CHECK(two.a[1].clock_skew <= std::chrono::hours(24 * 366));
  }
}

TEST_CASE("the same sequence number again, or an older one, proves that the peer lives and nothing else") {
  Two two;
  CHECK(two.a.hear(1, header(1, 5, at(ms(10))), at(ms(12))) == Peers::Heard::fine);
  const uint64_t echo = two.a[1].echo_mono_ns;
  CHECK(two.a.hear(1, header(1, 5, at(ms(10))), at(ms(20))) == Peers::Heard::replayed);
  CHECK(two.a.hear(1, header(1, 4, at(ms(30))), at(ms(32))) == Peers::Heard::replayed);
  CHECK(two.a[1].heard == at(ms(32)).mono);
  CHECK(two.a[1].echo_mono_ns == echo);
  CHECK(two.a[1].sequence_in == 5);
  CHECK(two.a.hear(1, header(1, 6, at(ms(40))), at(ms(42))) == Peers::Heard::fine);
}

TEST_CASE("a datagram of an older life that was still under way is told from a clone by what it echoes, not by clocks") {
  Two two;
  CHECK(two.a.hear(1, header(7, 1, at(ms(100))), at(ms(101))) == Peers::Heard::fine);
  const MonoTime heard = two.a[1].heard;
  const auto old = [&](uint64_t sequence, Duration echo) {
    Header h = header(6, sequence, at(secs(9)));  // a clock that was set back since: what it showed says nothing
    h.echo_mono_ns = echo == Duration(0) ? 0 : static_cast<uint64_t>(nanos(at(echo).mono));
    return two.a.hear(1, h, at(ms(122)));
  };
  CHECK(old(900, Duration(0)) == Peers::Heard::older_life);  // has heard nothing of this node yet
  CHECK(old(901, ms(100)) == Peers::Heard::older_life);
  CHECK(old(902, ms(101)) == Peers::Heard::older_life);  // this node had not sent anything since it heard the newer life
  CHECK(old(903, ms(102)) == Peers::Heard::clone);
  CHECK(old(904, ms(123)) == Peers::Heard::older_life);  // an echo of another clock than today's
  CHECK(two.a[1].heard == heard);  // neither is a sign of the newer life
  CHECK(two.a[1].incarnation == 7);
}

TEST_CASE("a newer life is known anew, and what was known of the one before is told") {
  Two two;
  carry(two.a, 0, two.b, 1, ms(0), ms(1));
  carry(two.b, 1, two.a, 0, ms(2), ms(1), 5);
  two.a[1].answered_hello = true;
  two.a[1].bytes_in = 100;
  REQUIRE(two.a[1].before == 0);
  REQUIRE(two.a[1].round_trip == ms(2));

  CHECK(two.a.hear(1, header(9, 1, at(ms(500))), at(ms(501))) == Peers::Heard::fine);
  const Peer& peer = two.a[1];
  CHECK(peer.incarnation == 9);
  CHECK(peer.remembered == 9);
  CHECK(peer.before == 5);
  CHECK(peer.sequence_in == 1);
  CHECK(peer.round_trip == Duration(0));
  CHECK_FALSE(peer.answered_hello);
  CHECK(peer.bytes_in == 100);
  // Our numbers to it go on, so that a late datagram of ours is never taken for a new one.
  Header h;
  two.a.stamp(1, h, at(ms(502)));
  CHECK(h.sequence == 2);

  two.a.hear(1, header(9, 2, at(ms(600))), at(ms(601)));
  CHECK(two.a[1].before == 5);  // and stays told
}

TEST_CASE("an earlier life that only gossip told of is remembered too") {
  Two two;
  two.a.hear_of(1, 7, at(ms(10)).mono);
  CHECK(two.a[1].incarnation == 0);
  two.a.hear(1, header(9, 1, at(ms(50))), at(ms(51)));
  CHECK(two.a[1].other_life() == 7);

  // Gossip that was faster than the peer itself is no earlier life.
  Two other;
  other.a.hear_of(1, 9, at(ms(10)).mono);
  other.a.hear(1, header(9, 1, at(ms(50))), at(ms(51)));
  CHECK(other.a[1].other_life() == 0);

  // And where gossip told of both before either was heard, the earlier one is not forgotten.
  Two both;
  both.a.hear_of(1, 7, at(ms(10)).mono);
  both.a.hear_of(1, 9, at(ms(20)).mono);
  both.a.hear(1, header(9, 1, at(ms(50))), at(ms(51)));
  CHECK(both.a[1].other_life() == 7);
}

TEST_CASE("a peer is up while itself or gossip says so") {
  Two two;
  CHECK_FALSE(two.a.up(1, at(Duration(0)).mono));  // never heard of
  CHECK(two.a.up(0, at(secs(100)).mono));          // oneself always is
  two.a.hear(1, header(3, 1, at(ms(0))), at(ms(0)));
  CHECK(two.a.up(1, at(secs(1)).mono));
  CHECK_FALSE(two.a.up(1, at(secs(1) + Duration(1)).mono));
  two.a.hear_of(1, 3, at(ms(900)).mono);
  CHECK(two.a.up(1, at(ms(1900)).mono));
  two.a.hear_of(1, 3, at(ms(100)).mono);  // old news
  CHECK(two.a.up(1, at(ms(1900)).mono));
  two.a.hear_of(1, 2, at(secs(5)).mono);  // of a life that is over
  CHECK_FALSE(two.a.up(1, at(secs(5)).mono));
}

TEST_CASE("gossip of nobody's life makes nobody up") {
  Two two;
  two.a.hear_of(1, 0, at(ms(10)).mono);
  CHECK_FALSE(two.a.up(1, at(ms(10)).mono));
}

TEST_CASE("the round trip of a group is that of its nearest other member") {
  const Roster roster = roster_of(3);
  Peers peers(roster, 0, std::nullopt, kSync);
  CHECK(peers.group_round_trip(group_of(1)) == Duration(0));
  CHECK(peers.group_round_trip(group_of(3)) == Peers::kRoundTripAssumed);
  peers[1].round_trip = ms(9);
  peers[2].round_trip = ms(4);
  CHECK(peers.group_round_trip(group_of(2)) == ms(9));
  CHECK(peers.group_round_trip(group_of(3)) == ms(4));
  CHECK(peers.round_trip(0) == Duration(0));
}

TEST_CASE("a majority counts those that anybody heard, and oneself: in a large fleet two nodes meet seldom") {
  const Roster roster = roster_of(4);
  Peers peers(roster, 0, std::nullopt, kSync);
  const MonoTime now = at(secs(1)).mono;
  CHECK(peers.majority_heard(group_of(1), now, ms(500)));
  CHECK_FALSE(peers.majority_heard(group_of(2), now, ms(500)));
  peers.hear_of(2, 3, at(ms(499)).mono);
  CHECK_FALSE(peers.majority_heard(group_of(3), now, ms(500)));
  peers.hear(2, header(3, 1, at(ms(500))), at(ms(500)));
  CHECK(peers.majority_heard(group_of(3), now, ms(500)));
  CHECK_FALSE(peers.majority_heard(group_of(3), now + Duration(1), ms(500)));
  CHECK_FALSE(peers.majority_heard(group_of(2), now, ms(500)));

  Group others;  // of which this node is no member
  others.size = 3;
  others.rank = {1, 2, 3};
  CHECK_FALSE(peers.majority_heard(others, now, ms(500)));
  peers.hear_of(3, 3, at(ms(600)).mono);
  CHECK(peers.majority_heard(others, now, ms(500)));
}

TEST_CASE("whatever headers arrive, what is known of a peer only grows and no figure leaves its range") {
  Random random(test_seed(302));
  for (int round = 0; round < kRandomRounds; ++round) {
    Two two;
    Duration t{0};
    for (int step = 0; step < 60; ++step) {
      t += ms(random.between(0, 50));
      const Peer before = two.a[1];
      const auto hostile = [&] { return random.chance(0.5) ? random.next() : random.below(200'000'000'000); };
      Header h;
      h.incarnation = random.below(5);
      h.sequence = random.chance(0.1) ? random.next() : random.below(20);
      h.sent_mono_ns = hostile();
      h.sent_wall_ns = static_cast<int64_t>(hostile());
      h.echo_mono_ns = hostile();
      h.echo_held_ns = hostile();
      if (random.chance(0.2)) {
        two.a.hear_of(1, random.below(5), at(t - ms(random.between(0, 3'600'000))).mono);
      } else {
        const auto heard = two.a.hear(1, h, at(t));
        const bool older = heard == Peers::Heard::older_life || heard == Peers::Heard::clone;
        REQUIRE(older == (h.incarnation < before.incarnation));
      }
      const Peer& peer = two.a[1];
      REQUIRE(peer.incarnation >= before.incarnation);
      REQUIRE(peer.remembered >= before.remembered);
      REQUIRE(peer.remembered >= peer.incarnation);
      REQUIRE(peer.before >= before.before);
      REQUIRE((peer.remembered == 0 || peer.before < peer.remembered));
      REQUIRE(peer.heard >= before.heard);
      REQUIRE(peer.round_trip >= Duration(0));
      REQUIRE(peer.round_trip < secs(60));
      two.a.stamp(1, h, at(t));
      REQUIRE(two.a[1].sequence_out == before.sequence_out + 1);
      REQUIRE(h.echo_held_ns <= static_cast<uint64_t>(nanos(t)) + 1);
    }
  }
}

TEST_CASE("loss is the part of a span of numbers that did not come, however they are ordered") {
  LossMeter meter;
  const auto span = [&](uint64_t from, uint64_t one_lost_in) {
    for (uint64_t n = from; n < from + 2 * LossMeter::kSpan; ++n)
      if (one_lost_in == 0 || n % one_lost_in != 0) meter.heard(n ^ 1);  // in pairs, the later one first
  };
  CHECK(meter.ratio() == 0);
  span(2, 0);
  CHECK(meter.ratio() < 0.01);
  for (uint64_t from = 1000; from < 5000; from += 2 * LossMeter::kSpan) span(from, 4);
  CHECK(meter.ratio() > 0.2);
  CHECK(meter.ratio() < 0.3);
  for (uint64_t from = 6000; from < 12'000; from += 2 * LossMeter::kSpan) span(from, 0);
  CHECK(meter.ratio() < 0.01);
  meter.heard(1'000'000);  // nothing came for long: that is silence, and no loss
  CHECK(meter.ratio() < 0.01);
}
