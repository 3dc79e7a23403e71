// The other ways to keep one limit, on streams small enough to work out by hand; and the meter.
#include "sim/baselines.h"

#include <doctest/doctest.h>

#include <string>

#include "sim/overcount.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr WallTime kEpoch{1'800'000'000s};

ModelTerms window_terms(Algorithm algorithm, uint32_t limit, Duration window, uint16_t nodes) {
  ModelTerms terms;
  terms.limit.algorithm = algorithm;
  terms.limit.limit = limit;
  terms.limit.window = window;
  terms.nodes = nodes;
  terms.epoch = kEpoch;
  return terms;
}
ModelTerms fixed(uint32_t limit, Duration window, uint16_t nodes) {
  return window_terms(Algorithm::fixed_window, limit, window, nodes);
}
ModelTerms bucket(uint32_t burst, Duration emission, uint16_t nodes) {
  ModelTerms terms = window_terms(Algorithm::token_bucket, burst, 0s, nodes);
  terms.limit.emission = emission;
  return terms;
}

// "+" admitted, "-" refused, in order.
std::string text(const Decisions& decisions) {
  std::string out;
  for (const bool admitted : decisions.admitted) out += admitted ? '+' : '-';
  return out;
}
Arrival ask(Duration at, uint16_t node = 0, uint32_t cost = 1) { return {at, node, 0, cost}; }

}  // namespace

TEST_CASE("the exact limiter admits the limit in a window, wherever requests come to") {
  const Arrival stream[] = {ask(0s, 0), ask(1s, 1), ask(2s, 0), ask(10s, 1)};
  CHECK(text(exact(fixed(2, 10s, 2), stream)) == "++-+");
}

TEST_CASE(
    "the exact limiter knows the sliding window: a quarter on, three quarters of the window before count") {
  // 4 in the first window; 2.5 s into the second, 3 of them still count, so one fits.
  const Arrival stream[] = {ask(0s, 0, 4), ask(9s), ask(12500ms), ask(12600ms)};
  CHECK(text(exact(window_terms(Algorithm::sliding_window, 4, 10s, 1), stream)) == "+-+-");
}

TEST_CASE("the exact limiter knows the bucket: a burst of 2, then one a second") {
  const Arrival stream[] = {ask(0s), ask(0s), ask(500ms), ask(1s), ask(1500ms), ask(2s)};
  CHECK(text(exact(bucket(2, 1s, 1), stream)) == "++-+-+");
}

TEST_CASE("each alone: every host admits all of the limit") {
  const Arrival stream[] = {ask(0s, 0), ask(0s, 1), ask(1s, 0), ask(1s, 1), ask(2s, 2)};
  CHECK(text(each_alone(fixed(1, 10s, 3), stream)) == "++--+");
}

TEST_CASE("equal parts: 3 over two hosts are 2 and 1, 1 over two hosts is nothing for the second") {
  const Arrival stream[] = {ask(0s, 0), ask(0s, 0), ask(0s, 0), ask(1s, 1), ask(1s, 1)};
  CHECK(text(equal_parts(fixed(3, 10s, 2), stream)) == "++-+-");
  CHECK(text(equal_parts(fixed(1, 10s, 2), stream)) == "+----");
}

TEST_CASE("equal parts of a bucket: half of the burst and half of the rate each") {
  const Arrival stream[] = {ask(0s, 0), ask(0s, 0), ask(0s, 1), ask(1s, 0), ask(2s, 0)};
  CHECK(text(equal_parts(bucket(2, 1s, 2), stream)) == "+-+-+");
}

TEST_CASE("a shared store is exact, counts half a round trip later and answers after a whole one") {
  ModelTerms terms = fixed(1, 1s, 2);
  terms.round_trip = 100ms;
  // The third comes to the store 10 ms into the next window.
  const Arrival stream[] = {ask(0ms, 0), ask(900ms, 1), ask(960ms, 1), ask(1000ms, 0)};
  const Decisions decisions = shared_store(terms, stream);
  CHECK(text(decisions) == "+-+-");
  CHECK(decisions.decided_after == 50ms);
  CHECK(decisions.answered_after == 100ms);
}

