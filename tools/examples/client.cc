// The client library from C++. Prints how many of N requests were allowed.
//
//   g++ -std=c++20 client.cc $(pkg-config --cflags --libs tally) -o client && ./client /run/tallyd/tallyd.sock api user:123 1000
#include <tally/client.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: client SOCKET RULE KEY N\n";
    return 64;
  }
  tally::ClientOptions options;
  options.socket = argv[1];
  options.deadline = std::chrono::milliseconds(20);  // no request waits longer for its answer
  options.when_away = tally::WhenAway::closed;       // without a daemon nothing is allowed
  tally::Client client(options);

  const long n = std::atol(argv[4]);
  long allowed = 0;
  for (long i = 0; i < n; ++i) {
    const tally::Decision decision = client.take(argv[2], argv[3]);
    if (decision.allowed) ++allowed;  // else answer 429 with Retry-After: decision.retry_after
    if (decision.reason == tally::Reason::away && i == 0) std::cerr << client.error() << '\n';
  }
  std::cout << "allowed " << allowed << " of " << n << '\n';
}
