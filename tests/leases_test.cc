// What a process holds: never spent twice, by whichever thread or child; nothing after its end; and given back when it is not needed.
#include "client/leases.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "seed.h"

using namespace tally;
using namespace tally::client;
using namespace std::chrono_literals;

namespace {

constexpr Duration kTick = 10ms;
constexpr size_t kKeys = 16;

KeyHash hash_of(uint64_t n) { return {mix(n + 1) | 1, n}; }

Reply portion(uint32_t amount, Duration lasts = 1s, int64_t account = 7) {
  Reply reply;
  reply.limit = 1000;
  reply.remaining = 500;
  reply.amount = amount;
  reply.lasts = lasts;
  reply.account = account;
  return reply;
}

struct Bench {
  Leases leases{kKeys};
  MonoTime now{1h};

  // Asked about `times` times in this tick: then it is worth a portion.
  Leases::Asking asked(uint64_t key, uint32_t times = 8) {
    Leases::Asking asking;
    for (uint32_t i = 0; i < times; ++i) {
      asking = leases.ask("api", "key-" + std::to_string(key), hash_of(key), 1);
      if (i + 1 < times) leases.unanswered(asking, hash_of(key));
    }
    return asking;
  }
  void hold(uint64_t key, const Reply& reply) { leases.answered(asked(key), hash_of(key), reply, now, kTick); }
  bool spend(uint64_t key, uint32_t cost = 1) {
    Leases::Entry* entry = leases.find(hash_of(key));
    return entry != nullptr && Leases::spend(*entry, hash_of(key), cost, [this] { return nanos(now); }) != Leases::kNothing;
  }
  uint32_t spend_all(uint64_t key) {
    uint32_t n = 0;
    while (spend(key)) ++n;
    return n;
  }
  std::vector<Leases::Order> tick() {
    now += kTick;
    return leases.tick(now);
  }
};

}  // namespace

TEST_CASE("what came is spent once, in any costs, and not after its end") {
  Bench bench;
  CHECK_FALSE(bench.spend(1));
  bench.hold(1, portion(10));
  CHECK(bench.spend(1, 4));
  CHECK_FALSE(bench.spend(1, 7));
  CHECK(bench.spend_all(1) == 6);
  bench.hold(1, portion(10));
  bench.now += 1s;
  CHECK_FALSE(bench.spend(1));
}

TEST_CASE("portions of one window add up and keep the first end; those of a bucket each have their own") {
  Bench bench;
  bench.hold(1, portion(10, 1s));
  bench.now += 600ms;
  bench.hold(1, portion(5, 1s));
  CHECK(bench.leases.find(hash_of(1))->left() == 15);
  bench.now += 400ms;
  CHECK_FALSE(bench.spend(1));

  bench.hold(2, portion(10, 20ms, 0));
  bench.now += 15ms;
  bench.hold(2, portion(5, 20ms, 0));
  bench.now += 5ms;
  CHECK(bench.spend_all(2) == 5);
}

TEST_CASE("a key that is asked about seldom gets no portion, a hot one for two ticks of it, and one asks at a time") {
  Bench bench;
  CHECK(bench.asked(1, 3).most == 0);
  const auto asking = bench.asked(2, 8);
  CHECK(asking.most == 16);
  CHECK(bench.leases.ask("api", "key-3", hash_of(3), 100).most == 0);  // one call, whatever it costs
  CHECK(bench.leases.ask("api", "key-2", hash_of(2), 1).most == 0);  // somebody does
  bench.leases.unanswered(asking, hash_of(2));
  CHECK(bench.leases.ask("api", "key-2", hash_of(2), 1).most == 20);
}

TEST_CASE("what is running out is asked for ahead of need; what is not needed goes back, but for a bucket's") {
  Bench bench;
  bench.hold(1, portion(100));
  for (int i = 0; i < 92; ++i) REQUIRE(bench.spend(1));
  auto orders = bench.tick();  // 100 used: 8 asked for, 92 spent
  REQUIRE(orders.size() == 1);
  CHECK(orders[0].put_back == 0);
  CHECK(orders[0].asking.most == 192);
  CHECK(orders[0].key == "key-1");
  CHECK(bench.tick().empty());  // somebody asks
  bench.leases.answered(orders[0].asking, orders[0].hash, portion(192), bench.now, kTick);
  uint64_t back = 0;
  for (int i = 0; i < 50; ++i)
    for (const auto& order : bench.tick()) {
      CHECK(order.account == 7);
      back += order.put_back;
    }
  CHECK(back == 200);
  CHECK_FALSE(bench.spend(1));

  bench.hold(2, portion(100, 10s, 0));
  for (int i = 0; i < 50; ++i)
    for (const auto& order : bench.tick()) CHECK(order.put_back == 0);
  CHECK(bench.leases.leave().empty());
  CHECK(bench.spend_all(2) == 100);
}

TEST_CASE("a process that is asked no more asks for no more, however short its portions last") {
  for (const Duration lasts : {1ms, 10ms, 25ms, 1000ms}) {
    Bench bench;
    bench.hold(1, portion(100, lasts, 0));
    uint64_t came = 0;
    for (int i = 0; i < 300; ++i)
      for (const auto& order : bench.tick()) {
        REQUIRE(order.put_back == 0);
        came += order.asking.most;
        bench.leases.answered(order.asking, order.hash, portion(order.asking.most, lasts, 0), bench.now, kTick);
      }
    CHECK(came <= 16);
    CHECK(bench.leases.quiet());
    CHECK(bench.leases.spent() == 0);
  }
}

