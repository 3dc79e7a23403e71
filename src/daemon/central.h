// Requests of central rules, which Redis decides: from the workers to its script and back.
//
// Thread rule: the cluster thread's. Nothing here waits: what ports bring together goes to Redis together,
// and each call goes back to its port when all of it is answered, or its rule's `wait` is over.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "books/batch.h"
#include "books/central_call.h"
#include "daemon/books_store.h"
#include "daemon/clock.h"
#include "daemon/counters.h"
#include "daemon/port.h"

namespace tally {

class Central {
 public:
  struct Parts {
    BooksStore& store;
    const Clock& clock;
    TimeHistogram& call_times;
  };
  Central(Parts parts, BooksNames names) : parts_(parts), names_(std::move(names)) {}
  Central(const Central&) = delete;
  Central& operator=(const Central&) = delete;

  // Whether Redis has to be asked for it.
  static bool decides(const Call& call);
  // Into port.answered, sooner or later. What Redis does not answer has no state then, or an error. It is
  // never asked a second time: nobody knows whether it did what it did not answer.
  void ask(std::unique_ptr<Call> call, Port& port);
  void expire(MonoTime now);
  MonoTime next_due() const { return waiting_.empty() ? MonoTime::max() : waiting_.begin()->first; }
  void end();  // nothing that waits is answered any more

  struct Counts {
    uint64_t answered = 0;
    uint64_t unreachable = 0;  // there was no connection, it ended meanwhile, or too much is under way
    uint64_t late = 0;         // the rule's `wait` was over
    uint64_t refused = 0;      // by an error of Redis
    uint64_t malformed = 0;    // what came back is none of the script's answers
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Waiting;
  using ByDue = std::multimap<MonoTime, std::shared_ptr<Waiting>>;
  struct Waiting {
    std::unique_ptr<Call> call;  // nullptr: it went back
    Port& port;
    size_t open = 0;  // answers that are still to come
    ByDue::iterator place{};
  };
  struct Asked {       // one call of the script
    size_t which = 0;  // part of the question
    uint32_t tag = 0;
    std::string name;
    CentralCall what;
    bool alone_refuses = false;  // without Redis the rule admits nothing
  };

  std::vector<Asked> asked_by(const Call& call) const;
  void call_script(const Asked& asked, const CentralCall& what, BooksStore::Then then);
  void on_answer(Waiting& waiting, const Asked& asked, const redisReply* reply, MonoTime sent);
  void give_back(const Asked& asked, const CentralState& state);
  void finish(Waiting& waiting);

  const Parts parts_;
  const BooksNames names_;
  ByDue waiting_;
  size_t under_way_ = 0;  // calls of the script that nothing came back of, whether their requests still wait or not
  Counts counts_;
};

}  // namespace tally
