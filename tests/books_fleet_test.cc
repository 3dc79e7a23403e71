// Fleets whose books are in Redis, simulated: random rules, traffic and faults, and the bound as it is promised of the peers. What ships
// runs: nodes, the peer that speaks for Redis, the scripts. TALLY_TRACE=RULE/KEY tells what is said of a key.
#include <doctest/doctest.h>

#include "books_world.h"
#include "core/windows.h"
#include "seed.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::test;
using namespace std::chrono_literals;
using sim::FleetConfig;

namespace {

constexpr const char* kKeys[] = {"a", "b", "c", "d", "e"};

Duration up_to(Random& random, Duration most) { return Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(nanos(most)) + 1))); }

struct Drawn {
  FleetConfig config;
  WayTerms terms;
  Duration length{0};
};

Drawn drawn(uint64_t seed) {
  Random random(seed);
  Drawn plan;
  FleetConfig& config = plan.config;
  config.seed = seed;
  config.nodes = static_cast<uint16_t>(2 + random.below(4));
  config.sync_interval = 20ms + up_to(random, 130ms);
  config.isolation_after = std::max<Duration>(config.sync_interval * 3, 300ms + up_to(random, 1700ms));
  config.lease = config.sync_interval * 3 + up_to(random, 2s);
  config.keys = 1000;
  plan.terms.delay_max = 300us + up_to(random, random.chance(0.5) ? 80ms : 3ms);
  plan.terms.tags = random.chance(0.3) ? 4 : 1;
  plan.terms.delay_min = up_to(random, plan.terms.delay_max);
  config.books_offset = up_to(random, 80ms) - 40ms;
  for (uint16_t host = 0; host < config.nodes; ++host)
    config.clocks.push_back({up_to(random, 80ms) - 40ms, static_cast<int32_t>(random.below(401)) - 200});
  const Duration window = 4s + up_to(random, 12s);
  plan.length = std::min<Duration>(window * 5 / 2, 20s);
  const auto overcount = static_cast<uint32_t>(random.below(2) * random.below(200'000));
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window})
    config.rules.push_back(sim::window_rule(algorithm == Algorithm::fixed_window ? "fixed" : "sliding", algorithm, static_cast<uint32_t>(5 + random.below(random.chance(0.5) ? 60 : 400)),
                                            window, overcount));
  const auto burst = static_cast<uint32_t>(5 + random.below(200));
  config.rules.push_back(sim::bucket_rule("bucket", burst, burst, 1s + up_to(random, 10s), overcount));
  for (Rule& rule : config.rules) {
    rule.on_isolation = OnIsolation::closed;
    rule.wait = up_to(random, 300ms);
  }
  return plan;
}

// More than the limits, mostly; from all hosts or from some, all the time or now and then.
void ask(BooksWorld& world, Random& random, Duration length) {
  for (const Rule& rule : world.config.rules) {
    const Duration span = rule.limit.algorithm == Algorithm::token_bucket ? rule.limit.burst_span() : rule.limit.window;
    for (const char* key : kKeys) {
      const double whole = static_cast<double>(rule.limit.limit) / (1e-9 * static_cast<double>(nanos(span)));
      const bool bursts = random.chance(0.5);
      for (uint16_t host = 0; host < world.config.nodes; ++host) {
        if (random.chance(0.3)) continue;
        for (uint64_t n = bursts ? 1 + random.below(4) : 1; n > 0; --n) {
          const Duration from = up_to(random, length), until = bursts ? from + up_to(random, 4s) : length;
          world.fleet.poisson(host, rule.name, key, whole * (0.2 + (bursts ? 4 : 1) * random.unit()), from, std::min(until, length));
        }
      }
    }
  }
}

using Faults = std::vector<std::string>;

void at(BooksWorld& world, Faults& faults, Duration when, const std::string& what, std::function<void()> fault) {
  faults.push_back(sim::describe(when) + " " + what);
  world.fleet.at(when, std::move(fault));
}