TEST_CASE("at the end all that can be put back is") {
  Bench bench;
  bench.hold(1, portion(10));
  bench.hold(2, portion(20, 1s, 9));
  uint64_t back = 0;
  for (const auto& order : bench.leases.leave()) back += order.put_back;
  CHECK(back == 30);
  CHECK_FALSE(bench.spend(1));
  CHECK_FALSE(bench.spend(2));
}

TEST_CASE("a denial is believed for a tick where nothing is left, and told by nobody else") {
  Bench bench;
  Reply reply;
  reply.limited = true;
  reply.retry_after = 30s;
  bench.leases.answered(bench.asked(1), hash_of(1), reply, bench.now, kTick);
  CHECK(bench.leases.find(hash_of(1))->denied_until.load() == nanos(bench.now + kTick));
  reply.remaining = 3;  // less than was asked for
  bench.leases.answered(bench.asked(2), hash_of(2), reply, bench.now, kTick);
  CHECK(bench.leases.find(hash_of(2))->denied_until.load() == 0);
  reply = {};
  reply.limited = true;
  reply.retry_after = Duration(-1);  // never: the cost is above the limit
  bench.leases.answered(bench.asked(3), hash_of(3), reply, bench.now, kTick);
  CHECK(bench.leases.find(hash_of(3))->denied_until.load() == 0);
}

TEST_CASE("a place goes to another key when it holds nothing, and what was meant for the first is lost") {
  Bench bench;
  // All of these have the same four places.
  const auto crowd = [](uint64_t n) { return KeyHash{mix(n + 1) | 1, 4}; };
  std::vector<Leases::Asking> asking;
  for (uint64_t n = 0; n < 4; ++n) {
    Leases::Asking one;
    for (int i = 0; i < 8; ++i) {
      one = bench.leases.ask("api", "crowd", crowd(n), 1);
      if (i < 7) bench.leases.unanswered(one, crowd(n));
    }
    asking.push_back(one);
  }
  CHECK(bench.leases.ask("api", "crowd", crowd(9), 1).place == Leases::kNowhere);  // all are asked for
  for (uint64_t n = 0; n < 4; ++n) bench.leases.unanswered(asking[n], crowd(n));
  for (int i = 0; i < 50; ++i)
    for (const auto& order : bench.tick()) bench.leases.unanswered(order.asking, order.hash);
  const auto taken = bench.leases.ask("api", "crowd", crowd(9), 1);
  REQUIRE(taken.place != Leases::kNowhere);
  CHECK(bench.leases.find(crowd(9)) != nullptr);
  for (uint64_t n = 0; n < 4; ++n) bench.leases.answered(asking[n], crowd(n), portion(100), bench.now, kTick);
  CHECK(bench.leases.find(crowd(9))->left() == 0);
}

TEST_CASE("a child holds nothing of what its parent holds") {
  Bench bench;
  bench.hold(1, portion(10));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(bench.spend(1) ? 1 : 0);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(bench.spend_all(1) == 10);
}

TEST_CASE("threads that spend while portions come, go back and change their places spend no more than came") {
  const uint64_t seed = test_seed(20261129);
  Random random(seed);
  Bench bench;
  constexpr uint64_t kHashes = 40;  // more than there are places
  std::atomic<bool> stop{false};
  std::atomic<int> busy{0};  // threads that have spent something
  std::vector<std::vector<uint64_t>> spent(2, std::vector<uint64_t>(kHashes, 0));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < spent.size(); ++t)
    threads.emplace_back([&, t] {
      Random own(seed + t);
      while (!stop.load(std::memory_order_relaxed)) {
        const uint64_t key = own.below(kHashes);
        const auto cost = static_cast<uint32_t>(1 + own.below(3));
        Leases::Entry* entry = bench.leases.find(hash_of(key));
        if (entry == nullptr || Leases::spend(*entry, hash_of(key), cost, [] { return int64_t{0}; }) == Leases::kNothing) continue;
        if (std::accumulate(spent[t].begin(), spent[t].end(), uint64_t{0}) == 0) ++busy;
        spent[t][key] += cost;
      }
    });
  std::vector<uint64_t> came(kHashes, 0), back(kHashes, 0);
  std::vector<int64_t> account(kHashes, 0);
  for (uint64_t i = 0; i < scaled(20'000, 500) || busy != 2; ++i) {
    const uint64_t key = random.below(kHashes);
    const auto asking = bench.asked(key, 5);
    const auto amount = static_cast<uint32_t>(random.below(30));
    if (asking.place != Leases::kNowhere && asking.most != 0) {
      bench.leases.answered(asking, hash_of(key), portion(amount, 20ms, random.chance(0.5) ? static_cast<int64_t>(1 + random.below(2)) : 0), bench.now, kTick);
      came[key] += amount;
    }
    if (random.chance(0.2))
      for (const auto& order : bench.tick()) {
        if (order.put_back == 0) {
          bench.leases.unanswered(order.asking, order.hash);
        } else {
          back[std::stoull(order.key.substr(4))] += order.put_back;
        }
      }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (uint64_t key = 0; key < kHashes; ++key) CHECK(spent[0][key] + spent[1][key] + back[key] <= came[key]);
  CHECK(busy == 2);
}
