// Where books are kept, to be asked by scripts: one Redis, or the masters of a cluster.
//
// Thread rule: the thread that runs the io_context that it was made with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "books/scripts.h"
#include "daemon/redis_connection.h"

namespace tally {

class BooksStore {
 public:
  // nullptr: no answer. The call may have been carried out.
  using Then = RedisConnection::Then;
  struct Words {
    std::vector<std::string> keys, arguments;  // keys: all of one tag
  };
  // `server`: the run id of who is asked. Made again where another one has to be.
  using Make = std::function<Words(const std::string& server)>;

  // `isolation_after`: how long may pass without an answer until whoever relies on it goes by itself.
  // `steps`: in how many another server is found and connected to, each of which may take all of the
  // patience.
  BooksStore(Duration isolation_after, int steps) : isolation_after_(isolation_after), steps_(steps) {}
  virtual ~BooksStore() = default;
  BooksStore(const BooksStore&) = delete;
  BooksStore& operator=(const BooksStore&) = delete;

  virtual void use(Duration isolation_after) { isolation_after_ = isolation_after; }  // of what begins from now on
  virtual bool ready(uint32_t tag) const = 0;
  // What is said in that channel, maybe more than once, as long as a server is connected to. Before anything is asked.
  void hear(std::string channel, std::function<void(std::string_view)> on_message) {
    channel_ = std::move(channel);
    on_message_ = std::move(on_message);
  }
  virtual std::string address() const = 0;  // of all that are connected to
  // Without ready(tag) it fails soon.
  virtual void call(uint32_t tag, BooksScript script, Make make, Then then) = 0;

  // Who does not answer for so long is gone: before a node takes it for silent, so that another connection,
  // or another master, is found.
  Duration patience() const {
    return std::max<Duration>(std::chrono::milliseconds(500), isolation_after_ / 2);
  }
  // For how long at most after a loss of a server's state some node may not know of it: its connection is
  // found to be gone, and another one is made.
  Duration found_anew_within() const { return patience() * steps_ + backoff_max(); }

  struct Counts {
    bool up = false;  // all tags
    uint64_t reconnects = 0, errors = 0;
    uint64_t moved = 0, asked = 0, try_again = 0,
             down = 0;  // in a cluster: calls that were sent elsewhere, for good or once, or were put off
  };
  virtual Counts counts() const = 0;

 protected:
  Duration isolation_after() const { return isolation_after_; }
  const std::string& channel() const { return channel_; }
  const std::function<void(std::string_view)>& on_message() const { return on_message_; }
  Duration backoff_max() const { return std::max(kBackoffMin, isolation_after_ / 2); }
  // Between attempts, after so many failures in a row. `unit`: from 0 to 1, so that not all come at once.
  Duration backoff(int failures, double unit) const {
    const Duration whole = std::min(backoff_max(), kBackoffMin * (1 << std::min(failures, 6)));
    return whole / 2 + Duration(static_cast<int64_t>(static_cast<double>(nanos(whole / 2)) * unit));
  }

 private:
  static constexpr Duration kBackoffMin = std::chrono::milliseconds(50);
  Duration isolation_after_;
  const int steps_;
  std::string channel_;  // "": none
  std::function<void(std::string_view)> on_message_;
};

}  // namespace tally
