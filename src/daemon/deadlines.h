// By when each connection over HTTP has to have done what it is to do next.
//
// Thread rule: one worker's. Setting, removing and the next one due are O(1), without a timer for each: there
// is a list for each thing to be done, and as all in it have the same time for it, each list is in order by
// itself. Nothing here knows a clock.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <optional>

#include "base/time.h"

namespace tally {

struct Session;

// What the other side is to do.
enum class Until : uint8_t {
  nothing,  // it is our turn
  asked,    // to send the rest of a request
  taken,    // to take what lies in the output
  idle,     // nothing; it may ask again
  gone,     // to close: it was told that this connection ends
};

struct Deadline {
  explicit Deadline(Session& session_) : session(session_) {}
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  Session& session;
  Until until = Until::nothing;
  uint64_t step = 0;  // see Deadlines::set
  MonoTime due{};

 private:
  friend class Deadlines;
  std::list<Deadline*>::iterator at_;
};

class Deadlines {
 public:
  static constexpr Duration kAsked = std::chrono::seconds(10), kTaken = std::chrono::seconds(10),
                            kGone = std::chrono::seconds(2);

  explicit Deadlines(Duration idle)
      : lists_{{{Duration(0), {}}, {kAsked, {}}, {kTaken, {}}, {idle, {}}, {kGone, {}}}} {}

  void add(Deadline& deadline);     // with nothing to be done
  void remove(Deadline& deadline);  // requires add before
  // `step`: how far it has come. As long as neither changes, the time runs on; with each step it begins anew
  // (a sixteenth of it may be missing then, so that those who are busy cost nothing).
  void set(Deadline& deadline, Until until, uint64_t step, MonoTime now);
  Deadline* due(MonoTime now) const;  // one whose time is over; nullptr: none
  std::optional<MonoTime> next_due() const;

 private:
  struct List {
    Duration length;
    std::list<Deadline*> order;
  };
  List& list_of(Until until) { return lists_[static_cast<size_t>(until)]; }

  std::array<List, 5> lists_;  // by Until
};

}  // namespace tally
