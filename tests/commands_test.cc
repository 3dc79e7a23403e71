// RESP commands that ask for a decision or about one -> typed requests.
#include "doors/commands.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "base/random.h"
#include "commands_fixture.h"
#include "doors/command_table.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {
size_t allocations = 0;  // of this program, for the test that counts them
}

// Not inlined, or g++ 12 takes malloc and delete for a pair that does not match.
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

TEST_CASE("CL.THROTTLE is a take under the inline rule by the limit that came with it") {
  Client client;
  for (const char* name : {"CL.THROTTLE", "cl.throttle", "Cl.ThRoTtLe", "RATER.LIMIT", "rater.limit"}) {
    CAPTURE(name);
    CHECK(client.ask({name, "u", "15", "30", "60", "4"}) == "");
    const Request& r = client.request;
    CHECK(r.kind == Kind::take);
    CHECK(r.form == Form::throttle);
    CHECK_FALSE(r.barrier);
    CHECK_FALSE(r.close);
    CHECK(r.fault == Fault::none);
    CHECK(r.rule == &client.rules.inline_rule());
    CHECK(r.limit == inline_limit(client.rules.inline_rule(), Share{0, 3}, 16, 30, 60s));
    CHECK(r.limit.limit == 16);
    CHECK(r.limit.emission == 2s);
    CHECK(r.key == "u");
    CHECK(r.cost == 4);
  }
  client.ask({"CL.THROTTLE", "u", "15", "30", "60"});
  CHECK(client.request.cost == 1);
}

TEST_CASE("a quantity of 0 peeks, one above the limit is a question like any other") {
  Client client;
  client.ask({"CL.THROTTLE", "u", "15", "30", "60", "0"});
  CHECK(client.request.kind == Kind::peek);
  CHECK(client.request.form == Form::throttle);
  CHECK(client.request.cost == 0);
  client.ask({"CL.THROTTLE", "u", "15", "30", "60", "17"});
  CHECK(client.request.kind == Kind::take);
  CHECK(client.request.cost == 17);
  client.ask({"CL.THROTTLE", "u", "15", "30", "60", "9223372036854775807"});
  CHECK(client.request.cost == UINT32_MAX);
  CHECK(UINT32_MAX > kLimitMax);  // so that the saturated cost, too, is above any limit
}

TEST_CASE("orders of keys: what, of which key, for how long") {
  Client client;
  const Request& r = client.request;
  CHECK(client.ask({"TALLY.BLOCK", "api", "u", "1500"}) == "");
  CHECK((r.kind == Kind::order && r.ordered == OrderKind::block && r.key == "u" && r.rule->name == "api" && r.lasts == 1500ms));
  CHECK(client.ask({"tally.allow", "(inline)", "u", "1"}) == "");
  CHECK((r.kind == Kind::order && r.ordered == OrderKind::allow && r.rule->name == kInlineRule));
  CHECK(client.ask({"TALLY.LIMIT", "feed", "u", "7", "31622400000"}) == "");
  CHECK((r.kind == Kind::order && r.ordered == OrderKind::limit && r.most == 7 && r.lasts == kOrderMax));
  CHECK(client.ask({"TALLY.LIFT", "api", "u"}) == "");
  CHECK((r.kind == Kind::lift && r.key == "u"));
  CHECK(client.ask({"TALLY.BLOCKS"}) == "");
  CHECK(r.kind == Kind::orders);
}

TEST_CASE("the busiest keys are asked for by number, by rule, or by neither") {
  Client client;
  const Request& r = client.request;
  CHECK(client.ask({"TALLY.TOP"}) == "");
  CHECK((r.kind == Kind::top && r.cost == 10 && r.rule == nullptr && r.barrier));
  CHECK(client.ask({"tally.top", "1000", "Rule", "(inline)"}) == "");
  CHECK((r.kind == Kind::top && r.cost == 1000 && r.rule->name == kInlineRule));
  CHECK(client.ask({"TALLY.TOP", "RULE", "api"}) == "");
  CHECK((r.kind == Kind::top && r.cost == 10 && r.rule->name == "api"));
  CHECK(client.ask({"TALLY.TOP", "1001"}) ==
        "-ERR value is not an integer or out of range: n must be 1000 at most, got '1001'\r\n");
  CHECK(client.ask({"TALLY.TOP", "RULE", "apj"}) == "-NORULE no rule 'apj'; did you mean 'api'?\r\n");
  CHECK(client.ask({"TALLY.TOP", "10", "api"}) == client.ask({"TALLY.TOP", "10", "api", "x"}));
  CHECK(client.ask({"TALLY.TOP", "RULE", "api", "3"}).starts_with("-ERR value is not an integer"));
}

