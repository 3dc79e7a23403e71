#include "daemon/resolver.h"

#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "base/fail.h"

namespace tally {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLongest = std::chrono::minutes(1);  // between two looks, whatever is due

}  // namespace

Resolver::Resolver(std::vector<Wanted> wanted, Found found)
    : found_(std::move(found)), bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK_THAT(bell_);
  for (Wanted& one : wanted) names_.emplace_back(std::move(one));
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "resolver");
    run();
  });
}

Resolver::~Resolver() {
  stopping_.store(true);
  ring();
  thread_.join();
}

void Resolver::silent(uint16_t rank, bool silent) {
  const auto name = std::ranges::find(names_, rank, [](const Name& one) { return one.wanted.rank; });
  if (name == names_.end() || name->silent.exchange(silent) == silent || !silent) return;
  ring();  // it is due earlier than it was
}

void Resolver::ring() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(bell_.get(), &one, sizeof one);
}

void Resolver::run() {
  while (!stopping_.load()) {
    begin_what_is_due();
    wait();
    finish();
  }
}

Resolver::Clock::time_point Resolver::due(const Name& name) const {
  if (name.looked == Clock::time_point{}) return name.looked;
  return name.looked + (name.failed || name.silent.load() ? kLookAgainSoon : kLookAgain);
}

void Resolver::begin_what_is_due() {
  const auto now = Clock::now();
  auto under_way = static_cast<size_t>(
      std::ranges::count_if(names_, [](const Name& name) { return name.lookup != nullptr; }));
  // Those that waited longest first: with many names and a silent server, each has its turn.
  std::vector<Name*> waiting;
  for (Name& name : names_)
    if (!name.lookup && due(name) <= now) waiting.push_back(&name);
  std::ranges::stable_sort(waiting, {}, [](const Name* name) { return name->looked; });
  for (Name* name : waiting) {
    if (under_way++ >= kLookupsAtOnce) break;
    name->lookup = std::make_unique<Lookup>(name->wanted.entry);
  }
}

void Resolver::wait() {
  std::vector<pollfd> fds{{bell_.get(), POLLIN, 0}};
  milliseconds patience = kLongest;
  const auto now = Clock::now();
  const auto full = static_cast<size_t>(std::ranges::count_if(
                        names_, [](const Name& name) { return name.lookup != nullptr; })) >= kLookupsAtOnce;
  for (const Name& name : names_) {
    if (name.lookup) {
      if (name.lookup->done()) return;  // by the hosts file, at once
      name.lookup->watch(fds);
      patience = name.lookup->patience(patience);
    } else if (!full) {
      patience = std::clamp(std::chrono::ceil<milliseconds>(due(name) - now), milliseconds(0), patience);
    }
  }
  ::poll(fds.data(), fds.size(), static_cast<int>(patience.count()));
  uint64_t rung = 0;
  if (fds.front().revents != 0) [[maybe_unused]]
    const ssize_t n = ::read(bell_.get(), &rung, sizeof rung);
}

void Resolver::finish() {
  for (Name& name : names_) {
    if (!name.lookup) continue;
    name.lookup->process();
    if (!name.lookup->done()) continue;
    LookupResult result = name.lookup->take();
    name.lookup.reset();
    name.failed = result.addresses.empty();
    name.looked = Clock::now();
    found_(name.wanted.rank, std::move(result));
  }
}

}  // namespace tally
