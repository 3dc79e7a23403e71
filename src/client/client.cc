// A Client: who asks, over which connection, and what is answered when nobody can be asked.
#include "tally/client.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <system_error>

#include "client/process.h"

namespace tally {
namespace {

constexpr size_t kKeyMax = 1024;

std::string socket_of(const std::string& told) {
  if (!told.empty()) return told;
  if (const char* path = std::getenv("TALLY_SOCKET"); path != nullptr && path[0] != '\0') return path;
  if (const char* dir = std::getenv("XDG_RUNTIME_DIR"); dir != nullptr && dir[0] == '/')
    if (const std::string path = std::string(dir) + "/tallyd.sock"; ::access(path.c_str(), F_OK) == 0)
      return path;
  return "/run/tallyd/tallyd.sock";
}

ClientOptions checked(ClientOptions options) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  require(options.deadline.count() >= 1 && options.deadline <= std::chrono::hours(1), "ClientOptions::deadline must be 1 us to 1 hour");
  require(options.tick >= std::chrono::milliseconds(1) && options.tick <= std::chrono::minutes(1), "ClientOptions::tick must be 1 ms to 1 minute");
  require(options.when_away <= WhenAway::fallback, "ClientOptions::when_away is none of open, closed, fallback");
  require(options.keys >= 16 && options.keys <= size_t{1} << 24, "ClientOptions::keys must be 16 to 2^24");
  if (options.when_away == WhenAway::fallback) {
    require(options.fallback.limit >= 1 && options.fallback.limit <= kLimitMax,
            "ClientOptions::fallback.limit must be 1 to 2^31");
    require(options.fallback.window >= kWindowMin && options.fallback.window <= kWindowMax,
            "ClientOptions::fallback.window must be 10 ms to 366 days");
  }
  options.socket = socket_of(options.socket);
  return options;
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(ClientOptions options)
      : options_(std::move(options)), process_(new client::Process(options_)) {}
  ~Impl() {
    client::Process* process = process_.load();
    if (process->is_ours()) delete process;  // else it is the parent's, whose threads and locks are not here
  }

  // Of this process: a child makes its own when it first asks.
  client::Process& process() {
    client::Process* process = process_.load(std::memory_order_acquire);
    if (process->is_ours()) return *process;
    auto* fresh = new client::Process(options_);
    if (process_.compare_exchange_strong(process, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *process;
  }
  client::Process& any() { return *process_.load(std::memory_order_acquire); }
  WhenAway when_away() const { return options_.when_away; }

 private:
  const ClientOptions options_;
  std::atomic<client::Process*> process_;
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(checked(std::move(options)))) {}
Client::~Client() = default;

Decision Client::take(std::string_view rule, std::string_view key, uint32_t cost) {
  Decision decision;
  // Or whoever chooses the key could choose to be let through.
  if (key.empty() || key.size() > kKeyMax) return decision;
  // What a parent holds is wiped from the child's copy, so this finds nothing there.
  if (cost != 0 && impl_->any().decide_here(rule, key, cost, decision)) return decision;
  try {
    return impl_->process().ask(rule, key, cost);
  } catch (const std::system_error&) {  // a child that may have no thread
    decision.allowed = impl_->when_away() == WhenAway::open;
    return decision;
  }
}

Client::Stats Client::stats() const { return impl_->process().stats(); }
std::string Client::error() const { return impl_->process().error(); }

}  // namespace tally
