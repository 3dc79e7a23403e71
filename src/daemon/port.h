// What passes between one worker and the cluster thread.
//
// Thread rule: as each member says; every ring has one pusher and one popper.
//
// Both sides sleep in their event loops and are woken through an eventfd, but only when they do sleep: a
// write costs more than a decision. One word says awake, asleep or rung, and both sides only exchange it, so
// a ring is never lost between looking and lying down (no fence: TSan does not know them).
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ring.h"
#include "base/time.h"
#include "books/central_call.h"
#include "cluster/node.h"
#include "core/limiter.h"
#include "daemon/counters.h"
#include "daemon/descriptor.h"
#include "daemon/question.h"
#include "daemon/reply_to.h"

namespace tally {

class Bell {
 public:
  Bell() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

  int fd() const { return event_.get(); }
  // The sleeper's: get up, do all there is to do, lie down; where that says false somebody rang meanwhile:
  // once more.
  void get_up() { state_.exchange(kAwake, std::memory_order_acq_rel); }
  bool lie_down() {
    int awake = kAwake;
    return state_.compare_exchange_strong(awake, kAsleep, std::memory_order_acq_rel);
  }
  void silence() {  // after it rang
    uint64_t n;
    [[maybe_unused]] const ssize_t got = ::read(event_.get(), &n, sizeof n);
  }
  // Anybody's, after pushing.
  void ring() {
    if (state_.exchange(kRung, std::memory_order_acq_rel) != kAsleep) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = ::write(event_.get(), &one, sizeof one);
  }

 private:
  static constexpr int kAwake = 0, kAsleep = 1, kRung = 2;
  Descriptor event_;
  std::atomic<int> state_{kAwake};
};

// A question that only the cluster thread (a reload: main; metrics, the busiest keys: the admin thread) can answer. The worker owns it before
// and after, and alone looks where the answer goes; in between that thread does, and the connection that asked may be gone by the time it
// comes back.
class Call : public ReplyTo {
 public:
  enum class Kind : uint8_t { take, give, reset, explain, peers, stats, reload, forget, order, lift, orders, metrics, top };
  struct Key {
    KeyHash hash;
    WireId id;
  };

  Kind kind = Kind::give;
  std::shared_ptr<const RuleSet> rules;  // of the rule, which a reload may have replaced
  const Rule* rule = nullptr;
  Limit limit;
  std::vector<Key> keys;  // one; several for DEL
  uint32_t n = 0;         // top: rows at most, of `rule` where there is one
  std::optional<int64_t> only_in;  // give: the window

  std::unique_ptr<Question> question;  // take: its central parts, each of which gets its state or none
  std::optional<CentralState> state;   // give, explain: of a central rule, what Redis says
  uint32_t count = 0;  // given back, keys that were reset, or orders that were lifted
  Explanation explanation;
  std::vector<PeerStatus> peers;
  NodeStats stats;
  OrderKind ordered = OrderKind::lifted;
  Duration lasts{0};
  std::vector<KeyOrder> orders;  // those that hold
  std::string error;  // of a reload, an order, of forgetting a node, of what Redis was to give back or reset; "": it was done
  std::string text;   // metrics
  std::vector<resp::TopRow> top;
  Duration top_span{0};

  // The worker's.
  bool count_wanted = false;  // DEL, TALLY.PUTBACK
  std::string key;  // or the node
};

struct Port {
  static constexpr size_t kNotes = 32'768, kCalls = 16'384, kWakes = 8'192;

  explicit Port(Bell& cluster_) : cluster(cluster_) {}
  ~Port() {  // both threads are gone; what was on its way between them is nobody's else
    for (Call* call = nullptr; calls.pop(call) || answers.pop(call);) delete call;
  }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  // Worker to cluster thread.
  NoteRing notes{kNotes};
  Ring<Call*> calls{kCalls};
  Bell& cluster;

  // Cluster thread to worker.
  Ring<Wake> wakes{kWakes};
  std::atomic<bool> wake_all{false};  // the ring of wakes was full: try everything again
  Ring<Call*> answers{kCalls};
  std::deque<std::unique_ptr<Call>> answered;  // the cluster thread's: what is to go into the ring, when it has room
  Bell worker;
};

}  // namespace tally