TEST_CASE("an order that cannot be says why") {
  Client client;
  client.env.key_bytes_max = 2000;
  CHECK(client.ask({"TALLY.BLOCK", "api", "u", "0"}) == error(kOutOfRange + "ms must be 1 or more, got '0'"));
  CHECK(client.ask({"TALLY.BLOCK", "api", "u", "31622400001"}) == error(kOutOfRange + "ms must be 31622400000 at most, got '31622400001'"));
  CHECK(client.ask({"TALLY.LIMIT", "api", "u", "0", "1"}) == error(kOutOfRange + "n must be 1 or more, got '0'"));
  CHECK(client.ask({"TALLY.LIMIT", "api", "u", "2147483649", "1"}) == error(kOutOfRange + "n must be 2147483648 at most, got '2147483649'"));
  CHECK(client.ask({"TALLY.LIMIT", "feed", "u", "1801439850", "1"}) == "");  // of a bucket, as much as its time has room for
  CHECK(client.ask({"TALLY.LIMIT", "feed", "u", "1801439851", "1"}) == error("ERR n must be 1801439850 at most, got 1801439851: a bucket must fill within 417 days at its rule's rate"));
  CHECK(client.ask({"TALLY.LIMIT", "(inline)", "u", "1", "1"}).starts_with("-NORULE '(inline)' has no limit of its own"));
  CHECK(client.ask({"TALLY.BLOCK", "api", std::string(1001, 'k'), "1"}) ==
        error("ERR a key of which something is ordered must have 1000 bytes at most, got 1001"));
  CHECK(client.ask({"TALLY.BLOCK", "apl", "u", "1"}).starts_with("-NORULE no rule 'apl'"));
  CHECK(client.ask({"TALLY.LIFT", "api", ""}).starts_with("-ERR a key must have"));
}

TEST_CASE("CL.THROTTLE says which number is wrong, what it must be and what it was") {
  Client client;
  const auto numbers = [&](std::string burst, std::string count, std::string period,
                           std::string quantity = "1") {
    const std::string reply = client.ask({"CL.THROTTLE", "u", burst, count, period, quantity});
    CHECK(client.request.kind == Kind::answered);
    CHECK(client.request.fault == Fault::arguments);
    return reply;
  };
  CHECK(numbers("15", "0", "60") == error(kOutOfRange + "count must be 1 or more, got '0'"));
  CHECK(numbers("15", "-1", "60") == error(kOutOfRange + "count must be 1 or more, got '-1'"));
  CHECK(numbers("15", "x", "60") == error(kOutOfRange + "count must be 1 or more, got 'x'"));
  CHECK(numbers("15", "4294967296", "60") ==
        error(kOutOfRange + "count must be 4294967295 at most, got '4294967296'"));
  CHECK(numbers("-1", "30", "60") == error(kOutOfRange + "max_burst must be 0 or more, got '-1'"));
  CHECK(numbers("2147483648", "30", "60") ==
        error(kOutOfRange + "max_burst must be 2147483647 at most, got '2147483648'"));
  CHECK(numbers("15", "30", "0") == error(kOutOfRange + "period must be 1 or more, got '0'"));
  CHECK(numbers("15", "30", "0.5") == error(kOutOfRange + "period must be 1 or more, got '0.5'"));
  CHECK(numbers("15", "30", "9223372037") ==
        error(kOutOfRange + "period must be 9223372036 at most, got '9223372037'"));
  CHECK(numbers("15", "30", "60", "-1") == error(kOutOfRange + "quantity must be 0 or more, got '-1'"));
  CHECK(numbers("15", "30", "60", "9223372036854775808") ==
        error(kOutOfRange + "quantity must be 0 or more, got '9223372036854775808'"));
  CHECK(numbers("1\r\n2", "30", "60") == error(kOutOfRange + "max_burst must be 0 or more, got '1??2'"));
}

