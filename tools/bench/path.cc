// tally_path CASE N: makes N decisions and ends, for counting instructions (tools/bench/instructions.py): what two runs differ by is what
// their decisions cost. Without a case: the cases, one a line.
//
// core/...: below the doors, one key that is there. service/...: bytes in, bytes out, as a worker does it, without its sockets, in
// pipelines of 64 over 1,000 keys; over HTTP one by one.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/limiter.h"
#include "core/overrides.h"
#include "daemon/service.h"

namespace tally {
namespace {

constexpr Now kNow{MonoTime(std::chrono::seconds(1000)), WallTime(std::chrono::hours(480'000))};
constexpr size_t kPipeline = 64, kKeys = 1000;
constexpr uint32_t kOneIn = 1000;  // for TALLY.TOP; else that would go by the clock, which runs otherwise under valgrind
constexpr auto kFixed = Algorithm::fixed_window, kSliding = Algorithm::sliding_window, kBucket = Algorithm::token_bucket;

Rule rule_of(std::string name, Algorithm algorithm, uint32_t limit) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  if (algorithm == kBucket)
    rule.limit.emission = std::chrono::milliseconds(1);
  else
    rule.limit.window = std::chrono::hours(1);
  rule.max_overcount = {0, true};  // in a fleet: a floor of the limit
  return rule;
}

// `limit` 1: all but the first are denied.
void core(Algorithm algorithm, bool fleet, uint32_t limit, uint64_t n) {
  RuleSet rules({rule_of("r", algorithm, limit)}, Rule{}, {0, 3}, kPublicIdKey);
  SlotTable slots(kKeys, 42, fleet);
  Limiter limiter(slots, fleet);
  limiter.open_floors(WallTime::min(), MonoTime::min());
  const Rule& rule = rules.by_id(0);
  NoteRing notes(16);
  for (uint64_t i = 0; i < n; ++i) limiter.take({&rule, &rule.limit, "user:0", limiter.hash(rule, "user:0"), 1}, kNow, &notes);
}

std::string resp(const std::vector<std::string>& words) {
  std::string bytes = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return bytes;
}

std::string key_name(size_t key) { return "key:" + std::to_string(10'000 + key); }

struct Load {
  std::vector<std::string> batches;
  size_t at_once = 1;  // in each of them
  bool http = false;
};

// Of `rules_n` rules the last one has `overrides_n`, those of all keys among them.
void serve(size_t rules_n, size_t overrides_n, const Load& load, uint64_t n) {
  std::vector<Rule> rules;
  for (size_t i = 0; i < rules_n; ++i) rules.push_back(rule_of("rule-" + std::to_string(i), kSliding, 1000));
  if (overrides_n != 0) {
    const auto overrides = std::make_shared<Overrides>();
    for (size_t i = 0; i < overrides_n; ++i) overrides->add(key_name(i), {Treatment::limited, rules.back().limit, 0, {}});
    rules.back().overrides = overrides;
  }
  const auto set = std::make_shared<const RuleSet>(std::move(rules), Rule{}, Share{0, 1}, kPublicIdKey);
  SlotTable slots(4 * kKeys, 42, false);
  Limiter limiter(slots, false);
  Overview overview("path", set, limiter, 1, MonoTime{});
  const Clock clock;
  Service service(overview, *overview.workers[0], clock, nullptr, {}, [](std::unique_ptr<Call>) {});
  overview.workers[0]->top.hold(kOneIn);
  Session session(Descriptor(), 1, true, {});
  if (load.http) session.http = std::make_unique<HttpSession>(session);
  for (uint64_t done = 0; done < n; done += load.at_once) {
    service.serve(session, load.batches[done / load.at_once % load.batches.size()]);
    session.out.clear();
  }
}

// `rules_n` rules, of which the last is asked for; with none CL.THROTTLE is asked.
void service(size_t rules_n, uint64_t n, size_t overrides_n = 0) {
  Load load{{}, kPipeline, false};
  for (size_t key = 0; key < kKeys;) {
    std::string batch;
    for (size_t i = 0; i < kPipeline; ++i, ++key) {
      const std::string name = key_name(key % kKeys);
      batch += rules_n == 0 ? resp({"CL.THROTTLE", name, "15", "30", "60", "1"}) : resp({"TALLY.TAKE", "rule-" + std::to_string(rules_n - 1), name});
    }
    load.batches.push_back(std::move(batch));
  }
  serve(rules_n, overrides_n, load, n);
}

// With the fields that nginx sends by conf/nginx/auth_request.conf.
void service_http(uint64_t n) {
  Load load{{}, 1, true};
  for (size_t key = 0; key < kKeys; ++key)
    load.batches.push_back("GET /v1/auth HTTP/1.1\r\nHost: tallyd\r\nX-Tally-Rule: rule-0\r\nX-Tally-Key: " + key_name(key) + "\r\n\r\n");
  serve(1, 0, load, n);
}

const std::map<std::string_view, std::function<void(uint64_t)>> kCases{
    {"core/fixed", [](uint64_t n) { core(kFixed, false, kLimitMax, n); }},
    {"core/sliding", [](uint64_t n) { core(kSliding, false, kLimitMax, n); }},
    {"core/bucket", [](uint64_t n) { core(kBucket, false, kLimitMax, n); }},
    {"core/fixed_denied", [](uint64_t n) { core(kFixed, false, 1, n); }},
    {"core/bucket_denied", [](uint64_t n) { core(kBucket, false, 1, n); }},
    {"core/fleet", [](uint64_t n) { core(kFixed, true, kLimitMax, n); }},
    {"core/fleet_bucket", [](uint64_t n) { core(kBucket, true, kLimitMax, n); }},
    {"service/http_auth", [](uint64_t n) { service_http(n); }},
    {"service/throttle", [](uint64_t n) { service(0, n); }},
    {"service/take", [](uint64_t n) { service(1, n); }},
    {"service/take_1000_rules", [](uint64_t n) { service(1000, n); }},
    {"service/take_overrides", [](uint64_t n) { service(1, n, 100'000); }},
};

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  if (argc == 1) {
    for (const auto& [name, run] : tally::kCases) std::printf("%s\n", std::string(name).c_str());
    return 0;
  }
  const auto found = argc == 3 ? tally::kCases.find(argv[1]) : tally::kCases.end();
  if (found == tally::kCases.end()) {
    std::fprintf(stderr, "tally_path: no such case; CASE N\n");
    return 2;
  }
  found->second(std::strtoull(argv[2], nullptr, 10));
  return 0;
}
