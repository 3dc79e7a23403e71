#include "daemon/lookup.h"

#include <ares.h>
#include <ares_nameser.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <tuple>

namespace tally {
namespace {

using asio::ip::udp;

constexpr int kTimeoutMs = 2'000;  // for a server's first answer; twice that the second time
constexpr int kTries = 2;
constexpr size_t kTargetsMax = 8;  // of SRV records

bool library_ready() {
  static std::once_flag once;
  static int status = ARES_SUCCESS;
  std::call_once(once, [] { status = ::ares_library_init(ARES_LIB_INIT_ALL); });
  return status == ARES_SUCCESS;
}

// Whether the world has no more to say; a server that is silent or in trouble may have.
bool is_final(int status) {
  return status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND;
}

std::vector<udp::endpoint> endpoints_of(const ares_addrinfo* found, uint16_t port) {
  std::vector<udp::endpoint> endpoints;
  for (const ares_addrinfo_node* node = found->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family == AF_INET) {
      sockaddr_in four;
      std::memcpy(&four, node->ai_addr, sizeof four);
      endpoints.emplace_back(asio::ip::address_v4(ntohl(four.sin_addr.s_addr)), port);
    } else if (node->ai_family == AF_INET6) {
      sockaddr_in6 six;
      std::memcpy(&six, node->ai_addr, sizeof six);
      asio::ip::address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &six.sin6_addr, bytes.size());
      endpoints.emplace_back(asio::ip::address_v6(bytes), port);
    }
  }
  std::ranges::sort(endpoints);  // servers turn them about with each answer
  return endpoints;
}

struct Target {  // a host whose addresses are asked for
  std::string host;
  uint16_t port = 0, priority = 0, weight = 0;
  std::vector<udp::endpoint> found;
};

}  // namespace

struct Lookup::State {
  // What a question of ours is about, for c-ares's callbacks.
  struct Question {
    State& state;
    size_t target;
  };

  ares_channel channel = nullptr;
  std::vector<Target> targets;
  std::vector<std::unique_ptr<Question>> questions;
  size_t pending = 0;
  bool ending = false;
  bool complete = true;
  std::string error;

  State() {
    ares_options options{};
    options.timeout = kTimeoutMs;
    options.tries = kTries;
    const int status = library_ready()
                           ? ::ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES)
                           : ARES_ENOTINITIALIZED;
    if (status != ARES_SUCCESS) fail(status), channel = nullptr;
  }
  ~State() {
    ending = true;
    if (channel != nullptr) ::ares_destroy(channel);  // calls back what is pending
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void fail(int status) {
    complete = complete && is_final(status);
    error = ::ares_strerror(status);
  }

  void ask_services(const std::string& name) {
    if (channel == nullptr) return;
    ++pending;
    ::ares_search(
        channel, name.c_str(), ns_c_in, ns_t_srv,
        [](void* self, int status, int, unsigned char* answer, int length) {
          static_cast<State*>(self)->on_services(status, answer, length);
        },
        this);
  }

  void on_services(int status, const unsigned char* answer, int length) {
    --pending;
    if (ending) return;
    ares_srv_reply* records = nullptr;
    if (status == ARES_SUCCESS) status = ::ares_parse_srv_reply(answer, length, &records);
    if (status != ARES_SUCCESS) return fail(status);
    for (const ares_srv_reply* record = records; record != nullptr; record = record->next) {
      const std::string host = record->host;
      // "." says that the service is not there (RFC 2782).
      if (!host.empty() && host != ".")
        targets.push_back(
            {host.ends_with('.') ? host : host + ".", record->port, record->priority, record->weight, {}});
    }
    ::ares_free_data(records);
    // By weight, not by chance: these are the addresses of one node, there is no load to be shared out.
    std::ranges::stable_sort(
        targets, {}, [](const Target& t) { return std::tuple(t.priority, -int{t.weight}, t.host, t.port); });
    if (targets.empty()) return fail(ARES_ENODATA);
    if (targets.size() > kTargetsMax) targets.resize(kTargetsMax);
    ask_addresses();
  }

  void ask_addresses() {
    if (channel == nullptr) return;
    for (size_t i = 0; i < targets.size(); ++i)
      for (const int family : {AF_INET, AF_INET6}) {  // apart: an answer of one counts without the other
        ares_addrinfo_hints hints{};
        hints.ai_family = family;
        hints.ai_socktype = SOCK_DGRAM;
        hints.ai_flags = ARES_AI_NOSORT;
        ++pending;
        questions.push_back(std::make_unique<Question>(Question{*this, i}));
        ::ares_getaddrinfo(
            channel, targets[i].host.c_str(), nullptr, &hints,
            [](void* self, int status, int, ares_addrinfo* found) {
              const auto* question = static_cast<Question*>(self);
              question->state.on_addresses(question->target, status, found);
            },
            questions.back().get());
      }
  }

  void on_addresses(size_t target, int status, ares_addrinfo* found) {
    --pending;
    if (status == ARES_SUCCESS && !ending) {
      const auto more = endpoints_of(found, targets[target].port);
      auto& all = targets[target].found;
      all.insert(all.end(), more.begin(), more.end());
      std::ranges::sort(all);
    } else if (!ending) {
      fail(status);
    }
    if (found != nullptr) ::ares_freeaddrinfo(found);
  }
};

Lookup::Lookup(const PeerEntry& entry) : state_(std::make_unique<State>()) {
  if (entry.kind == PeerEntry::Kind::service) {
    state_->ask_services(entry.host);
  } else {
    state_->targets.push_back({entry.host, entry.port, 0, 0, {}});
    state_->ask_addresses();
  }
}

Lookup::~Lookup() = default;

bool Lookup::done() const { return state_->pending == 0; }

void Lookup::watch(std::vector<pollfd>& fds) const {
  if (state_->channel == nullptr) return;
  ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
  const int bits = ::ares_getsock(state_->channel, sockets, ARES_GETSOCK_MAXNUM);
  for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    short events = 0;
    if (ARES_GETSOCK_READABLE(bits, i)) events |= POLLIN;
    if (ARES_GETSOCK_WRITABLE(bits, i)) events |= POLLOUT;
    if (events != 0) fds.push_back({sockets[i], events, 0});
  }
}

std::chrono::milliseconds Lookup::patience(std::chrono::milliseconds most) const {
  timeval limit{}, left{};
  limit.tv_sec = most.count() / 1000;
  limit.tv_usec = most.count() % 1000 * 1000;
  if (state_->channel == nullptr) return most;
  const timeval* until = ::ares_timeout(state_->channel, &limit, &left);
  return std::chrono::milliseconds(until->tv_sec * 1000 + (until->tv_usec + 999) / 1000);
}

void Lookup::process() {
  if (state_->channel == nullptr) return;
  std::vector<pollfd> fds;
  watch(fds);
  ::poll(fds.data(), fds.size(), 0);
  if (fds.empty()) ::ares_process_fd(state_->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  for (const pollfd& one : fds)
    ::ares_process_fd(state_->channel,
                      (one.revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? one.fd : ARES_SOCKET_BAD,
                      (one.revents & POLLOUT) != 0 ? one.fd : ARES_SOCKET_BAD);
}

LookupResult Lookup::take() {
  LookupResult result;
  for (const Target& target : state_->targets)
    for (const auto& endpoint : target.found)
      if (std::ranges::find(result.addresses, endpoint) == result.addresses.end())
        result.addresses.push_back(endpoint);
  result.complete = state_->complete;
  if (result.addresses.empty() || !result.complete)
    result.error = state_->error.empty() ? "no address" : state_->error;
  return result;
}

}  // namespace tally