TEST_CASE("the largest numbers are taken, and a bucket that would span too long is refused") {
  Client client;
  CHECK(client.ask({"CL.THROTTLE", "u", "2147483647", "4294967295", "60"}) == "");
  CHECK(client.request.limit.limit == kLimitMax);
  CHECK(client.request.limit.emission == 14ns);                         // 60 s / 4294967295, rounded up
  CHECK(client.ask({"CL.THROTTLE", "u", "0", "1", "36028797"}) == "");  // the last whole second under 2^55 ns
  CHECK(client.request.limit.burst_span() <= kBurstSpanMax);
  CHECK(client.ask({"CL.THROTTLE", "u", "0", "1", "36028798"}) ==
        error(kOutOfRange + "max_burst + 1 = 1 requests at 1 per 36028798 s span more than the 36028797 s "
                            "that can be kept account of"));
  CHECK(client.request.fault == Fault::arguments);
  CHECK(client.ask({"CL.THROTTLE", "u", "2147483647", "1", "9223372036"}) != "");
  CHECK(client.ask({"CL.THROTTLE", "u", "2147483647", "60", "1"}) == "");  // 2^31 * 16,666,667 ns < 2^55
  CHECK(client.ask({"CL.THROTTLE", "u", "2147483647", "59", "1"}) != "");  // 2^31 * 16,949,153 ns > 2^55
}

TEST_CASE("a key has 1 byte to as many as are configured, of any kind") {
  Client client;
  const std::string longest(32, 'k');
  CHECK(client.ask({"CL.THROTTLE", longest, "1", "1", "1"}) == "");
  CHECK(client.request.key == longest);
  CHECK(client.ask({"CL.THROTTLE", longest + "k", "1", "1", "1"}) ==
        error("ERR a key must have 1 to 32 bytes, got 33"));
  CHECK(client.request.fault == Fault::arguments);
  CHECK(client.ask({"CL.THROTTLE", "", "1", "1", "1"}) == error("ERR a key must have 1 to 32 bytes, got 0"));
  const std::string binary("\0\r\n$\xff", 5);
  CHECK(client.ask({"TALLY.TAKE", "api", binary}) == "");
  CHECK(client.request.key == binary);
  for (const Words& words :
       {Words{"TALLY.TAKE", "api", ""}, Words{"TALLY.PEEK", "api", ""}, Words{"TALLY.GIVE", "api", ""},
        Words{"TALLY.RESET", "api", ""}, Words{"TALLY.EXPLAIN", "api", ""}, Words{"DEL", "a", ""}}) {
    CHECK(client.ask(words) == error("ERR a key must have 1 to 32 bytes, got 0"));
    CHECK(client.request.kind == Kind::answered);
  }
}

TEST_CASE("TALLY.TAKE is a take by the rule's own limit") {
  Client client;
  CHECK(client.ask({"TALLY.TAKE", "login", "u:1"}) == "");
  const Request& r = client.request;
  CHECK(r.kind == Kind::take);
  CHECK(r.form == Form::six);
  CHECK(r.rule == client.rules.find("login"));
  CHECK(r.limit == r.rule->limit);
  CHECK(r.key == "u:1");
  CHECK(r.cost == 1);
  CHECK(client.ask({"tally.take", "feed", "u", "12"}) == "");
  CHECK(r.cost == 12);
  CHECK(r.rule->shadow);
  client.ask({"tally.take", "feed", "u", "99999999999"});
  CHECK(r.cost == UINT32_MAX);
  CHECK(client.ask({"tally.take", "api", "u", "-1"}) ==
        error(kOutOfRange + "cost must be 0 or more, got '-1'"));
  CHECK(r.kind == Kind::answered);
}

TEST_CASE("TALLY.PEEK and a take of 0 ask what a take of 1 would be told") {
  Client client;
  for (const Words& words : {Words{"TALLY.PEEK", "api", "u"}, Words{"TALLY.TAKE", "api", "u", "0"}}) {
    CHECK(client.ask(words) == "");
    CHECK(client.request.kind == Kind::peek);
    CHECK(client.request.form == Form::six);
    CHECK(client.request.cost == 1);
  }
}

TEST_CASE("TALLY.GIVE gives back 1 or as many as it says") {
  Client client;
  CHECK(client.ask({"TALLY.GIVE", "api", "u"}) == "");
  CHECK(client.request.kind == Kind::give);
  CHECK(client.request.cost == 1);
  CHECK(client.ask({"TALLY.GIVE", "api", "u", "7"}) == "");
  CHECK(client.request.cost == 7);
  CHECK(client.ask({"TALLY.GIVE", "api", "u", "0"}) == error(kOutOfRange + "n must be 1 or more, got '0'"));
}

