// Requests that wait for a grant, in one worker: in order under their key, and by deadline.
//
// Thread rule: one worker's. Parking, taking out and the next deadline are O(1); nothing here knows a clock.
//
// Deadlines are kept in one list for each distinct `wait`: a rule's wait never changes, so each list is in
// order by itself, and leaving early costs nothing (a heap would keep the dead until their time). Only who waited elsewhere before has to
// look for its place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/time.h"
#include "core/rules.h"
#include "daemon/question.h"
#include "daemon/reply_to.h"

namespace tally {

struct Parked : ReplyTo {  // without a session: to question->done
  // The question, owned.
  std::shared_ptr<const RuleSet> rules;  // of the rule, which a reload may have replaced
  const Rule* rule = nullptr;
  Limit limit;
  std::string key;
  KeyHash hash;
  uint32_t cost = 1;
  bool noted = true;  // the cluster thread knows that it waits
  uint32_t most = 0;
  std::unique_ptr<Question> question;  // several takes: the above is of the one that is short of a grant

  MonoTime since, due;

 private:
  friend class Parking;
  struct Links {
    Parked *before = nullptr, *behind = nullptr;
  };
  Links in_key_, in_wait_;
  size_t wait_list_ = 0;
};

class Parking {
 public:
  // Takes over `parked`; `since`, rule and hash are set. Its due becomes since + rule->wait. It goes behind all under its key, also where
  // it waited elsewhere before.
  Parked& park(std::unique_ptr<Parked> parked);
  // Takes it out of all lists.
  std::unique_ptr<Parked> leave(Parked& parked);

  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  bool waits(KeyHash hash) const { return count_ != 0 && by_key_.contains(hash); }
  Parked* first(KeyHash hash) const;  // the longest waiting under that key; nullptr: none
  Parked* last(KeyHash hash) const;   // the shortest; nullptr: none
  static Parked* before(const Parked& parked) { return parked.in_key_.before; }  // under its key; nullptr: it is the first
  Parked* due(MonoTime now) const;    // one whose deadline has come; nullptr: none
  std::optional<MonoTime> next_due() const;
  std::vector<KeyHash> keys() const;  // under which something waits

 private:
  struct Ends {
    Parked *first = nullptr, *last = nullptr;
  };
  struct WaitList {
    Duration wait{0};
    Ends ends;
  };
  struct Hash {
    size_t operator()(const KeyHash& h) const { return static_cast<size_t>(h.lo); }
  };
  static void insert(Ends& ends, Parked* before, Parked& parked, Parked::Links Parked::*links);
  static void remove(Ends& ends, Parked& parked, Parked::Links Parked::*links);

  std::unordered_map<KeyHash, Ends, Hash> by_key_;
  std::vector<WaitList> by_wait_;  // one for each distinct wait: few
  size_t count_ = 0;
};

}  // namespace tally