// Just before or after a window ends, now and then: what is granted ahead is on its way then.
Duration loss_at(const FleetConfig& config, Random& random, Duration length) {
  const Duration when = 1s + up_to(random, length - 1s), window = config.rules.front().limit.window;
  if (random.chance(0.5)) return when;
  const Duration end = window_end(window_at(config.epoch + when, window), window) - config.epoch;
  return end - config.sync_interval * 3 + up_to(random, config.sync_interval * 4);
}

// The server forgets, or is another one that has what this one had a while before.
void lose(BooksWorld& world, Random& random, Faults& faults, Duration length) {
  const Duration when = loss_at(world.config, random, length);
  switch (random.below(4)) {
    case 0:
      return at(world, faults, when, "flush", [&world] { world.server.redis.flush(); });
    case 1:
      return at(world, faults, when, "another server, that has nothing", [&world] { world.another_server(std::nullopt); });
    case 2:
      return at(world, faults, when, "another server, that has all", [&world] { world.another_server(world.server.redis.copy()); });
    default: {
      const Duration behind = up_to(random, std::min<Duration>(when, 2s));
      const auto kept = std::make_shared<ScriptedRedis::All>();
      world.fleet.at(when - behind, [&world, kept] { *kept = world.server.redis.copy(); });
      return at(world, faults, when, "another server, that is behind by " + sim::describe(behind), [&world, kept] { world.another_server(*kept); });
    }
  }
}

void trouble(BooksWorld& world, Random& random, Faults& faults, Duration length) {
  const Duration when = up_to(random, length);
  const uint64_t which = random.below(16);
  const auto host = static_cast<uint16_t>(random.below(world.config.nodes));
  const Duration for_long = up_to(random, random.chance(0.5) ? 100ms : world.config.isolation_after / 2);
  switch (random.below(3)) {
    case 0:
      return at(world, faults, when, "it hangs for " + sim::describe(for_long), [&world, for_long] { world.hang(for_long); });
    case 1:
      return at(world, faults, when, "a connection breaks", [&world, which] {
        if (!world.ways.empty()) world.break_line(which);
      });
    default:
      return at(world, faults, when, "host " + std::to_string(host) + " stands still for " + sim::describe(for_long), [&world, host, for_long] { world.fleet.pause(host, for_long); });
  }
}

void restart(BooksWorld& world, Random& random, Faults& faults, Duration length) {
  const Duration when = up_to(random, length);
  const auto host = static_cast<uint16_t>(random.below(world.config.nodes));
  const bool crashes = random.chance(0.5);
  at(world, faults, when, "host " + std::to_string(host) + (crashes ? " crashes" : " leaves"), [&world, host, crashes] {
    if (crashes)
      world.fleet.crash(host);
    else
      world.fleet.leave(host);
  });
  at(world, faults, when + up_to(random, 2s), "host " + std::to_string(host) + " begins", [&world, host] {
    if (!world.fleet.is_up(host)) world.fleet.start(host);
  });
}

void trace(BooksWorld& world) {
  const char* traced = std::getenv("TALLY_TRACE");
  if (traced == nullptr) return;
  const std::string name = traced;
  world.fleet.trace(name.substr(0, name.find('/')), name.substr(name.find('/') + 1), [](const std::string& line) { std::puts(line.c_str()); });
}

struct Kinds {
  bool losses = false, restarts = false;
};

struct Outcomes {
  uint64_t admitted = 0, offered = 0, losses = 0;
};