TEST_CASE("TALLY.LEASE takes a cost, if any, and more for later; TALLY.PUTBACK names what it brings") {
  Client client;
  CHECK(client.ask({"TALLY.LEASE", "api", "u", "2", "100"}) == "");
  CHECK(client.request.kind == Kind::take);
  CHECK(client.request.form == Form::lease);
  CHECK(client.request.cost == 2);
  CHECK(client.request.most == 100);
  CHECK(client.ask({"TALLY.LEASE", "api", "u", "0", "99999999999"}) == "");
  CHECK(client.request.kind == Kind::lease);
  CHECK(client.request.most == UINT32_MAX);
  CHECK(client.ask({"TALLY.PUTBACK", "api", "u", "7", "123456789012"}) == "");
  CHECK(client.request.kind == Kind::put_back);
  CHECK(client.request.cost == 7);
  CHECK(client.request.account == 123456789012);
  client.ask({"TALLY.TAKE", "api", "u"});
  CHECK(client.request.form == Form::six);
  CHECK(client.request.most == 0);
  CHECK(client.ask({"TALLY.LEASE", "api", "u", "-1", "0"}) == error(kOutOfRange + "cost must be 0 or more, got '-1'"));
  CHECK(client.ask({"TALLY.LEASE", "api", "u", "1", "x"}) == error(kOutOfRange + "most must be 0 or more, got 'x'"));
  CHECK(client.ask({"TALLY.PUTBACK", "api", "u", "0", "1"}) == error(kOutOfRange + "n must be 1 or more, got '0'"));
  CHECK(client.ask({"TALLY.PUTBACK", "api", "u", "1", "-5"}) == error(kOutOfRange + "account must be 0 or more, got '-5'"));
}

TEST_CASE("TALLY.RESET and DEL forget keys, and nothing behind them is read before that") {
  Client client;
  CHECK(client.ask({"TALLY.RESET", "login", "u"}) == "");
  CHECK(client.request.kind == Kind::reset);
  CHECK(client.request.rule == client.rules.find("login"));
  CHECK(client.request.barrier);
  CHECK(client.ask({"TALLY.RESET", "(inline)", "u"}) == "");
  CHECK(client.ask({"del", "a", "b", "c"}) == "");
  CHECK(client.request.kind == Kind::del);
  CHECK(client.request.rule == &client.rules.inline_rule());
  CHECK(client.request.keys == std::vector<std::string_view>{"a", "b", "c"});
  CHECK(client.request.barrier);
  client.ask({"PING"});
  CHECK(client.request.keys.empty());
  CHECK_FALSE(client.request.barrier);
}

TEST_CASE("an unknown rule is told with the nearest name") {
  Client client;
  for (const char* name : {"TALLY.TAKE", "TALLY.PEEK", "TALLY.GIVE", "TALLY.RESET", "TALLY.EXPLAIN"}) {
    CAPTURE(name);
    CHECK(client.ask({name, "lgoin", "u"}) == error("NORULE no rule 'lgoin'; did you mean 'login'?"));
    CHECK(client.request.fault == Fault::unknown_rule);
    CHECK(client.request.kind == Kind::answered);
  }
  CHECK(client.ask({"TALLY.TAKE", "quite-another", "u"}) == error("NORULE no rule 'quite-another'"));
  for (const char* name : {"TALLY.TAKE", "TALLY.PEEK", "TALLY.GIVE"}) {
    CHECK(client.ask({name, "(inline)", "u"}) ==
          error("NORULE '(inline)' has no limit of its own; use CL.THROTTLE"));
  }
  CHECK(client.ask({"TALLY.EXPLAIN", "(inline)", "u"}) == "");
  CHECK(client.request.kind == Kind::explain);
}

TEST_CASE("questions without a key") {
  Client client;
  CHECK(client.ask({"TALLY.PEERS"}) == "");
  CHECK(client.request.kind == Kind::peers);
  CHECK(client.ask({"TALLY.STATS"}) == "");
  CHECK(client.request.kind == Kind::stats);
  CHECK_FALSE(client.request.barrier);
  CHECK(client.ask({"TALLY.RELOAD"}) == "");
  CHECK(client.request.kind == Kind::reload);
  CHECK(client.request.barrier);
  CHECK(client.ask({"TALLY.FORGET", "127.0.0.1:8381"}) == "");
  CHECK(client.request.kind == Kind::forget);
  CHECK(client.request.key == "127.0.0.1:8381");
}

