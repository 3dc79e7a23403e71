// A process that uses the client library, told by lines what to ask.
//
// usage: tally_client_driver SOCKET open|closed|LIMIT DEADLINE_MS [TICK_MS]     LIMIT: a fallback of so many a minute
//   RULE KEY COST N        asks N times; answers: ALLOWED REASON_OF_THE_LAST REMAINING RETRY_AFTER_US
//   until RULE KEY N       asks until N were denied one behind the other; the same answer
//   fork RULE KEY N        a child asks N times, then this process as often; answers: ALLOWED_THERE ALLOWED_HERE
//   stats                  answers: ASKED RECEIVED SPENT PUT_BACK AWAY
//   error                  answers with Client::error
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

#include "tally/client.h"

namespace {

void answer(uint64_t allowed, const tally::Decision& last) {
  std::cout << allowed << ' ' << static_cast<int>(last.reason) << ' ' << last.remaining << ' ' << last.retry_after.count() << std::endl;
}

void ask_until(tally::Client& client, const std::string& rule, const std::string& key, uint64_t denials) {
  uint64_t allowed = 0;
  tally::Decision last;
  for (uint64_t denied = 0; denied < denials;) {
    last = client.take(rule, key);
    allowed += last.allowed;
    denied = last.allowed ? 0 : denied + 1;
  }
  answer(allowed, last);
}

uint64_t ask(tally::Client& client, const std::string& rule, const std::string& key, uint32_t cost, uint64_t n, tally::Decision& last) {
  uint64_t allowed = 0;
  for (; n > 0; --n) allowed += (last = client.take(rule, key, cost)).allowed;
  return allowed;
}

void ask_in_both(tally::Client& client, const std::string& rule, const std::string& key, uint64_t n) {
  int way[2];
  if (::pipe(way) != 0) std::abort();
  tally::Decision last;
  const pid_t child = ::fork();
  if (child == 0) {
    const uint64_t allowed = ask(client, rule, key, 1, n, last);
    ::_exit(::write(way[1], &allowed, sizeof allowed) == sizeof allowed ? 0 : 1);
  }
  ::close(way[1]);  // so that a child that died is seen
  const uint64_t here = ask(client, rule, key, 1, n, last);
  uint64_t there = 0;
  if (::read(way[0], &there, sizeof there) != sizeof there) std::abort();
  int status = 0;
  ::waitpid(child, &status, 0);
  std::cout << there << ' ' << here << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 64;
  const std::string when = argv[2];
  tally::ClientOptions options;
  options.socket = argv[1];
  options.when_away = when == "open" ? tally::WhenAway::open : when == "closed" ? tally::WhenAway::closed : tally::WhenAway::fallback;
  options.fallback = {static_cast<uint32_t>(std::atoi(argv[2])), std::chrono::minutes(1)};
  options.deadline = std::chrono::milliseconds(std::atoi(argv[3]));
  if (argc > 4) options.tick = std::chrono::milliseconds(std::atoi(argv[4]));
  tally::Client client(options);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string first, key;
    uint32_t cost = 0;
    uint64_t n = 0;
    words >> first;
    if (first == "stats") {
      const auto s = client.stats();
      std::cout << s.asked << ' ' << s.received << ' ' << s.spent << ' ' << s.put_back << ' ' << s.away << std::endl;
    } else if (first == "error") {
      std::cout << client.error() << std::endl;
    } else if (first == "fork" || first == "until") {
      std::string rule;
      words >> rule >> key >> n;
      first == "fork" ? ask_in_both(client, rule, key, n) : ask_until(client, rule, key, n);
    } else {
      words >> key >> cost >> n;
      tally::Decision last;
      const uint64_t allowed = ask(client, first, key, cost, n, last);
      answer(allowed, last);
    }
  }
  return 0;
}
