// A command that repeats the last one but for its key is read as if it had been read in full, and nothing else is taken for one.
#include "doors/repeat.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "commands_fixture.h"
#include "doors/resp.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

std::string bytes_of(const Words& words) {
  std::string bytes = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return bytes;
}

// A connection that reads in full, and remembers.
struct Reader {
  Client client;
  Parser parser;
  Repeat repeat;

  // Reads the command in front of `input` in full; false where that is none that asks about a key.
  bool read(std::string_view input) {
    if (parser.next(input) != Parse::command) return parser.forget(), false;
    std::string reply;
    read_command(parser.args, client.connection, client.env, client.request, reply);
    return client.request.kind != Kind::answered;
  }
  void remember(std::string_view input) {
    read(input);
    repeat.remember(input.substr(0, parser.consumed), client.request, client.env);
  }
  // What the memory makes of it, which must be what reading in full does. Whether it made anything.
  bool repeats(std::string_view input) {
    Request quick;
    quick.keys.assign(3, "left over");
    const size_t bytes = repeat.read(input, client.env, quick);
    if (bytes == 0) return false;
    REQUIRE(read(input));
    const Request& full = client.request;
    CHECK(bytes == parser.consumed);
    CHECK(quick.kind == full.kind);
    CHECK(quick.form == full.form);
    CHECK(quick.most == full.most);
    CHECK(quick.barrier == full.barrier);
    CHECK(quick.close == full.close);
    CHECK(quick.fault == full.fault);
    CHECK(quick.version == full.version);
    CHECK(quick.cost == full.cost);
    CHECK(quick.treatment == full.treatment);
    CHECK(quick.rule == full.rule);
    CHECK(quick.limit == full.limit);
    CHECK(quick.key == full.key);
    CHECK(quick.keys.empty());
    return true;
  }
};

const std::vector<Words> kQuestions{{"CL.THROTTLE", "k", "15", "30", "60", "1"}, {"cl.throttle", "k", "15", "30", "60"}, {"TALLY.TAKE", "api", "k"},
                                    {"TALLY.TAKE", "login", "k", "3"}, {"TALLY.PEEK", "feed", "k"}, {"TALLY.GIVE", "api", "k", "2"},
                                    {"TALLY.LEASE", "api", "k", "1", "500"}};

}  // namespace

TEST_CASE("each question is read again with other keys, whatever their length") {
  for (const Words& question : kQuestions) {
    Reader reader;
    const size_t key_at = question[0][0] == 'T' ? 2 : 1;
    reader.remember(bytes_of(question));
    for (const size_t size : {size_t{1}, size_t{9}, size_t{10}, size_t{32}}) {
      Words next = question;
      next[key_at] = std::string(size, '$');
      const std::string bytes = bytes_of(next);
      CHECK(reader.repeats(bytes));
      CHECK(reader.repeats(bytes + "*1\r\n$4\r\nPING\r\n"));
      for (size_t cut = 0; cut < bytes.size(); ++cut) CHECK(!reader.repeats(std::string_view(bytes).substr(0, cut)));
    }
    for (const std::string& key : {std::string(), std::string(33, 'x')}) {  // refused by reading in full
      Words next = question;
      next[key_at] = key;
      CHECK(!reader.repeats(bytes_of(next)));
    }
  }
}

TEST_CASE("no byte can be another one, but in the key") {
  Random random(test_seed(20261129));
  for (const Words& question : kQuestions) {
    Reader reader;
    reader.remember(bytes_of(question));
    int taken = 0;
    for (int i = 0; i < 24'000; ++i) {
      std::string bytes = bytes_of(kQuestions[random.below(kQuestions.size())]);
      for (uint64_t n = random.below(3); n > 0; --n) bytes[random.below(bytes.size())] = "0123456789\r\n$*ak"[random.below(16)];
      taken += reader.repeats(bytes);
    }
    CHECK(taken > 1'000);
    CHECK(taken < 10'000);
  }
}

TEST_CASE("what is no such question is not remembered, and other rules or another connection end a memory") {
  const std::string take = bytes_of(kQuestions[2]);
  for (const std::string& other : {bytes_of({"PING"}), bytes_of({"DEL", "k"}), bytes_of({"TALLY.RESET", "api", "k"}), bytes_of({"TALLY.TAKE", "nobody", "k"}),
                                   bytes_of({"TALLY.PEERS"}), bytes_of({"HELLO", "3"}), std::string("TALLY.TAKE api k\r\n"),
                                   bytes_of({"CL.THROTTLE", "k", "15", "30", "60", std::string(200, '0') + "1"})}) {
    Reader reader;
    reader.remember(take);
    REQUIRE(reader.repeats(take));
    reader.remember(other);
    CHECK(!reader.repeats(take));
    CHECK(reader.repeat.read(other, reader.client.env, reader.client.request) == 0);
  }
  Reader reader;
  reader.remember(take);
  ++reader.client.env.rules_number;
  CHECK(!reader.repeats(take));
}

TEST_CASE("a key with an override gets its own limit from a command that is repeated, and the next key the rule's again") {
  const RuleSet rules = make_rules_with_overrides();
  for (const char* first : {"u", "vip", "free:1", "10.1.2.3"}) {
    Reader reader;
    reader.client.env.rules = &rules;
    reader.remember(bytes_of({"TALLY.TAKE", "plans", first}));
    for (const char* key : {"u", "vip", "free:1", "10.1.2.3", "v"}) {
      CAPTURE(key);
      CHECK(reader.repeats(bytes_of({"TALLY.TAKE", "plans", key})));  // compares limit and treatment
    }
  }
}
