// All that one process has of its daemon: what it holds, its connections, and the thread that asks ahead of
// need and puts back.
//
// Thread rule: every call from any thread. Only of the process that made it (is_ours).
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
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

  bool is_ours() const;
  // False where it has to be asked. Requires cost > 0.
  bool decide_here(std::string_view rule, std::string_view key, uint32_t cost, Decision& decision) {
    const KeyHash hash = hash_key(key, seed_, rule_seed_of(rule));
    Leases::Entry* entry = leases_.find(hash);
    if (entry == nullptr) return false;
    const int64_t end = Leases::spend(*entry, hash, cost);
    if (end == Leases::kNothing && entry->denied_until.load(std::memory_order_relaxed) == 0) return false;
    return decided_here(*entry, hash, end, cost, decision);
  }
  Decision ask(std::string_view rule, std::string_view key, uint32_t cost);
  Client::Stats stats() const;
  std::string error() const;

 private:
  static bool decided_here(Leases::Entry& entry, KeyHash hash, int64_t end, uint32_t cost,
                           Decision& decision);
  Result<Answered> ask_daemon(std::string_view command, MonoTime deadline, MonoTime& sent);
  Result<std::unique_ptr<Connection>> connection(MonoTime deadline);
  Decision away(std::string_view rule, std::string_view key, uint32_t cost, const std::string& why);
  void run();
  void carry_out(const std::vector<Leases::Order>& orders);
  void settle(const Leases::Order& order, const Result<Answered>& answered, MonoTime sent);

  const ClientOptions options_;
  const pid_t pid_;
  const uint64_t seed_;
  Leases leases_;
  std::optional<Fallback> fallback_;

  mutable std::mutex mutex_;  // of all that follows, and of what only askers may do with leases_
  std::vector<std::unique_ptr<Connection>> idle_;
  MonoTime connect_at_{};  // not before
  Duration backoff_{0};
  Client::Stats stats_;
  std::string error_;
  bool stopping_ = false;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace tally::client
