// Configurations for tests: whether two are equal, and valid ones drawn from a seed.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "config/config.h"
#include "core/calendar.h"
#include "core/overrides.h"

namespace tally::samples {

// How many of so many rounds a random test goes: sanitizers slow everything by ten and more.
constexpr int rounds(int all) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  return all / 10;
#else
  return all;
#endif
}

inline bool same(const Overrides* a, const Overrides* b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->written() == b->written() && a->file() == b->file();
}

inline bool same(const Rule& a, const Rule& b) {
  return a.name == b.name && a.limit == b.limit && a.rate_count == b.rate_count &&
         a.rate_period == b.rate_period && a.max_overcount == b.max_overcount &&
         a.on_isolation == b.on_isolation && a.on_amnesia == b.on_amnesia && a.wait == b.wait && a.mode == b.mode &&
         a.shadow == b.shadow && a.process_hold == b.process_hold && a.comment == b.comment && a.also_names == b.also_names && a.match == b.match &&
         same(a.overrides.get(), b.overrides.get());
}

inline bool same_members(const Config::Members& a, const Config::Members& b) {
  return a.peers == b.peers && a.aggregators == b.aggregators && a.roster_version == b.roster_version && a.size == b.size && a.books == b.books;
}

inline bool same(const Config::Cluster& a, const Config::Cluster& b) {
  return a.bind == b.bind && a.self == b.self && a.peers == b.peers && a.roster_version == b.roster_version &&
         a.size == b.size && a.mode == b.mode && a.sync_interval == b.sync_interval && a.isolation_after == b.isolation_after &&
         a.lease == b.lease && a.aggregators == b.aggregators && a.books == b.books && a.gone == b.gone &&
         a.previous.has_value() == b.previous.has_value() && (!a.previous || same_members(*a.previous, *b.previous)) &&
         a.upstream.has_value() == b.upstream.has_value() &&
         (!a.upstream || (same_members(*a.upstream, *b.upstream) && a.upstream->bind == b.upstream->bind));
}

inline bool same(const Config::Limits& a, const Config::Limits& b) {
  return a.connections == b.connections && a.key_bytes == b.key_bytes &&
         a.pipeline_bytes == b.pipeline_bytes && a.waiting == b.waiting && a.registers == b.registers &&
         a.guests == b.guests && a.http_idle == b.http_idle;
}

inline bool same(const Config& a, const Config& b) {
  if (a.rules.size() != b.rules.size()) return false;
  for (size_t i = 0; i < a.rules.size(); ++i)
    if (!same(a.rules[i], b.rules[i])) return false;
  return a.node_name == b.node_name && a.state_dir == b.state_dir && a.resp == b.resp && a.http == b.http && a.rls == b.rls &&
         same(a.cluster, b.cluster) && a.table_keys == b.table_keys && same(a.limits, b.limits) &&
         a.workers == b.workers && a.spin == b.spin && same(a.inline_rule, b.inline_rule);
}

