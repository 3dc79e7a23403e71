// All that one process has of its daemon: what it holds, its connections, and the thread that asks ahead of
// need and puts back.
//
// Thread rule: every call from any thread. Only of the process that made it (is_ours).
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "client/connection.h"
#include "client/fallback.h"
#include "client/leases.h"
#include "tally/client.h"

namespace tally::client {

class Process {
 public:
  explicit Process(const ClientOptions& options);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool is_ours() const { return leases_.is_ours(); }
  // False where it has to be asked. Requires cost > 0.
  bool decide_here(std::string_view rule, std::string_view key, uint32_t cost, Decision& decision) {
    const KeyHash hash = hash_key(key, seed_, rule_seed_of(rule));
    Leases::Entry* entry = leases_.find(hash);
    if (entry == nullptr) return false;
    const int64_t at = Leases::spend(*entry, hash, cost, [] { return nanos(mono_now()); });
    if (at != Leases::kNothing) return allowed_here(*entry, at, decision);
    return entry->denied_until.load(std::memory_order_relaxed) != 0 && denied_here(*entry, hash, decision);
  }
  Decision ask(std::string_view rule, std::string_view key, uint32_t cost);
  Client::Stats stats() const;
  std::string error() const;

 private:
  static bool allowed_here(const Leases::Entry& entry, int64_t now, Decision& decision);
  static bool denied_here(const Leases::Entry& entry, KeyHash hash, Decision& decision);
  Result<Answered> ask_daemon(std::string_view command, MonoTime deadline, MonoTime& sent);
  Result<std::unique_ptr<Connection>> connection(MonoTime deadline);
  Decision away(std::string_view rule, std::string_view key, uint32_t cost, const std::string& why);
  void run();
  void carry_out(std::span<const Leases::Order> orders);
  void carry_out_some(std::span<const Leases::Order> orders);
  void settle(const Leases::Order& order, const Result<Answered>& answered, MonoTime sent);

  const ClientOptions options_;
  const uint64_t seed_;
  Leases leases_;
  std::optional<Fallback> fallback_;

  mutable std::mutex mutex_;  // of all that follows, and of what only askers may do with leases_
  std::vector<std::unique_ptr<Connection>> idle_;
  MonoTime connect_at_{};  // not before
  Duration backoff_{0};
  Client::Stats stats_;
  std::string error_, unreachable_;
  bool stopping_ = false;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace tally::client