Outcomes run(uint64_t seed, const Kinds& kinds) {
  Drawn plan = drawn(seed);
  Random random(seed ^ 0x5eed);
  BooksWorld world(plan.config, plan.terms);
  Faults faults;
  ask(world, random, plan.length);
  if (kinds.losses)
    for (uint64_t n = 1 + random.below(4); n > 0; --n) lose(world, random, faults, plan.length);
  if (kinds.restarts)
    for (uint64_t n = 1 + random.below(3); n > 0; --n) restart(world, random, faults, plan.length);
  for (uint64_t n = random.below(6); n > 0; --n) trouble(world, random, faults, plan.length);
  for (Duration when = 50ms; when < plan.length; when += 50ms) world.fleet.at(when, [&world] { world.fleet.audit(); });
  trace(world);
  world.fleet.run_for(plan.length);
  if (!world.fleet.violations().empty()) {
    std::string all;
    for (const std::string& fault : faults) all += "\n  " + fault;
    for (const sim::Violation& violation : world.fleet.violations())
      all += "\n  " + sim::describe(violation.at) + " " + std::string(violation.checker) + " " + violation.rule + " " + violation.key + ": " + violation.what;
    FAIL_CHECK("seed " << seed << ": " << world.config.nodes << " hosts, sync " << sim::describe(world.config.sync_interval) << ", isolation after "
                       << sim::describe(world.config.isolation_after) << all);
  }
  Outcomes outcome;
  for (const Rule& rule : world.config.rules)
    for (const char* key : kKeys) {
      outcome.admitted += world.fleet.tally(rule.name, key).admitted();
      outcome.offered += world.fleet.tally(rule.name, key).offered();
    }
  for (const BooksWay* way : world.ways) outcome.losses += way->counts().losses;
  return outcome;
}

Outcomes run_all(uint64_t first, const Kinds& kinds) {
  Outcomes sum;
  for (uint64_t seed = first; seed < first + scaled(60, 3); ++seed) {
    const Outcomes one = run(seed, kinds);
    sum.admitted += one.admitted;
    sum.offered += one.offered;
    sum.losses += one.losses;
  }
  MESSAGE(sum.admitted << " of " << sum.offered << " admitted, " << sum.losses << " losses seen");
  return sum;
}

}  // namespace

TEST_CASE("whatever connections and hosts do, no more than the bound is admitted") {
  const Outcomes sum = run_all(test_seed(1), {});
  CHECK(sum.admitted > 0);
  CHECK(sum.losses == 0);
}

TEST_CASE("hosts that crash, leave and begin anew add nothing to the bound") { CHECK(run_all(test_seed(1), {.restarts = true}).losses == 0); }

TEST_CASE("where Redis forgets, or goes back, and all hosts can tell what they hold, no more than the bound is admitted") {
  CHECK(run_all(test_seed(1), {.losses = true}).losses > 0);
}

namespace {

// Two hosts and one rule, strict, of a limit of 1,000 and fixed windows of ten seconds.
FleetConfig pair_of_hosts() {
  FleetConfig config;
  config.nodes = 2;
  config.isolation_after = 500ms;
  Rule rule = sim::window_rule("api", Algorithm::fixed_window, 1000, 10s, 0);
  rule.on_isolation = OnIsolation::closed;
  rule.wait = 200ms;
  config.rules = {rule};
  config.keys = 100;
  return config;
}

// The other host uses all that it can get, from `when` on; then this one what it has. In the end it was the limit, and no more.
void use_the_rest(BooksWorld& world, Duration when) {
  world.fleet.evenly(1, "api", "a", 3000, when, when + 2s);
  world.fleet.evenly(0, "api", "a", 1000, when + 2s, when + 3s);
  world.fleet.run_until(when + 3900ms);
  CHECK(world.fleet.violations().empty());
  const auto& windows = world.fleet.windows("api", "a");
  const auto found = windows.find(window_at(world.config.epoch + when, 10s));
  REQUIRE(found != windows.end());
  CHECK(found->second.net() == 1000);
}

}  // namespace

TEST_CASE("a grant that is on its way as Redis forgets is charged when its host tells of it") {
  uint64_t most_on_the_way = 0;
  for (Duration when = 4s; when < 4200ms; when += 5ms) {
    CAPTURE(sim::describe(when));
    FleetConfig config = pair_of_hosts();
    config.sync_interval = 20ms;
    BooksWorld world(config, {40ms, 40ms});
    world.fleet.evenly(0, "api", "a", 600, 3s, when + 80ms);
    uint64_t held = 0;
    world.fleet.at(when, [&] {
      held = world.fleet.explain(0, "api", "a").ceiling;
      world.server.redis.flush();
    });
    // Before its host speaks again.
    world.fleet.at(when + 45ms, [&] { most_on_the_way = std::max(most_on_the_way, world.fleet.explain(0, "api", "a").ceiling - held); });
    use_the_rest(world, 6s);
  }
  CHECK(most_on_the_way > 0);
}

