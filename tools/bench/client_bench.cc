// Decisions by the client library, from one process; prints one line of JSON.
//
// usage: tally_client_bench SOCKET RULE THREADS KEYS SECONDS
//   Every thread asks for KEYS keys of its own in turn.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tally/client.h"

namespace {

struct alignas(64) Counted {
  uint64_t decisions = 0, allowed = 0;
};

void ask(tally::Client& client, const std::string& rule, const std::vector<std::string>& keys,
         const std::atomic<bool>& stop, Counted& counted) {
  uint64_t allowed = 0, decisions = 0;
  for (size_t i = 0; !stop.load(std::memory_order_relaxed); i = i + 1 < keys.size() ? i + 1 : 0) {
    allowed += client.take(rule, keys[i]).allowed;
    ++decisions;
  }
  counted = {decisions, allowed};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: tally_client_bench SOCKET RULE THREADS KEYS SECONDS\n");
    return 64;
  }
  const std::string rule = argv[2];
  const int threads = std::atoi(argv[3]), keys = std::atoi(argv[4]);
  const double seconds = std::atof(argv[5]);
  tally::ClientOptions options;
  options.socket = argv[1];
  options.when_away = tally::WhenAway::closed;
  tally::Client client(options);
  std::atomic<bool> stop{false};
  std::vector<Counted> counted(static_cast<size_t>(threads));
  std::vector<std::vector<std::string>> names(counted.size());
  for (size_t t = 0; t < names.size(); ++t)
    for (int k = 0; k < keys; ++k) names[t].push_back("user:" + std::to_string(t) + ":" + std::to_string(k));
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> running;
  for (size_t t = 0; t < counted.size(); ++t)
    running.emplace_back([&, t] { ask(client, rule, names[t], stop, counted[t]); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& thread : running) thread.join();
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Counted sum;
  for (const Counted& one : counted) {
    sum.decisions += one.decisions;
    sum.allowed += one.allowed;
  }
  const auto stats = client.stats();
  std::printf(
      "{\"decisions\": %llu, \"allowed\": %llu, \"seconds\": %.6f, \"asked\": %llu, \"received\": %llu, "
      "\"away\": %llu}\n",
      static_cast<unsigned long long>(sum.decisions), static_cast<unsigned long long>(sum.allowed), took,
      static_cast<unsigned long long>(stats.asked), static_cast<unsigned long long>(stats.received),
      static_cast<unsigned long long>(stats.away));
  if (stats.away != 0) std::fprintf(stderr, "%s\n", client.error().c_str());
  return 0;
}