TEST_CASE("gossiped sums: until the sums of others come, each host has all of the limit") {
  ModelTerms terms = fixed(2, 10s, 2);
  terms.round_trip = 20ms;
  terms.sync_interval = 100ms;
  // Host 0 tells at 0, 100, ... ms, host 1 at 50, 150, ... ms; both are heard 10 ms later.
  SUBCASE("twice the limit at once") {
    const Arrival stream[] = {ask(10ms, 0), ask(20ms, 1), ask(30ms, 1),
                              ask(40ms, 1), ask(59ms, 0), ask(61ms, 0)};
    CHECK(text(gossiped_sums(terms, stream)) == "+++-+-");
  }
  SUBCASE("heard in time, exact; and the next window begins at nothing") {
    const Arrival stream[] = {ask(10ms, 1),  ask(60ms, 0), ask(111ms, 1),
                              ask(120ms, 0), ask(10s, 0),  ask(10s, 0)};
    CHECK(text(gossiped_sums(terms, stream)) == "++--++");
  }
  SUBCASE("what is lost is told again") {
    terms.loss = 1;
    const Arrival stream[] = {ask(10ms, 0, 2), ask(5s, 1, 2), ask(6s, 0), ask(6s, 1)};
    CHECK(text(gossiped_sums(terms, stream)) == "++--");
    terms.loss = 0.5;  // of fifty tellings one comes through
    CHECK(text(gossiped_sums(terms, stream)) == "+---");
  }
}

TEST_CASE("gossiped sums, sliding: what others told of the window before counts too") {
  ModelTerms terms = window_terms(Algorithm::sliding_window, 4, 10s, 2);
  const Arrival stream[] = {ask(0s, 0, 2), ask(1s, 1, 2), ask(12500ms, 0), ask(12900ms, 1)};
  CHECK(text(gossiped_sums(terms, stream)) == "+++-");
}

TEST_CASE("gossiped sums of a bucket: what others admitted drains it, below nothing too") {
  ModelTerms terms = bucket(2, 1s, 2);
  // Both spend the burst at once; then there is a debt of 2, so the next is there after 3 s.
  const Arrival stream[] = {ask(10ms, 0, 2), ask(20ms, 1, 2), ask(2900ms, 0), ask(3100ms, 0)};
  CHECK(text(gossiped_sums(terms, stream)) == "++-+");
}

TEST_CASE("the meter of windows: the worst above the limit, and the mean over all of them") {
  OvercountMeter meter(fixed(10, 1s, 1).limit, kEpoch);
  meter.admitted(10, 0s);
  meter.admitted(10, 1s);
  meter.admitted(2, 1500ms);
  meter.admitted(1, 3s);
  CHECK(meter.total() == 23);
  CHECK(meter.worst() == doctest::Approx(0.2));
  CHECK(meter.mean(4) == doctest::Approx(0.05));
}

TEST_CASE("the meter of a bucket: by how much larger and faster it would have to be") {
  OvercountMeter meter(bucket(10, 100ms, 1).limit, kEpoch);
  meter.admitted(10, 0s);
  CHECK(meter.worst() == 0);
  meter.admitted(3, 100ms);  // 13 in 0.1 s, in which 11 may come
  CHECK(meter.worst() == doctest::Approx(2.0 / 11).epsilon(1e-4));
  meter.admitted(10, 1100ms);  // 23 in 1.1 s, in which 21 may: less
  CHECK(meter.worst() == doctest::Approx(2.0 / 11).epsilon(1e-4));
  CHECK(meter.mean(1) == doctest::Approx(0.15));  // 23, where 10 and 10 more may come
}
