// What speaks for books in Redis to a node: which reports go out when, and what is still to be answered.
#include <doctest/doctest.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "daemon/books_peer.h"

using namespace tally;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr IdKey kKey = kPublicIdKey;

// Answers when it is told to.
class Store : public BooksStore {
 public:
  Store() : BooksStore(2s, 2) {}
  bool ready(uint32_t) const override { return true; }
  std::string address() const override { return "here"; }
  Counts counts() const override { return {}; }
  void call(uint32_t, BooksScript, Make make, Then then) override {
    const Words words = make("run1");
    const json asked = json::from_msgpack(words.arguments.front());
    calls.push_back({asked[4].size(), asked[4].empty() ? 0 : asked[4][0][14].get<uint64_t>(), std::move(then)});
  }
  // The oldest call: nothing is granted.
  void answer() {
    const Call call = std::move(calls.front());
    calls.pop_front();
    const auto packed = json::to_msgpack(json::array({1, 0, 1'750'000'000'000'000, json(std::vector<bool>(call.reports, false)), 1}));
    std::string text(packed.begin(), packed.end());
    redisReply reply{};
    reply.type = REDIS_REPLY_STRING;
    reply.str = text.data();
    reply.len = text.size();
    call.then(&reply);
  }

  struct Call {
    size_t reports;
    uint64_t waiting;  // of the first
    Then then;
  };
  std::deque<Call> calls;
};

struct Talk {
  Talk()
      : peer({store, [] { return Now{MonoTime(1h), WallTime(std::chrono::seconds(1'750'000'000))}; }, times, log}, BooksNames("tally"),
             {"a:1", 11, 22, kKey, 1, 2}, Pace{}, 1s) {
    peer.ask_past([](const Report&) { return BooksBegin{}; });
  }

  void say(int first, int last, uint64_t waiting = 0) {
    Header header;
    header.sender = 11;
    header.sequence = ++sequence;
    for (int i = first; i < last;) {
      DatagramWriter writer(header, kKey);
      for (; i < last; ++i) {
        Report report;
        report.key.bytes[0] = static_cast<uint8_t>(i >> 8);
        report.key.bytes[1] = static_cast<uint8_t>(i);
        report.terms = {Algorithm::fixed_window, 100, {}, 60s, {}};
        report.window = 1000;
        report.waiting = waiting;
        if (!writer.add(report)) break;
      }
      peer.say(writer.finish());
    }
    peer.flush();
  }
  std::vector<size_t> under_way() const {
    std::vector<size_t> sizes;
    for (const auto& call : store.calls) sizes.push_back(call.reports);
    return sizes;
  }

  Store store;
  TimeHistogram times;
  Log log{LogLevel::error, LogFormat::text};
  BooksPeer peer;
  uint64_t sequence = 0;
};

}  // namespace

TEST_CASE("who waits does not wait behind all that is reported") {
  Talk talk;
  talk.say(0, 1000);
  CHECK(talk.under_way() == std::vector<size_t>{64, 64});
  talk.say(2000, 2003, 5);
  CHECK(talk.under_way() == std::vector<size_t>{64, 64, 3});
  CHECK(talk.store.calls.back().waiting == 5);
  talk.say(900, 901, 7);  // it was reported, and is not sent yet
  CHECK(talk.under_way() == std::vector<size_t>{64, 64, 3, 1});
  CHECK(talk.store.calls.back().waiting == 7);
  size_t told = 0;
  while (!talk.store.calls.empty()) {
    told += talk.store.calls.front().reports;
    CHECK(talk.peer.busy());
    talk.store.answer();
  }
  CHECK(told == 1003);
  CHECK_FALSE(talk.peer.busy());
}

TEST_CASE("of what is reported again before it was sent the newest goes out, once") {
  Talk talk;
  talk.say(0, 128);
  talk.say(500, 600, 3);
  talk.say(500, 600);
  talk.say(500, 600, 4);
  size_t told = 0;
  while (!talk.store.calls.empty()) {
    told += talk.store.calls.front().reports;
    talk.store.answer();
  }
  CHECK(told == 128 + 100 + 100);
}