TEST_CASE("a wrong number of arguments is told by the command's name, whichever it is") {
  Client client;
  CHECK(client.ask({"CL.THROTTLE", "u", "1", "1"}) ==
        error("ERR wrong number of arguments for 'cl.throttle' command"));
  CHECK(client.ask({"Echo"}) == error("ERR wrong number of arguments for 'echo' command"));
  CHECK(client.ask({"CLIENT", "SETNAME"}) ==
        error("ERR wrong number of arguments for 'client|setname' command"));
  for (const Command& command : commands()) {
    CAPTURE(command.name);
    for (const size_t n : {size_t{command.args_min} - 1, size_t{command.args_max} + 1}) {
      if (n == 0 || n > 1000) continue;
      Words words(n, "1");
      words[0] = command.name;
      const std::string expected =
          std::string("ERR wrong number of arguments for '").append(command.name).append("' command");
      CHECK(client.ask(words) == error(expected));
      CHECK(client.request.fault == Fault::arguments);
    }
  }
}

TEST_CASE("an unknown command is told with its beginning") {
  Client client;
  CHECK(client.ask({"eval", "return 1", "0"}) ==
        error("ERR unknown command 'eval', with args beginning with: 'return 1' '0' "));
  CHECK(client.request.fault == Fault::unknown_command);
  CHECK(client.ask({""}) == error("ERR unknown command '', with args beginning with: "));
  CHECK(client.ask({"get\r\n", "\x01"}) == error("ERR unknown command 'get?"
                                                 "?', with args beginning with: '?' "));
  CHECK(client.ask(Words(1000, std::string(1000, 'x'))).size() < 500);
}

TEST_CASE("a command's name is itself in any case, and no other bytes are it") {
  Client client;
  for (const Command& command : commands()) {
    for (size_t i = 0; i < command.name.size(); ++i) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string name(command.name);
        name[i] = static_cast<char>(byte);
        const bool same = lower(name) == command.name;
        const Command* found = find_command(name);
        if (same != (found == &command)) FAIL_CHECK(name << " for " << command.name);
      }
    }
    CHECK(find_command(std::string(command.name) + "x") == nullptr);
    CHECK(find_command(command.name.substr(1)) == nullptr);
  }
}

TEST_CASE("a request remembers the protocol it was asked in") {
  Client client;
  client.ask({"TALLY.PEERS"});
  const Request before = client.request;
  client.ask({"HELLO", "3"});
  client.ask({"TALLY.PEERS"});
  CHECK(before.version == 2);
  CHECK(client.request.version == 3);
}

TEST_CASE("asking and answering for a decision allocates nothing") {
  Client client;
  const std::string pipeline =
      "*6\r\n$11\r\nCL.THROTTLE\r\n$26\r\na-key-too-long-to-be-short\r\n$2\r\n15\r\n$2\r\n30\r\n$2\r\n60\r\n$"
      "1\r\n1\r\n"
      "*4\r\n$10\r\nTALLY.TAKE\r\n$3\r\napi\r\n$26\r\na-key-too-long-to-be-short\r\n$1\r\n2\r\n"
      "*3\r\n$10\r\nTALLY.PEEK\r\n$3\r\napi\r\n$26\r\na-key-too-long-to-be-short\r\n";
  Parser parser;
  std::string out;
  const auto run = [&] {
    out.clear();
    std::string_view rest = pipeline;
    int decided = 0;
    while (parser.next(rest) == Parse::command) {
      rest.remove_prefix(parser.consumed);
      read_command(parser.args, client.connection, client.env, client.request, out);
      Writer writer(out, client.request.version);
      write_answer(writer, client.request, answer_of(Verdict::over_limit, 1000, 999, 1234567ms, 7654321ms));
      ++decided;
    }
    return decided;
  };
  CHECK(run() == 3);  // warm
  const size_t before = allocations;
  const int decided = run();
  const size_t after = allocations;
  CHECK(decided == 3);
  CHECK(after == before);
  CHECK(reply_size(out) > 0);
}

