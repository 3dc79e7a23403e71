// The commands that ask about limits, and the table of all. The two that are on the path of every decision
// are recognised before the table is searched.
#include "doors/commands.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "doors/command_table.h"

namespace tally::resp {
namespace {

constexpr int64_t kPeriodMax = INT64_MAX / 1'000'000'000;  // seconds whose nanoseconds fit
constexpr size_t kQuotedMax = 64;

struct Range {
  std::string_view name;
  int64_t low, high;
};

// An integer argument within bounds, or the refusal.
bool read_number(Call& call, std::string_view text, const Range& range, int64_t& value) {
  const bool whole = parse_integer(text, value);
  if (whole && value >= range.low && value <= range.high) [[likely]]
    return true;
  std::string message = "ERR value is not an integer or out of range: ";
  message.append(range.name).append(" must be ");
  if (whole && value > range.high) {
    message.append(std::to_string(range.high)).append(" at most");
  } else {
    message.append(std::to_string(range.low)).append(" or more");
  }
  refuse(call, Fault::arguments, message.append(", got ").append(quoted(text)));
  return false;
}

uint32_t saturated(int64_t cost) { return static_cast<uint32_t>(std::min<int64_t>(cost, UINT32_MAX)); }

bool read_key(Call& call, std::string_view key) {
  if (!key.empty() && key.size() <= call.env.key_bytes_max) [[likely]] {
    call.request.key = key;
    return true;
  }
  refuse(call, Fault::arguments,
         "ERR a key must have 1 to " + std::to_string(call.env.key_bytes_max) + " bytes, got " +
             std::to_string(key.size()));
  return false;
}

bool read_rule(Call& call, std::string_view name) {
  const Rule* rule = call.env.rules->find(name);
  if (rule != nullptr) [[likely]] {
    call.request.rule = rule;
    return true;
  }
  std::string message = "NORULE " + no_such_rule(*call.env.rules, name);
  if (call.env.rules->all().size() == 1) message.append(", CL.THROTTLE needs none");
  refuse(call, Fault::unknown_rule, message);
  return false;
}

bool is_inline(Call& call) { return call.request.rule == &call.env.rules->inline_rule(); }

// A rule that has a limit, and a key.
bool read_rule_and_key(Call& call, std::string_view rule, std::string_view key) {
  if (!read_rule(call, rule)) return false;
  if (is_inline(call)) {
    refuse(call, Fault::unknown_rule, "NORULE '(inline)' has no limit of its own; use CL.THROTTLE");
    return false;
  }
  if (!read_key(call, key)) return false;
  apply_rule(call.request);
  return true;
}
bool read_rule_and_key(Call& call) { return read_rule_and_key(call, call.args[1], call.args[2]); }

// CL.THROTTLE key max_burst count period [quantity]
void run_throttle(Call& call) {
  const auto args = call.args;
  int64_t max_burst = 0, count = 0, period = 0, quantity = 1;
  if (!read_number(call, args[2], {"max_burst", 0, int64_t{kLimitMax} - 1}, max_burst) ||
      !read_number(call, args[3], {"count", 1, UINT32_MAX}, count) ||
      !read_number(call, args[4], {"period", 1, kPeriodMax}, period) ||
      (args.size() == 6 && !read_number(call, args[5], {"quantity", 0, INT64_MAX}, quantity)) ||
      !read_key(call, args[1])) {
    return;
  }
  const auto burst = static_cast<uint32_t>(max_burst + 1);
  const int64_t period_ns = period * 1'000'000'000;
  const auto emission = static_cast<unsigned __int128>(period_ns / count + (period_ns % count != 0));
  if (emission * burst > static_cast<unsigned __int128>(nanos(kBurstSpanMax))) [[unlikely]] {
    std::string message =
        "ERR value is not an integer or out of range: max_burst + 1 = " + std::to_string(burst);
    message.append(" requests at ")
        .append(std::to_string(count))
        .append(" per ")
        .append(std::to_string(period));
    message.append(" s span more than the ")
        .append(std::to_string(nanos(kBurstSpanMax) / 1'000'000'000))
        .append(" s that can be kept account of");
    return refuse(call, Fault::arguments, message);
  }
  Request& request = call.request;
  request.kind = quantity == 0 ? Request::Kind::peek : Request::Kind::take;
  request.form = Form::throttle;
  request.rule = &call.env.rules->inline_rule();
  request.limit = inline_limit(*request.rule, call.env.rules->share(), burst, static_cast<uint32_t>(count),
                               Duration(period_ns));
  request.cost = saturated(quantity);
}

// TALLY.TAKE rule key [cost]
void run_take(Call& call) {
  int64_t cost = 1;
  if (!read_rule_and_key(call)) return;
  if (call.args.size() == 4 && !read_number(call, call.args[3], {"cost", 0, INT64_MAX}, cost)) return;
  call.request.kind = cost == 0 ? Request::Kind::peek : Request::Kind::take;
  call.request.cost = cost == 0 ? 1 : saturated(cost);
}

// TALLY.TAKEALL rule key cost [rule key cost ...]
void run_take_all(Call& call) {
  const auto triples = call.args.subspan(1);
  if (triples.size() % 3 != 0) return refuse_arity(call, "tally.takeall");
  if (triples.size() / 3 > kPartsMax)
    return refuse(call, Fault::arguments,
                  "ERR " + std::to_string(kPartsMax) + " takes at most are taken at once, got " + std::to_string(triples.size() / 3));
  Request& request = call.request;
  std::vector<Part> parts;
  for (size_t i = 0; i < triples.size(); i += 3) {
    int64_t cost = 0;
    if (!read_rule_and_key(call, triples[i], triples[i + 1]) || !read_number(call, triples[i + 2], {"cost", 0, INT64_MAX}, cost)) return;
    parts.push_back({request.rule, request.key, saturated(cost)});
  }
  request.kind = Request::Kind::take_all;
  request.form = Form::all;
  request.treatment = Treatment::limited;  // each part has its own
  request.key = {};
  request.parts = std::move(parts);
}

// TALLY.PEEK rule key: what a take of 1 would be told.
void run_peek(Call& call) {
  if (!read_rule_and_key(call)) return;
  call.request.kind = Request::Kind::peek;
}

// TALLY.GIVE rule key [n]
void run_give(Call& call) {
  int64_t n = 1;
  if (!read_rule_and_key(call)) return;
  if (call.args.size() == 4 && !read_number(call, call.args[3], {"n", 1, INT64_MAX}, n)) return;
  call.request.kind = Request::Kind::give;
  call.request.cost = saturated(n);
}

// TALLY.LEASE rule key cost most: what the library of processes asks (src/client).
void run_lease(Call& call) {
  int64_t cost = 0, most = 0;
  if (!read_rule_and_key(call) || !read_number(call, call.args[3], {"cost", 0, INT64_MAX}, cost) ||
      !read_number(call, call.args[4], {"most", 0, INT64_MAX}, most))
    return;
  Request& request = call.request;
  request.kind = cost == 0 ? Request::Kind::lease : Request::Kind::take;
  request.form = Form::lease;
  request.cost = saturated(cost);
  request.most = saturated(most);
}

// TALLY.PUTBACK rule key n account
void run_put_back(Call& call) {
  int64_t n = 0;
  Request& request = call.request;
  if (!read_rule_and_key(call) || !read_number(call, call.args[3], {"n", 1, INT64_MAX}, n) ||
      !read_number(call, call.args[4], {"account", 0, INT64_MAX}, request.account))
    return;
  request.kind = Request::Kind::put_back;
  request.cost = saturated(n);
}

// TALLY.RESET rule key
void run_tally_reset(Call& call) {
  if (!read_rule(call, call.args[1]) || !read_key(call, call.args[2])) return;
  call.request.limit = *call.request.rule->for_key(call.request.key).limit;
  call.request.kind = Request::Kind::reset;
  call.request.barrier = true;
}

// DEL key ...: what a user of CL.THROTTLE expects to reset with.
void run_del(Call& call) {
  for (const std::string_view key : call.args.subspan(1)) {
    if (!read_key(call, key)) return;
  }
  Request& request = call.request;
  request.kind = Request::Kind::del;
  request.barrier = true;
  request.rule = &call.env.rules->inline_rule();
  request.limit = request.rule->limit;
  request.keys.assign(call.args.begin() + 1, call.args.end());
}

void run_explain(Call& call) {
  if (!read_rule(call, call.args[1]) || !read_key(call, call.args[2])) return;
  apply_rule(call.request);
  call.request.kind = Request::Kind::explain;
}

// For how long an order is to hold, in milliseconds.
bool read_lasts(Call& call, std::string_view ms) {
  int64_t lasts = 0;
  if (!read_number(call, ms, {"ms", 1, kOrderMax / std::chrono::milliseconds(1)}, lasts)) return false;
  call.request.lasts = std::chrono::milliseconds(lasts);
  return true;
}

// A rule, (inline) too, and a key that nodes can tell each other.
bool read_ordered_key(Call& call) {
  if (!read_rule(call, call.args[1]) || !read_key(call, call.args[2])) return false;
  if (call.args[2].size() <= kOrderKeyMax) return true;
  refuse(call, Fault::arguments,
         "ERR a key of which something is ordered must have " + std::to_string(kOrderKeyMax) + " bytes at most, got " + std::to_string(call.args[2].size()));
  return false;
}

void order(Call& call, OrderKind kind) {
  call.request.kind = Request::Kind::order;
  call.request.ordered = kind;
}

// TALLY.BLOCK rule key ms
void run_block(Call& call) {
  if (read_ordered_key(call) && read_lasts(call, call.args[3])) order(call, OrderKind::block);
}

// TALLY.ALLOW rule key ms
void run_allow(Call& call) {
  if (read_ordered_key(call) && read_lasts(call, call.args[3])) order(call, OrderKind::allow);
}

// TALLY.LIMIT rule key n ms
void run_limit(Call& call) {
  int64_t n = 0;
  if (!read_ordered_key(call)) return;
  if (is_inline(call)) return refuse(call, Fault::unknown_rule, "NORULE '(inline)' has no limit of its own: each call of CL.THROTTLE brings one");
  if (!read_number(call, call.args[3], {"n", 1, kLimitMax}, n) || !read_lasts(call, call.args[4])) return;
  const Limit& limit = call.request.rule->limit;
  const bool bucket = limit.algorithm == Algorithm::token_bucket && limit.emission > Duration(0);
  if (bucket && n > kBurstSpanMax / limit.emission)
    return refuse(call, Fault::arguments, "ERR n must be " + std::to_string(kBurstSpanMax / limit.emission) + " at most, got " + std::to_string(n) +
                                              ": a bucket must fill within 417 days at its rule's rate");
  call.request.most = static_cast<uint32_t>(n);
  order(call, OrderKind::limit);
}

// TALLY.LIFT rule key
void run_lift(Call& call) {
  if (read_ordered_key(call)) call.request.kind = Request::Kind::lift;
}

void run_blocks(Call& call) { call.request.kind = Request::Kind::orders; }

// TALLY.TOP [n] [RULE rule]
void run_top(Call& call) {
  auto rest = call.args.subspan(1);
  int64_t n = kTopRows;
  if (rest.size() % 2 == 1) {
    if (!read_number(call, rest.front(), {"n", 1, kTopRowsMax}, n)) return;
    rest = rest.subspan(1);
  }
  if (!rest.empty()) {
    if (rest.size() > 2 || !equals_ignoring_case(rest.front(), "rule")) return refuse(call, Fault::arguments, "ERR syntax error: TALLY.TOP [n] [RULE rule]");
    if (!read_rule(call, rest.back())) return;
  }
  call.request.kind = Request::Kind::top;
  call.request.cost = static_cast<uint32_t>(n);
  call.request.barrier = true;  // so that a connection asks for one at a time
}

void run_rules(Call& call) { write_table(call.reply, describe_rules(*call.env.rules)); }
void run_peers(Call& call) { call.request.kind = Request::Kind::peers; }
void run_stats(Call& call) { call.request.kind = Request::Kind::stats; }
void run_forget(Call& call) {
  call.request.kind = Request::Kind::forget;
  call.request.key = call.args[1];
}
void run_reload(Call& call) {
  call.request.kind = Request::Kind::reload;
  call.request.barrier = true;  // what follows is decided by what was loaded
}

constexpr auto kCommands = std::to_array<Command>({
    {"cl.throttle", 5, 6, run_throttle, "write fast", 1, 1, "tally", "key max_burst count period [quantity]",
     "Takes from a key's limit of max_burst + 1 requests, refilled by count per period (seconds)"},
    {"tally.take", 3, 4, run_take, "write fast", 2, 2, "tally", "rule key [cost]",
     "Takes from a key's limit under a rule"},
    {"tally.peek", 3, 3, run_peek, "readonly fast", 2, 2, "tally", "rule key",
     "Tells what a take would be answered, and takes nothing"},
    {"rater.limit", 5, 6, run_throttle, "write fast", 1, 1, "tally", "key max_burst count period [quantity]",
     "Another name of CL.THROTTLE"},
    {"ping", 1, 2, run_ping, "fast", 0, 0, "connection", "[message]", "Answers PONG, or the message"},
    {"tally.takeall", 4, kAnyArguments, run_take_all, "write fast", 2, 2, "tally", "rule key cost [rule key cost ...]",
     "Takes from several limits: from all of them, or from none"},
    {"tally.give", 3, 4, run_give, "write fast", 2, 2, "tally", "rule key [n]",
     "Gives back what was taken and not used"},
    {"tally.lease", 5, 5, run_lease, "write fast", 2, 2, "tally", "rule key cost most",
     "Takes cost, if any, and up to most for later; for the client library"},
    {"tally.putback", 5, 5, run_put_back, "write fast", 2, 2, "tally", "rule key n account",
     "Puts back what was taken for later and not used"},
    {"tally.reset", 3, 3, run_tally_reset, "write", 2, 2, "tally", "rule key",
     "Forgets what a key has used, fleet-wide"},
    {"tally.explain", 3, 3, run_explain, "readonly", 2, 2, "tally", "rule key",
     "Tells all that is known about a key, and why"},
    {"tally.block", 4, 4, run_block, "write", 2, 2, "tally", "rule key ms", "Refuses a key for so long, fleet-wide"},
    {"tally.allow", 4, 4, run_allow, "write", 2, 2, "tally", "rule key ms", "Admits all of a key for so long and counts nothing, fleet-wide"},
    {"tally.limit", 5, 5, run_limit, "write", 2, 2, "tally", "rule key n ms", "Gives a key another limit for so long, fleet-wide"},
    {"tally.lift", 3, 3, run_lift, "write", 2, 2, "tally", "rule key", "Ends what was ordered of a key, fleet-wide"},
    {"tally.blocks", 1, 1, run_blocks, "readonly", 0, 0, "tally", "", "Lists what is ordered of keys, and for how long yet"},
    {"tally.rules", 1, 1, run_rules, "readonly", 0, 0, "tally", "", "Lists the rules and what each promises"},
    {"tally.peers", 1, 1, run_peers, "readonly", 0, 0, "tally", "",
     "Lists the nodes of the fleet and what is known of them"},
    {"tally.stats", 1, 1, run_stats, "readonly", 0, 0, "tally", "", "Counts since the start"},
    {"tally.top", 1, 4, run_top, "readonly", 0, 0, "tally", "[n] [RULE rule]", "Lists the keys that this node is asked for most, of late"},
    {"tally.forget", 2, 2, run_forget, "", 0, 0, "tally", "node", "Waits no longer for a node that is gone for good"},
    {"tally.reload", 1, 1, run_reload, "", 0, 0, "tally", "", "Reads the configuration again: all of it or nothing"},
    {"del", 2, kAnyArguments, run_del, "write", 1, -1, "tally", "key [key]",
     "Forgets keys of CL.THROTTLE, fleet-wide"},
    {"auth", 2, 3, run_auth, "fast", 0, 0, "connection", "[username] password", "There is no password"},
    {"client", 2, kAnyArguments, run_client, "fast", 0, 0, "connection", "subcommand [argument]",
     "About this connection"},
    {"command", 1, kAnyArguments, run_command, "fast", 0, 0, "server", "[subcommand] [name]",
     "Lists the commands"},
    {"config", 2, kAnyArguments, run_config, "fast", 0, 0, "server", "subcommand [pattern]",
     "Answers what clients look up"},
    {"echo", 2, 2, run_echo, "fast", 0, 0, "connection", "message", "Answers the message"},
    {"hello", 1, kAnyArguments, run_hello, "fast", 0, 0, "connection", "[protover]",
     "Chooses RESP2 or RESP3"},
    {"info", 1, kAnyArguments, run_info, "fast", 0, 0, "server", "[section]", "Facts about this process"},
    {"quit", 1, kAnyArguments, run_quit, "fast", 0, 0, "connection", "", "Closes the connection"},
    {"reset", 1, 1, run_reset, "fast", 0, 0, "connection", "", "Puts the connection back to its beginning"},
    {"select", 2, 2, run_select, "fast", 0, 0, "connection", "index", "There is database 0 only"},
    {"time", 1, 1, run_time, "fast", 0, 0, "server", "",
     "The clock that windows are counted on: seconds, microseconds"},
    {"post", 1, kAnyArguments, run_http, "", 0, 0, "", "", ""},
    {"host:", 1, kAnyArguments, run_http, "", 0, 0, "", "", ""},
});

// Named by COMMAND; the last two are only there to be refused.
constexpr size_t kHidden = 2;

constexpr uint64_t kLowerBits = 0x2020202020202020;
uint64_t folded_word(const char* p) {
  uint64_t word = 0;
  std::memcpy(&word, p, sizeof word);
  return word | kLowerBits;
}

// `lower` has 8 to 16 letters, with its '.' at `dot`. Setting bit 5 maps only a letter's two cases to the
// letter, but 0x0e too to '.', hence the look at that one byte.
template <size_t Size>
bool is_name(std::string_view text, const char (&lower)[Size], size_t dot) {
  constexpr size_t size = Size - 1;
  static_assert(size >= 8 && size <= 16);
  return text.size() == size && text[dot] == '.' && folded_word(text.data()) == folded_word(lower) &&
         folded_word(text.data() + size - 8) == folded_word(lower + size - 8);
}

const Command* recognise(std::string_view name) {
  if (is_name(name, "cl.throttle", 2)) return &kCommands[0];
  if (is_name(name, "tally.take", 5)) return &kCommands[1];
  for (const Command& command : kCommands) {
    if (equals_ignoring_case(name, command.name)) return &command;
  }
  return nullptr;
}

void refuse_unknown(Call& call) {
  std::string message = "ERR unknown command " + quoted(call.args[0]) + ", with args beginning with: ";
  const size_t beginning = message.size();
  for (const std::string_view arg : call.args.subspan(1)) {
    if (message.size() > beginning + 128) break;
    message.append(quoted(arg)).append(" ");
  }
  refuse(call, Fault::unknown_command, message);
}

}  // namespace

std::span<const Command> commands() { return std::span(kCommands).first(kCommands.size() - kHidden); }

const Command* find_command(std::string_view name) {
  const Command* command = recognise(name);
  return command != nullptr && command < commands().data() + commands().size() ? command : nullptr;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower_case) {
  return text.size() == lower_case.size() &&
         std::equal(text.begin(), text.end(), lower_case.begin(), [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
         });
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return result;
}

std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text.substr(0, kQuotedMax)) result += c >= ' ' && c < 127 ? c : '?';
  if (text.size() > kQuotedMax) result += "...";
  return result += "'";
}

std::string no_such_rule(const RuleSet& rules, std::string_view name) {
  std::string message = "no rule " + quoted(name);
  if (const std::string near = rules.nearest(name); !near.empty()) return message.append("; did you mean ").append(quoted(near)).append("?");
  return rules.all().size() == 1 ? message.append("; the configuration has none") : message;
}

void refuse(Call& call, Fault fault, std::string_view message) {
  call.request.kind = Request::Kind::answered;
  call.request.treatment = Treatment::limited;
  call.request.fault = fault;
  call.reply.error(message);
}

void refuse_arity(Call& call, std::string_view name) {
  refuse(call, Fault::arguments, "ERR wrong number of arguments for '" + std::string(name) + "' command");
}

std::string_view name_of(Fault fault) {
  switch (fault) {
    case Fault::none:
      return "none";
    case Fault::unknown_command:
      return "unknown_command";
    case Fault::arguments:
      return "arguments";
    case Fault::unknown_rule:
      return "unknown_rule";
    case Fault::authentication:
      return "authentication";
    case Fault::protocol:
      return "protocol";
  }
  return "none";
}

void read_command(std::span<const std::string_view> args, Connection& connection, const Env& env,
                  Request& request, std::string& reply) {
  request.begin(connection.version);
  if (args.empty()) return;
  Call call{args, connection, env, request, reply, Writer(reply, connection.version)};
  const Command* command = recognise(args[0]);
  if (command == nullptr) return refuse_unknown(call);
  if (args.size() < command->args_min || args.size() > command->args_max)
    return refuse_arity(call, command->name);
  command->run(call);
}

}  // namespace tally::resp
