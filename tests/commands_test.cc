// RESP commands -> typed requests, and typed answers -> RESP replies.
#include "doors/commands.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <new>
#include <ostream>
#include <string>
#include <vector>

#include "base/random.h"
#include "doors/command_table.h"
#include "seed.h"

using namespace tally;
using namespace tally::resp;
using namespace std::chrono_literals;

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

namespace {

using Kind = Request::Kind;
using Words = std::vector<std::string>;

Rule window_rule(std::string name, uint32_t limit, Duration window, uint32_t ppm) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.limit = limit;
  rule.limit.window = window;
  rule.max_overcount.ppm = ppm;
  return rule;
}

RuleSet make_rules() {
  std::vector<Rule> rules{window_rule("api", 1000, 1min, 50'000), window_rule("login", 5, 15min, 0)};
  rules[1].on_isolation = OnIsolation::closed;
  Rule feed;
  feed.name = "feed";
  feed.limit.algorithm = Algorithm::token_bucket;
  feed.limit.limit = 100;
  feed.limit.emission = 20ms;
  feed.rate_count = 50;
  feed.rate_period = 1s;
  feed.max_overcount.unbounded = true;
  feed.shadow = true;
  rules.push_back(feed);
  Rule inline_rule;
  inline_rule.name = kInlineRule;
  return RuleSet(std::move(rules), inline_rule, Share{0, 3}, kPublicIdKey);
}

// A client's side of one connection, with what the worker would hold for it.
struct Client {
  RuleSet rules = make_rules();
  Connection connection{.id = 7, .version = 2, .name = {}, .library = {}, .library_version = {}};
  Env env;
  Request request;
  std::string reply;
  Words words;  // the request's views point into these

  Client() {
    env.rules = &rules;
    env.key_bytes_max = 32;
    env.version = "1.2.3";
    env.node = "edge-1";
    env.now = WallTime(1'700'000'000s + 123'456'789ns);
    env.uptime = 90'061s;
    env.connections = 2;
    env.connections_max = 10'000;
  }

  // The reply, or "" where the request waits for somebody to decide.
  std::string ask(Words args) {
    words = std::move(args);
    const std::vector<std::string_view> views(words.begin(), words.end());
    reply.clear();
    read_command(views, connection, env, request, reply);
    return reply;
  }
};

std::string error(std::string_view text) { return std::string("-").append(text).append("\r\n"); }
std::string bulk(std::string_view text) {
  std::string out;
  Writer(out).bulk(text);
  return out;
}

// The length of the one whole reply at the beginning of `text`, npos where there is none.
size_t reply_size(std::string_view text, int depth = 0) {
  const size_t line = text.find("\r\n");
  if (line == std::string_view::npos || line == 0 || depth > 8) return std::string_view::npos;
  size_t at = line + 2;
  int64_t n = 0;
  const char kind = text[0];
  if (std::string_view("+-").find(kind) != std::string_view::npos) return at;
  if (kind == '_') return line == 1 ? at : std::string_view::npos;
  if (kind == '#') return line == 2 ? at : std::string_view::npos;
  if (kind == ',') return line > 1 ? at : std::string_view::npos;
  if (!parse_integer(text.substr(1, line - 1), n)) return std::string_view::npos;
  if (kind == ':') return at;
  if (kind == '$') {
    if (n == -1) return at;
    const size_t end = at + static_cast<size_t>(n);
    return n >= 0 && text.size() >= end + 2 && text.substr(end, 2) == "\r\n" ? end + 2
                                                                             : std::string_view::npos;
  }
  if (kind != '*' && kind != '%') return std::string_view::npos;
  for (int64_t items = kind == '%' ? 2 * n : n; items > 0; --items) {
    const size_t size = reply_size(text.substr(at), depth + 1);
    if (size == std::string_view::npos) return size;
    at += size;
  }
  return at;
}

Answer answer_of(Verdict verdict, uint32_t limit, uint32_t remaining, Duration retry_after,
                 Duration reset_after) {
  return {verdict, limit, remaining, retry_after, reset_after};
}

std::string throttle_text(const Answer& answer) {
  std::string out;
  Writer writer(out);
  write_throttle(writer, answer);
  return out;
}

std::string six_text(const Answer& answer, Reason reason) {
  std::string out;
  Writer writer(out);
  write_six(writer, answer, reason);
  return out;
}

const std::string kOutOfRange = "ERR value is not an integer or out of range: ";

}  // namespace

TEST_CASE("CL.THROTTLE is a take under the inline rule by the limit that came with it") {
  Client client;
  for (const char* name : {"CL.THROTTLE", "cl.throttle", "Cl.ThRoTtLe", "RATER.LIMIT", "rater.limit"}) {
    CAPTURE(name);
    CHECK(client.ask({name, "u", "15", "30", "60", "4"}) == "");
    const Request& r = client.request;
    CHECK(r.kind == Kind::take);
    CHECK(r.throttle);
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
  CHECK(client.request.throttle);
  CHECK(client.request.cost == 0);
  client.ask({"CL.THROTTLE", "u", "15", "30", "60", "17"});
  CHECK(client.request.kind == Kind::take);
  CHECK(client.request.cost == 17);
  client.ask({"CL.THROTTLE", "u", "15", "30", "60", "9223372036854775807"});
  CHECK(client.request.cost == UINT32_MAX);
  CHECK(UINT32_MAX > kLimitMax);  // so that the saturated cost, too, is above any limit
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
  CHECK_FALSE(r.throttle);
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
    CHECK_FALSE(client.request.throttle);
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

TEST_CASE("PING and ECHO") {
  Client client;
  CHECK(client.ask({"PING"}) == "+PONG\r\n");
  CHECK(client.ask({"ping", "a\r\nb"}) == bulk("a\r\nb"));
  CHECK(client.ask({"ECHO", "x"}) == bulk("x"));
}

TEST_CASE("HELLO chooses the protocol and tells who is there, and is a barrier") {
  Client client;
  const std::string fields =
      "$6\r\nserver\r\n$6\r\ntallyd\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:";
  const std::string rest =
      "\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$"
      "7\r\nmodules\r\n*0\r\n";
  CHECK(client.ask({"HELLO"}) == "*14\r\n" + fields + "2" + rest);
  CHECK(client.request.barrier);
  CHECK(client.ask({"hello", "3"}) == "%7\r\n" + fields + "3" + rest);
  CHECK(client.connection.version == 3);
  CHECK(client.request.version == 3);
  CHECK(client.ask({"HELLO"}) == "%7\r\n" + fields + "3" + rest);
  CHECK(client.ask({"HELLO", "2", "AUTH", "default", "pw", "SETNAME", "me"}) ==
        "*14\r\n" + fields + "2" + rest);
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "me");
}

TEST_CASE("a HELLO that fails changes nothing") {
  Client client;
  CHECK(client.ask({"HELLO", "4"}) == error("NOPROTO unsupported protocol version"));
  CHECK(client.ask({"HELLO", "x"}) == error("ERR Protocol version is not an integer or out of range"));
  CHECK(client.ask({"HELLO", "3", "SETNAME"}) == error("ERR Syntax error in HELLO option 'SETNAME'"));
  CHECK(client.ask({"HELLO", "3", "SETNAME", "me", "AUTH", "bob", "pw"}) ==
        error("WRONGPASS invalid username-password pair or user is disabled."));
  CHECK(client.request.fault == Fault::authentication);
  CHECK(client.ask({"HELLO", "3", "SETNAME", "a b"}) ==
        error("ERR Client names cannot contain spaces, newlines or special characters."));
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "");
}

TEST_CASE("AUTH answers as a Redis without passwords") {
  Client client;
  CHECK(client.ask({"AUTH", "pw"}) == error("ERR AUTH <password> called without any password configured for "
                                            "the default user. Are you sure your "
                                            "configuration is correct?"));
  CHECK(client.ask({"AUTH", "default", "pw"}) == "+OK\r\n");
  CHECK(client.ask({"AUTH", "bob", "pw"}) ==
        error("WRONGPASS invalid username-password pair or user is disabled."));
}

TEST_CASE("there is database 0") {
  Client client;
  CHECK(client.ask({"SELECT", "0"}) == "+OK\r\n");
  CHECK(client.ask({"SELECT", "1"}) == error("ERR DB index is out of range"));
  CHECK(client.ask({"SELECT", "x"}) == error("ERR value is not an integer or out of range"));
}

TEST_CASE("CLIENT keeps what a client says of itself") {
  Client client;
  CHECK(client.ask({"CLIENT", "ID"}) == ":7\r\n");
  CHECK(client.ask({"CLIENT", "GETNAME"}) == "$-1\r\n");
  CHECK(client.ask({"client", "setname", "worker-1"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "GETNAME"}) == bulk("worker-1"));
  CHECK(client.ask({"CLIENT", "SETINFO", "LIB-NAME", "redis-py"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "SETINFO", "lib-ver", "4.3.4"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "LIST"}) ==
        bulk("id=7 name=worker-1 db=0 user=default resp=2 lib-name=redis-py lib-ver=4.3.4\n"));
  CHECK(client.ask({"CLIENT", "SETINFO", "LIB-AGE", "3"}) == error("ERR Unrecognized option 'LIB-AGE'"));
  CHECK(client.ask({"CLIENT", "SETNAME", "a b"}) ==
        error("ERR Client names cannot contain spaces, newlines or special characters."));
  CHECK(client.ask({"CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"}) == "+OK\r\n");
  CHECK(client.ask({"CLIENT", "KILL", "ID", "7"}) ==
        error("ERR unknown subcommand 'KILL'. CLIENT has SETNAME, GETNAME, ID, SETINFO, LIST, INFO."));
  CHECK(client.ask({"CLIENT", "SETNAME", std::string(100'000, 'x')}).starts_with("-ERR"));
}

TEST_CASE("INFO has what clients look for, by section or as a whole") {
  Client client;
  const std::string all = client.ask({"INFO"});
  for (const char* line : {"redis_version:7.0.0\r\n", "redis_mode:standalone\r\n", "loading:0\r\n",
                           "role:master\r\n", "tallyd_version:1.2.3\r\n", "uptime_in_seconds:90061\r\n",
                           "uptime_in_days:1\r\n", "connected_clients:2\r\n", "# Server\r\n"}) {
    CAPTURE(line);
    CHECK(all.find(line) != std::string::npos);
  }
  CHECK(client.ask({"INFO", "everything"}) == all);
  CHECK(client.ask({"info", "REPLICATION"}) ==
        bulk("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"));
  CHECK(client.ask({"info", "persistence", "cluster"}) ==
        bulk("# Persistence\r\nloading:0\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n"));
  CHECK(client.ask({"info", "nonsense"}) == bulk(""));
}

TEST_CASE("COMMAND lists each command once, with its arity and keys") {
  Client client;
  const std::string n = std::to_string(commands().size());
  CHECK(client.ask({"COMMAND", "COUNT"}) == ":" + n + "\r\n");
  CHECK(
      client.ask({"COMMAND"})
          .starts_with("*" + n + "\r\n*10\r\n$11\r\ncl.throttle\r\n:-5\r\n*2\r\n+write\r\n+fast\r\n:1\r\n"));
  CHECK(client.ask({"COMMAND", "INFO", "tally.PEEK", "nonsense", "post"}) ==
        "*3\r\n*10\r\n$10\r\ntally.peek\r\n:3\r\n*2\r\n+readonly\r\n+fast\r\n:2\r\n:2\r\n:1\r\n*0\r\n*0\r\n*"
        "0\r\n*0\r\n"
        "$-1\r\n$-1\r\n");
  client.connection.version = 3;
  CHECK(client.ask({"COMMAND", "DOCS"})
            .starts_with("%" + n + "\r\n$11\r\ncl.throttle\r\n%4\r\n$7\r\nsummary\r\n"));
  CHECK(client.ask({"COMMAND", "DOCS", "echo", "nonsense"}) ==
        "%1\r\n$4\r\necho\r\n%4\r\n$7\r\nsummary\r\n$19\r\nAnswers the "
        "message\r\n$5\r\nsince\r\n$5\r\n0.1.0\r\n"
        "$5\r\ngroup\r\n$10\r\nconnection\r\n$9\r\narguments\r\n*1\r\n%2\r\n$4\r\nname\r\n$7\r\nmessage\r\n"
        "$4\r\ntype\r\n$6\r\nstring\r\n");
  CHECK(client.ask({"COMMAND", "LIST"}).starts_with("*" + n + "\r\n$11\r\ncl.throttle\r\n"));
}

TEST_CASE("CONFIG GET answers what benchmarks look up") {
  Client client;
  CHECK(client.ask({"CONFIG", "GET", "save"}) == "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask({"config", "get", "appendonly"}) == "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n");
  CHECK(client.ask({"CONFIG", "GET", "max*", "SAV?"}) ==
        "*6\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask({"CONFIG", "GET", "nonsense"}) == "*0\r\n");
  CHECK(client.ask({"CONFIG", "GET", "*****a*****b***"}) == "*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n");
  CHECK(client.ask({"CONFIG", "GET"}) == error("ERR wrong number of arguments for 'config|get' command"));
  CHECK(client.ask({"CONFIG", "SET", "save", ""}).starts_with("-ERR unknown subcommand 'SET'"));
}

TEST_CASE("TIME is the clock of the batch") {
  Client client;
  CHECK(client.ask({"TIME"}) == "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n");
}

TEST_CASE("QUIT answers and closes, RESET puts everything back") {
  Client client;
  client.ask({"HELLO", "3", "SETNAME", "me"});
  CHECK(client.ask({"RESET"}) == "+RESET\r\n");
  CHECK(client.request.barrier);
  CHECK_FALSE(client.request.close);
  CHECK(client.connection.version == 2);
  CHECK(client.connection.name == "");
  CHECK(client.ask({"QUIT"}) == "+OK\r\n");
  CHECK(client.request.close);
  CHECK(client.request.barrier);
}

TEST_CASE(
    "HTTP on a RESP port is refused and the connection closed, so that a web page can send no commands") {
  Client client;
  for (const char* word : {"POST", "Host:"}) {
    CHECK(client.ask({word, "/", "HTTP/1.1"}) == error("ERR this port speaks RESP, not HTTP"));
    CHECK(client.request.close);
    CHECK(client.request.fault == Fault::protocol);
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

TEST_CASE("the seconds of CL.THROTTLE are true ceilings") {
  CHECK(throttle_text(answer_of(Verdict::admitted, 16, 15, -1ns, 2s)) ==
        "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1ns, 31s + 1ns)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:1\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1s, 32s)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:1\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1s + 1ns, 32s)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:2\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 3, -1ns, 0s)) ==
        "*5\r\n:1\r\n:16\r\n:3\r\n:-1\r\n:0\r\n");
  CHECK(throttle_text(answer_of(Verdict::starved, 16, 3, 0ns, 0s)) ==
        "*5\r\n:1\r\n:16\r\n:3\r\n:1\r\n:0\r\n");
  CHECK(throttle_text(answer_of(Verdict::admitted, 16, 15, 5s, 2s)) ==
        "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
}

TEST_CASE("the six numbers are in milliseconds, with the reason") {
  CHECK(six_text(answer_of(Verdict::admitted, 20, 19, -1ns, 12s), Reason::admitted) ==
        "*6\r\n:0\r\n:20\r\n:19\r\n:-1\r\n:12000\r\n:0\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, 600ms + 1ns, 1ns), Reason::over_limit) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:601\r\n:1\r\n:1\r\n");
  CHECK(six_text(answer_of(Verdict::starved, 20, 0, 0ns, 0ns), Reason::no_grant) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:1\r\n:0\r\n:2\r\n");
  CHECK(six_text(answer_of(Verdict::isolated, 20, 0, 100ms, 0ns), Reason::isolated) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:100\r\n:0\r\n:3\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, kLimitMax, 0, 600ms, 1s), Reason::shadow) ==
        "*6\r\n:0\r\n:2147483648\r\n:0\r\n:-1\r\n:1000\r\n:4\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, -1ns, 1s), Reason::blocked) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:-1\r\n:1000\r\n:5\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, -1ns, 1s), Reason::exempt) ==
        "*6\r\n:0\r\n:20\r\n:0\r\n:-1\r\n:1000\r\n:6\r\n");
}

TEST_CASE("a reason follows from the verdict, and a rule in shadow lets through with its own") {
  const RuleSet rules = make_rules();
  const Rule& api = *rules.find("api");
  const Rule& feed = *rules.find("feed");
  const auto answer = [](Verdict verdict, uint32_t remaining = 0) {
    return answer_of(verdict, 9, remaining, 1s, 1s);
  };
  CHECK(reason_of(answer(Verdict::admitted), api) == Reason::admitted);
  CHECK(reason_of(answer(Verdict::over_limit), api) == Reason::over_limit);
  CHECK(reason_of(answer(Verdict::starved, 4), api) == Reason::no_grant);
  CHECK(reason_of(answer(Verdict::isolated), api) == Reason::isolated);
  CHECK(reason_of(answer(Verdict::admitted), feed) == Reason::admitted);
  for (const Verdict verdict : {Verdict::over_limit, Verdict::starved, Verdict::isolated}) {
    CHECK(reason_of(answer(verdict), feed) == Reason::shadow);
  }
  CHECK(reason_of_peek(answer(Verdict::starved, 4), api) == Reason::admitted);
  CHECK(reason_of_peek(answer(Verdict::starved, 0), api) == Reason::no_grant);
  CHECK(reason_of_peek(answer(Verdict::over_limit, 0), api) == Reason::over_limit);
}

TEST_CASE("a peek tells what is there now, and what a take of 1 would be told") {
  const Answer state = answer_of(Verdict::admitted, 16, 1, -1ns, 30s);
  CHECK(six_text(peeked(answer_of(Verdict::admitted, 16, 0, -1ns, 32s), state), Reason::admitted) ==
        "*6\r\n:0\r\n:16\r\n:1\r\n:-1\r\n:30000\r\n:0\r\n");
  const Answer none = answer_of(Verdict::admitted, 16, 0, -1ns, 32s);
  CHECK(six_text(peeked(answer_of(Verdict::over_limit, 16, 0, 2s, 32s), none), Reason::over_limit) ==
        "*6\r\n:1\r\n:16\r\n:0\r\n:2000\r\n:32000\r\n:1\r\n");
}

TEST_CASE("an answer is written in the form that was asked for") {
  Client client;
  const Answer starved = answer_of(Verdict::starved, 16, 3, 100ms, 0s);
  const auto written = [&](Words words) {
    client.ask(std::move(words));
    std::string out;
    Writer writer(out, client.request.version);
    write_answer(writer, client.request, starved);
    return out;
  };
  CHECK(written({"CL.THROTTLE", "u", "15", "30", "60"}) == "*5\r\n:1\r\n:16\r\n:3\r\n:1\r\n:0\r\n");
  CHECK(written({"TALLY.TAKE", "api", "u"}) == "*6\r\n:1\r\n:16\r\n:3\r\n:100\r\n:0\r\n:2\r\n");
  CHECK(written({"TALLY.PEEK", "api", "u"}) == "*6\r\n:0\r\n:16\r\n:3\r\n:-1\r\n:0\r\n:0\r\n");
}

TEST_CASE("maps are flat arrays in RESP2, and keep their types in RESP3") {
  const std::vector<Field> fields{{"owner", std::string("10.0.0.1:8381")},
                                  {"ballot", int64_t{3}},
                                  {"isolated", false},
                                  {"ratio", 0.5},
                                  {"group", std::vector<std::string>{"a", "b"}}};
  std::string out;
  Writer two(out, 2);
  write_map(two, fields);
  CHECK(out ==
        "*10\r\n$5\r\nowner\r\n$13\r\n10.0.0.1:8381\r\n$6\r\nballot\r\n:3\r\n$8\r\nisolated\r\n:0\r\n"
        "$5\r\nratio\r\n$3\r\n0.5\r\n$5\r\ngroup\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  out.clear();
  Writer three(out, 3);
  write_map(three, fields);
  CHECK(out ==
        "%5\r\n$5\r\nowner\r\n$13\r\n10.0.0.1:8381\r\n$6\r\nballot\r\n:3\r\n$8\r\nisolated\r\n#f\r\n"
        "$5\r\nratio\r\n,0.5\r\n$5\r\ngroup\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  out.clear();
  const std::vector<Row> rows{{"x", {{"a", int64_t{1}}}}, {"y", {}}};
  write_table(three, rows);
  CHECK(out == "%2\r\n$1\r\nx\r\n%1\r\n$1\r\na\r\n:1\r\n$1\r\ny\r\n%0\r\n");
}

TEST_CASE("TALLY.RULES tells what each rule says and what it promises here") {
  Client client;
  const auto rows = describe_rules(client.rules);
  REQUIRE(rows.size() == 4);
  const auto field = [&](size_t row, std::string_view name) {
    for (const Field& f : rows[row].fields) {
      if (f.name == name) return f.value;
    }
    return Value{std::string("(none)")};
  };
  CHECK(rows[0].name == "api");
  CHECK(field(0, "algorithm") == Value{std::string("sliding_window")});
  CHECK(field(0, "limit") == Value{int64_t{1000}});
  CHECK(field(0, "window_ms") == Value{int64_t{60'000}});
  CHECK(field(0, "max_overcount") == Value{0.05});
  CHECK(field(0, "bound") == Value{int64_t{1050}});
  CHECK(field(0, "bound_isolated") == Value{int64_t{2050}});
  CHECK(field(0, "floor") == Value{int64_t{17}});  // 50 over 3 nodes, rank 0
  CHECK(field(1, "bound") == Value{int64_t{5}});
  CHECK(field(1, "on_isolation") == Value{std::string("closed")});
  CHECK(field(2, "rate_count") == Value{int64_t{50}});
  CHECK(field(2, "rate_period_ms") == Value{int64_t{1000}});
  CHECK(field(2, "max_overcount") == Value{std::string("unbounded")});
  CHECK(field(2, "shadow") == Value{true});
  CHECK(rows[3].name == "(inline)");
  CHECK(field(3, "limit") == Value{std::string("(none)")});
  CHECK(field(3, "wait_ms") == Value{int64_t{20}});

  const std::string reply = client.ask({"TALLY.RULES"});
  CHECK(client.request.kind == Kind::answered);
  CHECK(reply.starts_with("*8\r\n$3\r\napi\r\n"));
  CHECK(reply_size(reply) == reply.size());
}

TEST_CASE("a sentence says what the answer would be and why") {
  const RuleSet rules = make_rules();
  const Rule& api = *rules.find("api");
  CHECK(sentence(answer_of(Verdict::admitted, 100, 12, -1ns, 1s), api) == "admitted: 12 of 100 left");
  CHECK(sentence(answer_of(Verdict::over_limit, 100, 0, 600ms, 1s), api) ==
        "limited: the limit of 100 is used up; try again in 600 ms");
  CHECK(sentence(answer_of(Verdict::over_limit, 100, 0, 600ms, 1s), *rules.find("feed")) ==
        "limited: the limit of 100 is used up; try again in 600 ms (the rule is in shadow: let through)");
  CHECK(sentence(answer_of(Verdict::isolated, 100, 0, -1ns, 1s), api) ==
        "limited: nothing is left of what this node may admit by itself, and no owner can be asked");
  CHECK(sentence(answer_of(Verdict::starved, 100, 12, -1ns, 1s), api) ==
        "waits for a grant of the owner, 20 ms at most: 12 of 100 left, as far as is known");
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
  const Words vocabulary{"",        "0",        "1",
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
    Words words(1 + random.below(8));
    for (auto& word : words) word = vocabulary[random.below(vocabulary.size())];
    if (random.chance(0.95)) words[0] = commands()[random.below(commands().size())].name;
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
    if (r.kind == Kind::peers || r.kind == Kind::stats) continue;
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
  CHECK(seen.size() == 9);
}

TEST_CASE("a command of no words asks nothing and answers nothing") {
  Client client;
  CHECK(client.ask({}) == "");
  CHECK(client.request.kind == Kind::answered);
}
