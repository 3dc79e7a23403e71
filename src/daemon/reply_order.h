// The replies of one connection, in the order of its requests, although some are known later than others.
//
// Thread rule: the worker's that owns the connection.
//
// As long as nothing is held, a reply goes straight to the bytes that are ready. A request that has to wait
// reserves its place with hold(); what is answered behind it collects behind it, and moves on when fill() has
// closed the gap.
#pragma once

#include <algorithm>
#include <list>
#include <string>
#include <utility>

namespace tally {

class Call;
struct Parked;

struct HeldReply {
  std::string bytes;
  bool filled = false;
  Parked* parked = nullptr;  // who will fill it: a request that waits for a grant ...
  Call* call = nullptr;      // ... or a question to the cluster thread
};

class ReplyOrder {
 public:
  explicit ReplyOrder(std::string& ready) : ready_(ready) {}

  // Where the next reply is to be appended; grow() after that.
  std::string& tail() {
    if (held_.empty()) return ready_;
    if (!held_.back().filled) held_.push_back(HeldReply{{}, true});
    return held_.back().bytes;
  }
  // A place for a reply that comes later. Stays where it is until it is filled.
  HeldReply& hold() { return held_.emplace_back(); }
  // Requires a place that hold() gave and that was not filled yet.
  void fill(HeldReply& held, std::string bytes) {
    held.bytes = std::move(bytes);
    held.filled = true;
    held.parked = nullptr;
    held.call = nullptr;
    while (!held_.empty() && held_.front().filled) {
      ready_ += held_.front().bytes;
      held_.pop_front();
    }
  }

  bool waiting() const { return !held_.empty(); }
  bool waiting_for_grant() const {
    return std::ranges::any_of(held_, [](const HeldReply& held) { return held.parked != nullptr; });
  }
  size_t held_replies() const { return held_.size(); }
  size_t held_bytes() const {  // the tail may be long, the rest is short: what stands behind the first gap
    size_t n = 0;
    for (const HeldReply& held : held_) n += held.bytes.size() + sizeof(HeldReply);
    return n;
  }
  std::list<HeldReply>& held() { return held_; }

 private:
  std::string& ready_;
  std::list<HeldReply> held_;  // a list: empty it owns nothing, and places stay
};

}  // namespace tally
