// A rate limit around a request handler, by the client library. Reads a client's name from each line and
// prints what that client is answered.
//
//   g++ -std=c++17 handler.cc $(pkg-config --cflags --libs tally) -o handler && yes user:123 | head -n 200 |
//   ./handler /run/tallyd/tallyd.sock api
#include <tally/client.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <utility>

struct Request {
  std::string client;
};

struct Response {
  int status = 200;
  long retry_after_s = -1;  // -1: no such header
};

using Handler = std::function<Response(const Request&)>;

// Any other key is a mistake for tallyd, and never let in: requests without one share one count, and so do
// those whose keys differ only behind 1,024 bytes.
std::string countable(const std::string& key) { return key.empty() ? "-" : key.substr(0, 1024); }

// `next`, but for requests that are over the limit: those are answered 429, or 503 where tallyd is away and
// the client's options say closed.
Handler limited(tally::Client& client, std::string rule, Handler next) {
  return [&client, rule = std::move(rule), next = std::move(next)](const Request& request) {
    const tally::Decision decision = client.take(rule, countable(request.client));
    if (decision.allowed) return next(request);
    Response refusal;
    refusal.status = decision.reason == tally::Reason::away ? 503 : 429;
    if (decision.retry_after.count() >= 0) {
      refusal.retry_after_s =
          std::max<long>(1, std::chrono::ceil<std::chrono::seconds>(decision.retry_after).count());
    }
    return refusal;
  };
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::cerr << "usage: handler SOCKET RULE [open|closed [DEADLINE_MS]]\n";
    return 64;
  }
  tally::ClientOptions options;
  options.socket = argv[1];
  options.deadline =
      std::chrono::milliseconds(argc == 5 ? std::atol(argv[4]) : 50);  // no request waits longer
  options.when_away =
      argc > 3 && std::string(argv[3]) == "closed" ? tally::WhenAway::closed : tally::WhenAway::open;
  tally::Client client(options);

  const Handler handler = limited(client, argv[2], [](const Request&) { return Response{}; });
  for (Request request; std::getline(std::cin, request.client);) {
    const Response response = handler(request);
    std::cout << response.status;
    if (response.retry_after_s >= 0) std::cout << " Retry-After: " << response.retry_after_s;
    std::cout << '\n';
  }
}