TEST_CASE("what was granted ahead of a window is told after a loss, though nothing of it was used yet") {
  uint64_t most_ahead = 0;
  for (Duration when = 9700ms; when < 10'020ms; when += 10ms) {
    CAPTURE(sim::describe(when));
    BooksWorld world(pair_of_hosts(), {});
    world.fleet.evenly(0, "api", "a", 400, 9s, std::min<Duration>(when, 9940ms));
    world.fleet.at(when, [&] { world.server.redis.flush(); });
    world.fleet.at(10'050ms, [&] { most_ahead = std::max(most_ahead, world.fleet.explain(0, "api", "a").ceiling); });
    use_the_rest(world, 13s);
  }
  CHECK(most_ahead > 0);
}

TEST_CASE("where the books of one tag are lost only their keys are told anew") {
  WayTerms terms;
  terms.tags = kBooksTags;
  BooksWorld world(pair_of_hosts(), terms);
  constexpr int kMany = 90;
  const auto key = [](int i) { return "key" + std::to_string(i); };
  const BooksNames names("tally", kBooksTags);
  const auto tag_of = [&](int i) { return names.tag_of(wire_id(key(i), world.fleet.rule("api").id_key)); };
  const uint32_t lost = tag_of(0);
  uint64_t of_it = 0;
  for (int i = 0; i < kMany; ++i) {
    world.fleet.evenly(0, "api", key(i), 50, 3s, 4s);
    of_it += tag_of(i) == lost ? 1 : 0;
  }
  world.fleet.run_until(6s);
  const uint64_t before = world.ways.front()->counts().reports;
  world.server.redis.forget(names.generation(lost));
  world.fleet.run_until(7s);
  CHECK(world.ways.front()->counts().losses == 1);
  const uint64_t told = world.ways.front()->counts().reports - before;
  CHECK(told >= of_it);
  CHECK(told < kMany / 2);
}

namespace {

// Asks each host in turn, one request after the other as an application that waits, until none was admitted for long.
struct Drain {
  BooksWorld& world;
  uint64_t admitted = 0;
  int refused = 0;
  uint16_t host = 0;

  void next() {
    if (refused >= 3 * 20) return;
    world.fleet.take(host, "api", "a", 1, [this](sim::Outcome outcome) {
      admitted += outcome == sim::Outcome::admitted ? 1 : 0;
      refused = outcome == sim::Outcome::admitted ? 0 : refused + 1;
      host = static_cast<uint16_t>((host + 1) % world.config.nodes);
      world.fleet.at(world.fleet.now() + up_to(world.random, 5ms), [this] { next(); });
    });
  }
};

}  // namespace

TEST_CASE("after a loss all of a limit can be used in the end, whatever nodes held and gave back meanwhile") {
  for (uint64_t seed = test_seed(1), end = seed + scaled(100, 10); seed < end; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    FleetConfig config = pair_of_hosts();
    config.seed = seed;
    config.nodes = 3;
    config.sync_interval = 20ms;
    config.isolation_after = 300ms;
    config.lease = 200ms;
    config.rules.front() = sim::window_rule("api", random.chance(0.7) ? Algorithm::sliding_window : Algorithm::fixed_window, 100, 24h, 0);
    config.rules.front().on_isolation = OnIsolation::closed;
    config.rules.front().wait = 1s;
    WayTerms terms;
    terms.delay_max = 300us + up_to(random, 30ms);
    BooksWorld world(config, terms);
    trace(world);
    Duration when = 3s;
    for (uint16_t host = 0; host < 3; ++host) {
      world.fleet.evenly(host, "api", "a", 10, when, when + up_to(random, 20ms));
      when += up_to(random, 100ms);
    }
    const Duration lost = when + up_to(random, 300ms);
    world.fleet.at(lost, [&] { world.server.redis.flush(); });
    Drain drain{world};
    world.fleet.at(lost + up_to(random, 4s), [&] { drain.next(); });
    world.fleet.run_until(200s);
    CHECK(world.fleet.violations().empty());
    CHECK(world.fleet.tally("api", "a").admitted() == 100);
  }
}
