// Rate limits of a tallyd on this host, for processes that ask often: what a key's limit leaves is taken in
// small portions, and most decisions are made in the process's own memory.
//
//   tally::Client client;                                 // the socket that a tallyd of this user listens on
//   if (!client.take("api", "user:123").allowed) ...      // 429
//
// Thread rule: every call from any thread. A call that its portion does not cover asks the daemon once, and
// blocks for the deadline at the longest. After a fork the child has nothing of what the parent held, and
// begins anew with its first call.
//
// The bound is the daemon's: it counts a portion when it hands it out. A process that dies takes with it what
// it holds, two ticks of its own demand, until the window is over. What is not needed goes back within a few
// ticks, and when a Client is destroyed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#define TALLY_API __attribute__((visibility("default")))

namespace tally {

// What is answered while the daemon can not be asked: nobody listens, no answer within the deadline, or an
// answer that is an error.
enum class WhenAway : uint8_t {
  open,      // allowed
  closed,    // not allowed
  fallback,  // by ClientOptions::fallback, in this process alone
};

struct ClientOptions {
  std::string socket;  // path; "": as `tally` finds it: TALLY_SOCKET, $XDG_RUNTIME_DIR/tallyd.sock,
                       // /run/tallyd/tallyd.sock
  std::chrono::microseconds deadline = std::chrono::milliseconds(50);  // of a call; 1 us to 1 hour
  std::chrono::microseconds tick = std::chrono::milliseconds(10);  // between two looks at what is held; 1 ms to 1 minute
  WhenAway when_away = WhenAway::open;
  struct Fallback {
    uint32_t limit = 0;                      // of each key, in each window; 1 to 2^31
    std::chrono::milliseconds window{1000};  // 10 ms to 366 days
  } fallback;
  size_t keys =
      16'384;  // that are hot at once in this process; the others are asked about one by one. 16 to 2^24
};

enum class Reason : uint8_t {
  admitted = 0,
  over_limit = 1,
  no_grant = 2,  // the fleet had no answer in time; try again after retry_after
  isolated = 3,
  shadow = 4,  // over the limit, but the rule is only being tried: allowed
  blocked = 5,
  exempt = 6,
  away = 7,  // WhenAway decided; Client::error says why
};

struct Decision {
  bool allowed = false;
  Reason reason = Reason::away;
  uint32_t limit = 0;                         // of the rule; 0 where the daemon was not asked
  uint32_t remaining = 0;                     // of the limit, as last known, with what this process holds
  std::chrono::microseconds retry_after{-1};  // -1: nothing to wait for, or never
  std::chrono::microseconds reset_after{
      0};  // until all of the limit is there again if nothing more comes, as last known
};

class TALLY_API Client {
 public:
  // Connects with the first call. Throws std::invalid_argument where an option is out of its range, std::system_error where the process may
  // have no further thread.
  explicit Client(ClientOptions options = {});
  // Puts back what is held; where the daemon hangs that ends after two seconds. No call may be under way.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Takes `cost` from what `key` has left under `rule`. cost 0: takes nothing, tells what there is. A key has any bytes, 1 to 1,024; any
  // other is not allowed, whatever WhenAway says (Reason::away). Never throws but for memory.
  Decision take(std::string_view rule, std::string_view key, uint32_t cost = 1);

  struct Stats {
    uint64_t asked = 0;     // calls that the daemon was asked for
    uint64_t received = 0;  // in portions
    uint64_t spent = 0;     // of them, up to the last tick: decisions that cost no call
    uint64_t put_back = 0;
    uint64_t away = 0;  // decided by WhenAway
  };
  Stats stats() const;
  std::string error() const;  // why the last call that WhenAway decided was; "" if there was none

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tally