TEST_CASE("whatever words are asked, the answer is one whole reply or a whole question") {
  const uint64_t seed = test_seed(0x5eed10);
  CAPTURE(seed);
  Random random(seed);
  Client client;
  const Words vocabulary{"",        "0",        "1",       "0", "0", "0",
                         "-1",      "3",        "2",
                         "15",      "60",       "9223372036854775807",
                         "x",       "api",      "feed",
                         "lgoin",   "get",      "docs",
                         "info",    "list",     "*",
                         "setname", "auth",     "count",
                         "id",      "setinfo",  "lib-ver",
                         "save",    "(inline)", "default",
                         "\r\n",    "?*?",      "everything"};
  std::map<Kind, int> seen;
  for (int i = 0; i < 200'000; ++i) {
    const Command& command = commands()[random.below(commands().size())];
    Words words(random.chance(0.5) ? command.args_min : 1 + random.below(8));
    for (auto& word : words) word = vocabulary[random.below(vocabulary.size())];
    if (random.chance(0.95)) words[0] = command.name;
    if (random.chance(0.1))
      words.back() = std::string(random.below(100), static_cast<char>(random.below(256)));
    const std::string reply = client.ask(words);
    const Request& r = client.request;
    ++seen[r.kind];
    CAPTURE(i);
    if (r.kind == Kind::answered) {
      REQUIRE(reply_size(reply) == reply.size());
      REQUIRE((r.fault != Fault::none) == reply.starts_with("-"));
      continue;
    }
    REQUIRE(reply.empty());
    REQUIRE(r.fault == Fault::none);
    if (r.kind == Kind::forget) REQUIRE_FALSE(r.barrier);
    if (r.kind == Kind::peers || r.kind == Kind::stats || r.kind == Kind::reload || r.kind == Kind::forget || r.kind == Kind::orders || r.kind == Kind::top) continue;
    if (r.kind == Kind::take_all) {
      REQUIRE_FALSE(r.parts.empty());
      REQUIRE(r.key.empty());
      for (const Part& part : r.parts) {
        REQUIRE(part.rule != nullptr);
        REQUIRE(part.key.size() - 1 < client.env.key_bytes_max);
      }
      continue;
    }
    REQUIRE(r.rule != nullptr);
    if (r.kind == Kind::del) {
      REQUIRE_FALSE(r.keys.empty());
      continue;
    }
    REQUIRE(r.key.size() - 1 < client.env.key_bytes_max);
    if (r.kind != Kind::take && r.kind != Kind::peek) continue;
    REQUIRE(r.limit.limit >= 1);
    REQUIRE(r.limit.limit <= kLimitMax);
    if (r.limit.algorithm == Algorithm::token_bucket) REQUIRE(r.limit.burst_span() <= kBurstSpanMax);
  }
  CHECK(seen.size() == 18);  // all but metrics, which come over HTTP alone
}

TEST_CASE("a command of no words asks nothing and answers nothing") {
  Client client;
  CHECK(client.ask({}) == "");
  CHECK(client.request.kind == Kind::answered);
}

TEST_CASE("a command about a key has the limit that holds for it, or says that there is none to ask") {
  const RuleSet rules = make_rules_with_overrides();
  Client client;
  client.env.rules = &rules;
  for (const Words& command : {Words{"TALLY.TAKE", "plans", ""}, Words{"TALLY.PEEK", "plans", ""}, Words{"TALLY.GIVE", "plans", ""}, Words{"TALLY.EXPLAIN", "plans", ""},
                               Words{"TALLY.LEASE", "plans", "", "1", "5"}, Words{"TALLY.PUTBACK", "plans", "", "1", "5"}}) {
    CAPTURE(command.front());
    const auto ask = [&](const char* key) {
      Words words = command;
      words[2] = key;
      CHECK(client.ask(words) == "");
      return std::pair(client.request.limit.limit, client.request.treatment);
    };
    CHECK(ask("u") == std::pair(10u, Treatment::limited));
    CHECK(ask("vip") == std::pair(1000u, Treatment::limited));
    CHECK(ask("free:1") == std::pair(10u, Treatment::exempt));
    CHECK(ask("10.1.2.3") == std::pair(10u, Treatment::blocked));
    CHECK(ask("u").second == Treatment::limited);
  }
  client.ask({"TALLY.RESET", "plans", "10.1.2.3"});  // what was counted before it was blocked goes
  CHECK(client.request.kind == Kind::reset);
  CHECK(client.request.treatment == Treatment::limited);
  CHECK(client.ask({"TALLY.TAKE", "plans", "10.1.2.3", "x"}).starts_with("-ERR"));  // an error is no decision
  CHECK(client.request.treatment == Treatment::limited);
  client.ask({"CL.THROTTLE", "10.1.2.3", "1", "1", "1"});
  CHECK(client.request.treatment == Treatment::limited);
}
