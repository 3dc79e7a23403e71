// Looks up the names among the peers, again and again, so that a node is found where it is now.
//
// Thread rule: a thread of its own, "resolver", from the constructor on; silent() from any thread. Nobody
// waits for it: a name server that does not answer delays what is told, and nothing else.
//
// Not by the time to live of the records: a node that moves is silent at its old address, and that is when it
// is looked for often.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "daemon/descriptor.h"
#include "daemon/lookup.h"

namespace tally {

inline constexpr std::chrono::seconds kLookAgain{30};     // for a node that is heard
inline constexpr std::chrono::seconds kLookAgainSoon{5};  // for one that was not found, or is silent
inline constexpr size_t kLookupsAtOnce = 32;

class Resolver {
 public:
  struct Wanted {
    uint16_t rank = 0;
    PeerEntry entry;  // requires looked_up()
  };
  using Found = std::function<void(uint16_t rank, LookupResult)>;

  Resolver(std::vector<Wanted> wanted, Found found);  // `found` is called on its thread, after each lookup
  ~Resolver();                                        // after it nothing is called any more
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  void silent(uint16_t rank, bool silent);  // nobody hears that node; what is no name is ignored

 private:
  using Clock = std::chrono::steady_clock;
  struct Name {
    explicit Name(Wanted of) : wanted(std::move(of)) {}
    const Wanted wanted;
    std::atomic<bool> silent{true};  // until it is heard
    // The thread's own:
    std::unique_ptr<Lookup> lookup;  // under way
    bool failed = false;             // the last one
    Clock::time_point looked{};      // when it ended; epoch: never
  };

  void run();
  void begin_what_is_due();
  void wait();
  void finish();
  Clock::time_point due(const Name& name) const;
  void ring();

  std::deque<Name> names_;
  const Found found_;
  std::atomic<bool> stopping_{false};
  Descriptor bell_;  // an eventfd: something for the thread to see
  std::thread thread_;
};

}  // namespace tally
