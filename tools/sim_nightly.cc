#include "sim_nightly.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

namespace tally::sim {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kProgressEvery = std::chrono::milliseconds(500);

volatile std::sig_atomic_t ended = 0;
std::array<char, 128> running{};  // what to say of the seed that runs, should a CHECK end the process

void on_end(int) { ended = 1; }

void on_abort(int) {
  [[maybe_unused]] const auto written = write(STDOUT_FILENO, running.data(), std::strlen(running.data()));
  std::signal(SIGABRT, SIG_DFL);
  std::raise(SIGABRT);
}

void take_signals() {
  struct sigaction action {};
  action.sa_handler = on_end;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = on_abort;
  sigaction(SIGABRT, &action, nullptr);
}

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

}  // namespace

uint64_t fresh_seed() {
  std::random_device device;
  return (uint64_t{device()} << 16 | 1u) + 1'000'000;  // room for a night, and no seed that a test runs
}

uint64_t run_nightly(uint64_t base, const ClusterOptions& options,
                     const std::function<void(const ClusterResult&)>& failed) {
  take_signals();
  const auto began = Clock::now();
  const bool terminal = isatty(STDERR_FILENO) != 0;
  auto shown = began;
  uint64_t clusters = 0, failures = 0, admitted = 0, offered = 0;
  std::string seeds;
  std::printf("nightly: seeds from %llu on\n", static_cast<unsigned long long>(base));
  std::fflush(stdout);
  for (; ended == 0; ++clusters) {
    const uint64_t seed = base + clusters;
    std::snprintf(running.data(), running.size(), "seed %llu ended the run by itself: tally-sim --seed %llu --liveness\n",
                  static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
    const ClusterResult result = run_random_cluster(seed, options);
    offered += result.offered;
    admitted += result.admitted;
    if (terminal && Clock::now() - shown >= kProgressEvery) {
      shown = Clock::now();
      std::fprintf(stderr, "\r%llu clusters, %llu failed, %.1f a second ", static_cast<unsigned long long>(clusters + 1),
                   static_cast<unsigned long long>(failures), static_cast<double>(clusters + 1) / seconds_since(began));
    }
    if (result.violations.empty()) continue;
    ++failures;
    seeds += " " + std::to_string(seed);
    if (terminal) std::fprintf(stderr, "\r\033[K");
    failed(result);
    std::fflush(stdout);
  }
  if (terminal) std::fprintf(stderr, "\r\033[K");
  std::printf("nightly: %llu clusters from seed %llu in %.0f s, admitted %llu of %llu, %llu failed%s\n",
              static_cast<unsigned long long>(clusters), static_cast<unsigned long long>(base), seconds_since(began),
              static_cast<unsigned long long>(admitted), static_cast<unsigned long long>(offered),
              static_cast<unsigned long long>(failures), seeds.empty() ? "" : (":" + seeds).c_str());
  return failures;
}

}  // namespace tally::sim
