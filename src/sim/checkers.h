// What must hold in every run, whatever the network, the clocks and the crashes do.
//
// Thread rule: one owner. The checkers see what applications got and what went over the wire, never a node's
// inside, so they cannot share its mistakes.
//
//   windows   for each (rule, key, window number): admitted less refunded over the fleet <= bound
//   buckets   in every interval of true time of length T: admitted <= (1 + e)(burst + rate * T)
//   holdings  the same with all that hosts may still admit there without hearing anything more
//   floors    of all hosts in one window: floor(eL) at most
//   full      no table with room for a million keys is counted as full
//   marks     no mark on the wire passes L (a bucket: burst / rate and a lease), but what a full register tells
//   sliding   a sliding window's own promise, which is less than its bound: admitted less refunded <=
//   floor(eL) + L -
//             (what the window before admitted, less floor(eL)) * (1 - elapsed), by the clock that is
//             furthest ahead
//   numbers   what is cumulative never falls: used, returned, refunded in reports; granted in grants; nobody
//   refunds
//             more than it used; no lease number is given out by two lives of an owner
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "cluster/wire.h"
#include "core/rules.h"

namespace tally::sim {

// The interval property of a token bucket, for a sequence of admissions in true time: a level that each
// admission raises by its cost and that leaks at the rate never passes the burst exactly when every interval
// holds what it may.
class ReferenceBucket {
 public:
  // (1 + e)(limit tokens + one per emission); the rate may be `rate_slack_ppm` faster, as a clock may run.
  ReferenceBucket(const Limit& limit, uint32_t overcount_ppm, uint32_t rate_slack_ppm);

  // False where the admission breaks the property. `at` never falls.
  bool admit(uint64_t cost, Duration at);
  // So much was given back. It counts when it is needed: an owner may hear of it later than applications.
  void refund(uint64_t cost) { credit_ += cost_ * static_cast<Wide>(cost); }
  // All that was taken so far was given back.
  void empty() { level_ = 0; }
  // The fullest that it ever was, 1: all of (1 + e) burst.
  double fullest() const { return static_cast<double>(fullest_) / static_cast<double>(capacity_); }

 private:
  using Wide = __int128;  // nanoseconds of emission, in millionths of millionths
  const Wide capacity_;
  const Wide leak_;       // per nanosecond
  const Wide cost_;       // per token
  const Wide tolerance_;  // a fast clock is read in whole nanoseconds
  Wide level_ = 0;
  Wide credit_ = 0;
  Wide fullest_ = 0;
  Duration last_{0};
};

struct Violation {
  std::string_view checker;  // which found it
  std::string what;          // a sentence with the numbers
  std::string rule;
  std::string key;
  Duration at{0};
};

// What a (rule, key) may have over the fleet.
struct CheckedKey {
  const Rule* rule = nullptr;
  std::string key;
  uint64_t bound = 0;     // windows: per window number
  uint64_t mark_max = 0;  // what no mark may pass
  bool check_marks = true;
  uint32_t bucket_overcount_ppm = 0;  // buckets: e, and what isolation adds to it
  uint64_t per_life =
      0;  // what a node that was started again may add once more: what it spent while isolated it forgot
  bool check_sliding = false;
  bool sliding_late =
      false;  // count, of the window before, what was admitted there when a clock had left it already, too
  bool check_told = true;  // also what members tell: a full register may tell another key's mark
};

class Checkers {
 public:
  // `rate_slack_ppm`: by how much the fastest clock of the run is fast.
  explicit Checkers(uint32_t rate_slack_ppm) : rate_slack_ppm_(rate_slack_ppm) {}

  // A key is announced before anything is said of it; the place by which it is named from then on is
  // returned.
  size_t add(const CheckedKey& key, const WireId& id);

  // What applications saw. `window`: the number on the deciding host's clock, 0 for a bucket.
  // `latest`: what the clock shows that is furthest ahead.
  void admitted(size_t key, int64_t window, uint64_t cost, Duration at, WallTime latest);
  // By an application's word, or by a reset: what the host that heard of it had used until then.
  void refunded(size_t key, int64_t window, uint64_t cost);
  // A bucket's owner, or whoever takes itself for it, heard of a reset.
  void emptied(size_t key);

  // What hosts hold of the key in the window now, unspent: with what was admitted there it passes no bound.
  void holding(size_t key, int64_t window, uint64_t unspent, Duration at);

  void set_back(uint16_t host) { set_back_.insert(host); }  // its clock: floors of windows that come again are lost
  void another_life() { ++lives_; }  // a host was started again

  // What a host sent. Two hosts may bear one name, and one incarnation by chance: numbers are compared host by host.
  void sent(const Datagram& datagram, Duration at, uint16_t host = 0);

  struct WindowCount {
    uint64_t admitted = 0, refunded = 0;
    uint64_t late = 0;  // of a sliding window's: admitted when a clock had left it already
    uint64_t net() const { return admitted > refunded ? admitted - refunded : 0; }
  };
  const std::map<int64_t, WindowCount>& windows(size_t key) const { return keys_[key].windows; }
  double fullest(size_t key) const;  // buckets: see ReferenceBucket

  const std::vector<Violation>& violations() const { return violations_; }
  void violate(size_t key, Duration at, std::string_view checker, std::string what);
  static constexpr size_t kViolationsMax = 20;

 private:
  struct State {
    CheckedKey what;
    std::map<int64_t, WindowCount> windows;
    std::vector<ReferenceBucket> bucket;  // one, for a bucket
  };
  // A cumulative number on the wire: who says it, of what.
  struct Counter {
    uint16_t host;
    NodeId sender;
    uint64_t incarnation;
    NodeId receiver;  // grants: whose line, and of which life of it
    uint64_t receiver_incarnation;
    WireId key;
    int64_t window;
    Ballot ballot;
    uint32_t line;
    uint64_t lease;
    uint8_t number;  // which
    auto operator<=>(const Counter&) const = default;
  };
  void grows(const Counter& counter, uint64_t value, std::string_view name, Duration at);
  void check(const Header& header, const Report& report, Duration at, uint16_t host);
  void check(const Header& header, const Grant& grant, Duration at, uint16_t host);
  void check_sliding(size_t key, int64_t window, Duration at, WallTime latest);
  void check_mark(const WireId& id, uint64_t mark, bool told, Duration at);

  const uint32_t rate_slack_ppm_;
  uint64_t lives_ = 0;
  std::vector<State> keys_;
  std::unordered_map<WireId, size_t> by_id_;
  std::map<Counter, uint64_t> counters_;
  std::set<std::pair<NodeId, uint64_t>> told_clone_;  // lives that were told: they may lose their floor, and
                                                      // so their ceiling fall
  std::set<uint16_t> set_back_;  // hosts; as above
  std::map<std::tuple<WireId, NodeId, uint64_t>, uint64_t>
      leases_;  // key, owner, number: by which life of it
  std::vector<Violation> violations_;
};

}  // namespace tally::sim