inline Duration random_duration(Random& random, Duration low, Duration high) {
  // By size first, so that all units come up; then now and then a round number of one.
  constexpr std::array<int64_t, 7> kUnits = {
      1, 1'000, 1'000'000, 1'000'000'000, 60'000'000'000, 3'600'000'000'000, 86'400'000'000'000};
  const int64_t unit = kUnits[random.below(kUnits.size())];
  const int64_t least = (low.count() + unit - 1) / unit, most = high.count() / unit;
  if (least > most) return Duration(random.between(low.count(), high.count()));
  const int64_t reach = random.chance(0.5) ? most - least : std::min<int64_t>(most - least, 100);
  return Duration(unit * (least + random.between(0, reach)));
}

inline void random_policies(Random& random, Rule& rule) {
  switch (random.below(4)) {
    case 0:
      rule.max_overcount = {0, false};
      break;
    case 1:
      rule.max_overcount = {kPartsPerMillion, true};
      break;
    case 2:
      rule.max_overcount = {static_cast<uint32_t>(random.below(kPartsPerMillion + 1)), false};
      break;
    default:
      break;
  }
  rule.on_isolation = static_cast<OnIsolation>(random.below(3));
  rule.on_amnesia = static_cast<OnAmnesia>(random.below(2));
  rule.wait =
      random.chance(0.2) ? Duration(0) : random_duration(random, Duration(0), std::chrono::seconds(10));
}

inline void random_rate(Random& random, Rule& rule) {
  const auto large = static_cast<uint32_t>(random.between(1, kLimitMax));
  rule.rate_count = random.chance(0.2) ? large : static_cast<uint32_t>(random.between(1, 10'000));
  rule.rate_period = random_duration(random, Duration(rule.rate_count), std::chrono::hours(24));
  rule.limit.emission = Duration((rule.rate_period.count() + rule.rate_count - 1) / rule.rate_count);
  rule.limit.limit = static_cast<uint32_t>(std::min<int64_t>(rule.limit.limit, kBurstSpanMax / rule.limit.emission));
}

inline Match random_match(Random& random) {
  Match match;
  match.domain = "edge \"\xC3\xA9\"";
  for (uint64_t n = random.below(3) + 1; n > 0; --n) {
    match.descriptors.push_back({"key " + std::to_string(n), std::nullopt});
    if (random.chance(0.6)) match.descriptors.back().value = random.chance(0.5) ? "/api/\t*" : "/\"login\"";
  }
  return match;
}

// Of a rule whose numbers are there.
inline std::shared_ptr<const Overrides> random_overrides(Random& random, const Rule& rule) {
  constexpr std::array<const char*, 6> kKeys = {"user:1", "user:*", "10.0.0.0/8", "2001:db8::/32", "\"\\ \xC3\xA9", "*"};
  const auto overrides = std::make_shared<Overrides>();
  std::vector<Overrides::Entry> written;
  for (const char* key : kKeys) {
    if (random.chance(0.5)) continue;
    Override override;
    override.treatment = static_cast<Treatment>(random.below(3));
    if (override.treatment == Treatment::limited) {
      Rule own;
      own.limit = rule.limit;
      own.limit.limit = static_cast<uint32_t>(random.between(1, kLimitMax));
      if (rule.limit.algorithm == Algorithm::token_bucket) random_rate(random, own);
      override = {Treatment::limited, own.limit, own.rate_count, own.rate_period};
    }
    overrides->add(key, override);
    written.push_back({key, override});
  }
  const bool file = random.chance(0.3);
  if (written.empty() && !file) return nullptr;
  overrides->came_from(std::move(written), file ? "some \"file\".json" : "");
  return overrides;
}

// Makes it one that is decided in Redis, where its window can be counted there.
inline void make_central(Rule& rule) {
  if (!is_calendar(rule.limit.window) && rule.limit.window % std::chrono::microseconds(1) != Duration(0)) return;
  rule.mode = Mode::central;
  rule.process_hold = Duration(0);
  rule.wait = std::max(rule.wait, Duration(1));
}

inline Rule random_rule(Random& random, size_t number) {
  Rule rule;
  rule.name = std::to_string(number);
  for (uint64_t n = random.below(20); n > 0; --n) rule.name += static_cast<char>(random.between('!', '~'));
  rule.limit.algorithm = static_cast<Algorithm>(random.below(3));
  const uint32_t large = static_cast<uint32_t>(random.between(1, kLimitMax));
  rule.limit.limit = random.chance(0.5) ? large : static_cast<uint32_t>(random.between(1, 1'000));
  if (rule.limit.algorithm == Algorithm::token_bucket) {
    random_rate(random, rule);
    if (random.chance(0.5)) {
      rule.process_hold = random_duration(random, Duration(0), std::chrono::seconds(1));
      if (tokens_held(rule) > rule.limit.limit / 2) rule.process_hold = Duration(0);
    }
  } else {
    constexpr std::array kCalendar = {kWeek, kMonth, kYear};
    const bool calendar = rule.limit.algorithm == Algorithm::fixed_window && random.chance(0.3);
    rule.limit.window = calendar ? kCalendar[random.below(kCalendar.size())] : random_duration(random, kWindowMin, kWindowMax);
  }
  random_policies(random, rule);
  rule.shadow = random.chance(0.3);
  if (random.chance(0.3)) rule.match = random_match(random);
  if (random.chance(0.3)) rule.overrides = random_overrides(random, rule);
  if (random.chance(0.3)) rule.comment = "a \"comment\"\twith \\ and \xC3\xA9\x01\x7f // and /* */";
  return rule;
}

inline BooksUrl random_books(Random& random) {
  BooksUrl books;
  if (random.chance(0.3)) {
    books.places = {{"/run/redis/\xC3\xA4.sock", 0}};
  } else {
    books.places = {{"10.0.0.5", 6379}, {"redis-1.example.org", 7000}, {"2001:db8::1", 6379}};
    books.places.resize(1 + random.below(3));
    if (random.chance(0.5)) books.user = "us:er";
    if (random.chance(0.5)) books.password = "p@ss/w%rd:\xC3\xA4";
    if (random.chance(0.4)) {
      books.kind = BooksUrl::Kind::sentinel;
      books.service = "main";
    } else if (random.chance(0.4)) {
      books.kind = BooksUrl::Kind::cluster;
    }
  }
  if (books.kind != BooksUrl::Kind::cluster) books.database = static_cast<uint32_t>(random.below(16));
  if (random.chance(0.5)) books.prefix = "edge:1";
  return books;
}

inline void random_cluster(Random& random, Config::Cluster& cluster) {
  const uint64_t peers = random.below(5);
  for (uint64_t i = 0; i < peers; ++i) {
    constexpr std::array<const char*, 4> kHosts = {"[::1]:", "127.0.0.2:", "127.0.0.2:", "edge-7.tally_test.:"};
    const std::string number = std::to_string(8'000 + i);
    cluster.peers.push_back(random.chance(0.1) ? "_tally._udp.edge-" + number : kHosts[random.below(kHosts.size())] + number);
  }
  if (peers > 0) {
    const std::string own = cluster.peers[random.below(peers)];
    const bool numeric = own.starts_with('1') || own.starts_with('[');
    cluster.bind = numeric ? own : "127.0.0.1:9000";
    if (!numeric || random.chance(0.5)) cluster.self = own;
    if (cluster.self && random.chance(0.5)) cluster.bind = "127.0.0.1:9000";
    if (random.chance(0.3)) cluster.books = random_books(random);
    for (const std::string& peer : cluster.peers)
      if (!cluster.books && random.chance(0.3)) cluster.aggregators.push_back(peer);
    if (random.chance(0.5))
      cluster.size = static_cast<uint32_t>(random.between(static_cast<int64_t>(peers), 100'000));
  }
  cluster.roster_version = static_cast<uint32_t>(random.between(2, UINT32_MAX));
  if (peers > 0 && random.chance(0.3)) {
    cluster.previous.emplace().peers = {"127.0.0.3:1", "127.0.0.3:2"};
    if (random.chance(0.5)) cluster.previous->aggregators = {"127.0.0.3:2"};
    cluster.previous->roster_version = cluster.roster_version - 1;
    cluster.previous->size = static_cast<uint32_t>(random.chance(0.5) ? 0 : random.between(2, 100));
    if (random.chance(0.5)) cluster.gone = {"127.0.0.3:1"};
  }
  if (peers == 0 && random.chance(0.5)) {
    cluster.aggregators = {"127.0.0.4:1", "127.0.0.4:2", "127.0.0.4:3"};
    cluster.bind = random.chance(0.5) ? "127.0.0.4:2" : "127.0.0.4:0";
  }
  if (!cluster.books && cluster.lists(cluster.own_entry()) && random.chance(0.3)) {
    cluster.upstream.emplace().aggregators = {"127.0.0.5:1", "127.0.0.5:2"};
    cluster.upstream->roster_version = static_cast<uint32_t>(random.between(1, 9));
    if (random.chance(0.5)) cluster.upstream->size = 7;
    if (random.chance(0.5)) cluster.upstream->bind = "127.0.0.5:0";
  }
  cluster.sync_interval = random_duration(random, std::chrono::milliseconds(1), std::chrono::minutes(1));
  const Duration least = std::max<Duration>(std::chrono::milliseconds(10), 2 * cluster.sync_interval);
  if (random.chance(0.5)) cluster.isolation_after = random_duration(random, least, std::chrono::hours(1));
  if (random.chance(0.5)) cluster.lease = random_duration(random, least, std::chrono::hours(1));
}

inline void random_listeners(Random& random, Config& config) {
  for (uint64_t i = random.below(3); i > 0; --i) {
    Address address;
    address.path = std::string("/run/\xC3\xA4 \"x\"/").append(std::to_string(i));
    address.mode = static_cast<uint32_t>(random.below(01000));
    config.resp.push_back(address);
  }
  for (uint64_t i = random.below(3); i > 0; --i) {
    Address address;
    address.kind = Address::Kind::tcp;
    address.host = random.chance(0.5) ? "::" : "10.1.2.3";
    address.port = random.chance(0.3) ? uint16_t{0} : static_cast<uint16_t>(1'000 + i);
    config.http.push_back(address);
  }
  for (uint64_t i = built_with_rls() ? random.below(3) : 0; i > 0; --i) {
    Address address;
    address.kind = random.chance(0.5) ? Address::Kind::tcp : Address::Kind::unix_socket;
    if (address.kind == Address::Kind::tcp) {
      address.host = "127.0.0.1";
      address.port = static_cast<uint16_t>(2'000 + i);
    } else {
      address.path = "/run/rls-" + std::to_string(i);
    }
    config.rls.push_back(address);
  }
}

// Valid: validate() finds nothing.
inline Config random_config(Random& random) {
  Config config;
  if (random.chance(0.5)) config.node_name = std::string("edge-").append(std::to_string(random.below(1'000)));
  if (random.chance(0.5)) config.state_dir = "/var/lib/\xE2\x82\xAC tallyd";
  random_listeners(random, config);
  random_cluster(random, config.cluster);
  config.table_keys = static_cast<uint64_t>(random.between(1'024, int64_t{1} << 31));
  config.limits.connections = static_cast<uint64_t>(random.between(1, 1'000'000));
  config.limits.key_bytes = static_cast<uint64_t>(random.between(1, 65'536));
  config.limits.pipeline_bytes = static_cast<uint64_t>(random.between(66'560, 1 << 30));
  config.limits.waiting = random.below((1 << 24) + 1);
  config.limits.registers = static_cast<uint64_t>(random.between(1'024, int64_t{1} << 31));
  config.limits.guests = random.below(4'097);
  config.limits.http_idle = random_duration(random, std::chrono::seconds(1), std::chrono::hours(24));
  config.workers = static_cast<uint32_t>(random.below(257));
  config.spin = Duration(random.between(0, 10'000'000));
  random_policies(random, config.inline_rule);
  for (uint64_t i = random.below(6); i > 0; --i) config.rules.push_back(random_rule(random, i));
  if (config.cluster.books && random.chance(0.5)) {
    if (random.chance(0.5)) {
      config.cluster.mode = Mode::central;
      make_central(config.inline_rule);
    }
    for (Rule& rule : config.rules)
      if (random.chance(0.5)) make_central(rule);
  }
  for (size_t i = 1; i < config.rules.size(); ++i)
    if (random.chance(0.3)) config.rules[i].also_names = {config.rules[i - 1].name};
  return config;
}

}  // namespace tally::samples
