// tally: the operator's tool. Asks a running daemon over its socket, checks configurations, and plans.
//
// Exit codes: 0 allowed (or done), 1 limited, 2 usage (the daemon refused the question), 3 unreachable;
// `check`, `rules test`, `convert` and `books` end as tallyd --check does, 78 for a file with errors; `secret` for a file that cannot be used.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxopts.hpp>
#include <thread>

#include "config/config.h"
#include "configuration.h"
#include "connection.h"
#include "core/order_table.h"
#include "daemon/overview.h"
#include "daemon/paths.h"
#include "planning.h"
#include "table.h"
#include "top.h"

namespace tally::tool {
namespace {

constexpr int kAllowed = 0, kLimited = 1, kUsage = 2, kUnreachable = 3;

struct Invocation {
  std::string socket;
  bool json = false;
  uint64_t lines = 0;                  // stat: 0: without end; top: 0: as many as the daemon gives unasked
  std::vector<std::string> arguments;  // after the command's name
};

int usage(const std::string& message) {
  std::fprintf(stderr, "tally: %s\nTry 'tally --help'.\n", message.c_str());
  return kUsage;
}

std::string seconds_of(int64_t ms) {
  char text[40];
  std::snprintf(text, sizeof text, ms % 1000 == 0 ? "%.0f s" : "%.3f s", static_cast<double>(ms) / 1000);
  return text;
}

// Asks and hands the reply over; says what went wrong otherwise.
template <typename Then>
int ask(const Invocation& invocation, std::vector<std::string> command, Then then) {
  auto connection = Connection::open(invocation.socket);
  if (!connection) return std::fprintf(stderr, "tally: %s\n", connection.error().c_str()), kUnreachable;
  const auto reply = connection.value().ask(command);
  if (!reply) return std::fprintf(stderr, "tally: %s\n", reply.error().c_str()), kUnreachable;
  if (reply.value().kind == Reply::Kind::error) {
    if (invocation.json) std::printf("{\"error\":%s}\n", to_json(reply.value()).c_str());
    std::fprintf(stderr, "tally: %s\n", reply.value().text.c_str());
    return kUsage;
  }
  return then(reply.value());
}

// --- decisions ---

constexpr const char* kReasons[] = {"admitted", "over_limit", "no_grant", "isolated",
                                    "shadow",   "blocked",    "exempt"};

// [limited, limit, remaining, retry after, reset after (, reason)], the times in units of `unit_ms`.
int show_decision(const Invocation& invocation, const Reply& reply, int64_t unit_ms) {
  if (reply.items.size() < 5)
    return usage("the daemon's answer is not a decision; is it of another version?");
  const auto number = [&](size_t i) { return reply.items[i].integer; };
  const bool limited = number(0) != 0;
  const int64_t retry_ms = number(3) < 0 ? -1 : number(3) * unit_ms, reset_ms = number(4) * unit_ms;
  std::string reason = limited ? "over_limit" : "admitted";
  if (reply.items.size() > 5 && number(5) >= 0 && number(5) < static_cast<int64_t>(std::size(kReasons)))
    reason = kReasons[number(5)];
  if (invocation.json) {
    std::printf(
        "{\"allowed\":%s,\"limit\":%lld,\"remaining\":%lld,\"retry_after_ms\":%lld,\"reset_after_ms\":%lld,"
        "\"reason\":\"%s\"}\n",
        limited ? "false" : "true", static_cast<long long>(number(1)), static_cast<long long>(number(2)),
        static_cast<long long>(retry_ms), static_cast<long long>(reset_ms), reason.c_str());
  } else {
    std::string line = (limited ? "limited: " : "allowed: ") + std::to_string(number(2)) + " of " +
                       std::to_string(number(1)) + " left, all back in " + seconds_of(reset_ms);
    if (limited) line += retry_ms < 0 ? ", never possible" : ", try again in " + seconds_of(retry_ms);
    if (reason != "admitted" && reason != "over_limit") line += " (" + reason + ")";
    std::printf("%s\n", line.c_str());
  }
  return limited ? kLimited : kAllowed;
}

int run_decision(const Invocation& invocation, const std::string& command, int64_t unit_ms) {
  std::vector<std::string> parts{command};
  parts.insert(parts.end(), invocation.arguments.begin(), invocation.arguments.end());
  return ask(invocation, parts,
             [&](const Reply& reply) { return show_decision(invocation, reply, unit_ms); });
}

int run_take(const Invocation& i) { return run_decision(i, "TALLY.TAKE", 1); }
int run_peek(const Invocation& i) { return run_decision(i, "TALLY.PEEK", 1); }
int run_throttle(const Invocation& i) { return run_decision(i, "CL.THROTTLE", 1000); }

// What is left afterwards is worth showing; it is no denial.
int run_give(const Invocation& i) {
  const int shown = run_decision(i, "TALLY.GIVE", 1);
  return shown == kLimited ? kAllowed : shown;
}

int run_reset(const Invocation& invocation) {
  return ask(invocation, {"TALLY.RESET", invocation.arguments[0], invocation.arguments[1]},
             [&](const Reply&) {
               std::printf(invocation.json ? "{\"reset\":true}\n" : "reset\n");
               return kAllowed;
             });
}

// "": it is a whole number from 1 to kLimitMax.
std::string wrong_number(const std::string& text) {
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error == std::errc() && end == text.data() + text.size() && n >= 1 && n <= kLimitMax) return "";
  return "must be a whole number, 1 to " + std::to_string(kLimitMax) + ", got \"" + text + "\"";
}

// RULE KEY [N] FOR
int run_order(const Invocation& invocation, const std::string& command, const char* done) {
  std::vector<std::string> parts{command};
  parts.insert(parts.end(), invocation.arguments.begin(), invocation.arguments.end());
  if (parts.size() == 5)
    if (const std::string wrong = wrong_number(parts[3]); !wrong.empty()) return usage("N: " + wrong);
  const auto lasts = parse_duration(parts.back());
  if (!lasts) return usage("FOR: " + lasts.error());
  constexpr int64_t kMillisecond = 1'000'000;
  if (lasts.value() < Duration(kMillisecond) || lasts.value() > kOrderMax)
    return usage("FOR: must be 1ms to " + format_duration(kOrderMax) + ", got \"" + parts.back() + "\"");
  parts.back() = std::to_string((nanos(lasts.value()) + kMillisecond - 1) / kMillisecond);
  return ask(invocation, parts, [&](const Reply&) {
    if (invocation.json)
      std::printf("{\"ordered\":true}\n");
    else
      std::printf("%s for %s\n", done, invocation.arguments.back().c_str());
    return kAllowed;
  });
}

int run_block(const Invocation& i) { return run_order(i, "TALLY.BLOCK", "blocked"); }
int run_allow(const Invocation& i) { return run_order(i, "TALLY.ALLOW", "allowed"); }
int run_limit(const Invocation& i) { return run_order(i, "TALLY.LIMIT", "limited"); }

int run_lift(const Invocation& invocation) {
  return ask(invocation, {"TALLY.LIFT", invocation.arguments[0], invocation.arguments[1]}, [&](const Reply& reply) {
    const bool lifted = reply.integer != 0;
    if (invocation.json)
      std::printf("{\"lifted\":%s}\n", lifted ? "true" : "false");
    else
      std::printf("%s\n", lifted ? "lifted" : "nothing is ordered of this key");
    return kAllowed;
  });
}

int run_reload(const Invocation& invocation) {
  return ask(invocation, {"TALLY.RELOAD"}, [&](const Reply&) {
    std::printf(invocation.json ? "{\"reloaded\":true}\n" : "the configuration was read again\n");
    return kAllowed;
  });
}

int run_forget(const Invocation& invocation) {
  return ask(invocation, {"TALLY.FORGET", invocation.arguments[0]}, [&](const Reply&) {
    std::printf(invocation.json ? "{\"forgotten\":true}\n" : "nobody waits for it here any more\n");
    return kAllowed;
  });
}

int run_ping(const Invocation& invocation) {
  return ask(invocation, {"PING"}, [&](const Reply& reply) {
    std::printf(invocation.json ? "{\"reply\":%s}\n" : "%s\n",
                (invocation.json ? to_json(reply) : reply.text).c_str());
    return kAllowed;
  });
}

// --- seeing ---

int run_blocks(const Invocation& invocation) {
  return ask(invocation, {"TALLY.BLOCKS"}, [&](const Reply& reply) {
    if (invocation.json) return std::printf("%s\n", to_json(reply).c_str()), kAllowed;
    if (reply.items.empty()) return std::printf("nothing is ordered of any key\n"), kAllowed;
    Cells rows{{"rule", "key", "order", "limit", "for"}};
    for (const Reply& order : reply.items) {
      const auto cell = [&](const char* name) {
        const Reply* value = order.find(name);
        return value != nullptr ? to_text(*value) : std::string("-");
      };
      const Reply* ms = order.find("for_ms");
      rows.push_back({cell("rule"), cell("key"), cell("order"), cell("limit"), ms != nullptr ? seconds_of(ms->integer) : "-"});
    }
    print_aligned(rows);
    return kAllowed;
  });
}

// A map of name -> map, as a table with a column for each field that any row has.
void print_table(const Reply& reply, const std::string& first_column) {
  Cells rows{{first_column}};
  std::vector<std::string>& head = rows.front();
  for (size_t i = 1; i < reply.items.size(); i += 2)
    for (size_t f = 0; f + 1 < reply.items[i].items.size(); f += 2) {
      const std::string& name = reply.items[i].items[f].text;
      if (std::ranges::find(head, name) == head.end()) head.push_back(name);
    }
  const std::vector<std::string> names(head);
  for (size_t i = 0; i + 1 < reply.items.size(); i += 2) {
    std::vector<std::string> row{reply.items[i].text};
    for (size_t column = 1; column < names.size(); ++column) {
      const Reply* value = reply.items[i + 1].find(names[column]);
      row.push_back(value == nullptr ? "-" : to_text(*value));
    }
    rows.push_back(std::move(row));
  }
  print_aligned(rows);
}

int run_table(const Invocation& invocation, const std::string& command, const std::string& first_column,
              const std::string& none) {
  return ask(invocation, {command}, [&](const Reply& reply) {
    if (invocation.json)
      std::printf("%s\n", to_json(reply).c_str());
    else if (reply.items.empty())
      std::printf("%s\n", none.c_str());
    else
      print_table(reply, first_column);
    return kAllowed;
  });
}

int run_rules(const Invocation& i) { return run_table(i, "TALLY.RULES", "rule", "no rules"); }
int run_peers(const Invocation& i) {
  return run_table(i, "TALLY.PEERS", "peer", "this node is alone: it has no peers");
}

int run_explain(const Invocation& invocation) {
  return ask(invocation, {"TALLY.EXPLAIN", invocation.arguments[0], invocation.arguments[1]},
             [&](const Reply& reply) {
               if (invocation.json) return std::printf("%s\n", to_json(reply).c_str()), kAllowed;
               Cells rows;
               for (size_t i = 0; i + 1 < reply.items.size(); i += 2)
                 rows.push_back({reply.items[i].text, to_text(reply.items[i + 1])});
               print_aligned(rows);
               return kAllowed;
             });
}

// A line a second of what changed in it.
struct StatColumn {
  const char* title;
  const char* field;
  bool rate;  // by difference; else as it stands
};
constexpr StatColumn kStatColumns[] = {
    {"requests/s", "requests", true},      {"admitted/s", "admitted", true},
    {"limited/s", "limited", true},        {"no_grant/s", "no_grant", true},
    {"isolated/s", "isolated", true},      {"waiting", "waiting", false},
    {"connections", "connections", false}, {"keys", "keys", false},
    {"sent/s", "datagrams_out", true},     {"heard/s", "datagrams_in", true},
};

void print_stat_line(const Reply& before, const Reply& after, double elapsed_s) {
  for (const StatColumn& column : kStatColumns) {
    const Reply *old = before.find(column.field), *now = after.find(column.field);
    if (now == nullptr) continue;
    const auto value = static_cast<double>(now->integer - (column.rate && old != nullptr ? old->integer : 0));
    std::printf("%*.0f ", static_cast<int>(std::strlen(column.title)),
                column.rate ? value / elapsed_s : value);
  }
  std::printf("\n");
}

int run_stat(const Invocation& invocation) {
  auto connection = Connection::open(invocation.socket);
  if (!connection) return std::fprintf(stderr, "tally: %s\n", connection.error().c_str()), kUnreachable;
  using Steady = std::chrono::steady_clock;
  Reply before;
  auto asked = Steady::now(), next = asked;
  for (uint64_t line = 0; invocation.lines == 0 || line <= invocation.lines; ++line) {
    std::this_thread::sleep_until(next);
    next += std::chrono::seconds(1);
    const auto reply = connection.value().ask({"TALLY.STATS"});
    if (!reply) return std::fprintf(stderr, "tally: %s\n", reply.error().c_str()), kUnreachable;
    const auto answered = Steady::now();
    const double elapsed_s = std::chrono::duration<double>(answered - asked).count();
    if (line != 0 && invocation.json) std::printf("%s\n", to_json(reply.value()).c_str());
    if (!invocation.json && line % 20 == 0) {
      for (const StatColumn& column : kStatColumns)
        if (reply.value().find(column.field) != nullptr) std::printf("%s ", column.title);
      std::printf("\n");
    }
    if (line != 0 && !invocation.json) print_stat_line(before, reply.value(), elapsed_s);
    std::fflush(stdout);
    before = reply.value();
    asked = answered;
  }
  return kAllowed;
}

// The busiest keys, once; on a terminal again and again.
int show_top(const Invocation& invocation, Screen* screen) {
  std::vector<std::string> question{"TALLY.TOP"};
  if (invocation.lines != 0) question.push_back(std::to_string(invocation.lines));
  if (!invocation.arguments.empty()) question.insert(question.end(), {"RULE", invocation.arguments[0]});
  return ask(invocation, question, [&](const Reply& top) {
    return ask(invocation, {"TALLY.STATS"}, [&](const Reply& stats) {
      if (invocation.json) return std::printf("%s\n", top_json(top, stats).c_str()), kAllowed;
      Cells rows = top_cells(top, stats);
      if (screen != nullptr) {
        rows.resize(std::min(rows.size(), screen->lines() - 1));
        screen->begin();
      }
      print_aligned(rows);
      if (screen != nullptr) screen->end();
      return kAllowed;
    });
  });
}

int run_top(const Invocation& invocation) {
  if (invocation.json || ::isatty(STDOUT_FILENO) == 0) return show_top(invocation, nullptr);
  Screen screen;
  for (;;) {
    if (const int code = show_top(invocation, &screen); code != kAllowed) return code;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

// --- operating ---

int run_check(const Invocation& invocation) {
  int code = kAllowed;
  const auto config = read_configuration(invocation.arguments[0], true, code);
  if (config) std::printf("%s", invocation.json ? print_config(*config).c_str() : describe_promises(*config).c_str());
  return code;
}

struct Command {
  const char* name;
  size_t arguments_min, arguments_max;
  int (*run)(const Invocation&);
  const char* usage;
  const char* help;
};
constexpr Command kCommands[] = {
    {"take", 2, 3, run_take, "RULE KEY [COST]", "take from a key's limit"},
    {"throttle", 4, 5, run_throttle, "KEY MAX_BURST COUNT PERIOD [N]",
     "take from a limit that comes along (CL.THROTTLE)"},
    {"peek", 2, 2, run_peek, "RULE KEY", "what a take would be told"},
    {"give", 2, 3, run_give, "RULE KEY [N]", "give back what was taken and not used"},
    {"reset", 2, 2, run_reset, "RULE KEY", "forget what a key has used, fleet-wide"},
    {"block", 3, 3, run_block, "RULE KEY FOR", "refuse a key for so long, fleet-wide: block api bob 10m"},
    {"allow", 3, 3, run_allow, "RULE KEY FOR", "admit all of a key for so long and count nothing, fleet-wide"},
    {"limit", 4, 4, run_limit, "RULE KEY N FOR", "give a key another limit for so long, fleet-wide"},
    {"lift", 2, 2, run_lift, "RULE KEY", "end what was ordered of a key by block, allow or limit"},
    {"blocks", 0, 0, run_blocks, "", "what is ordered of which keys, and for how long yet"},
    {"explain", 2, 2, run_explain, "RULE KEY", "all that is known about a key, and why"},
    {"rules", 0, 0, run_rules, "", "the rules and what each promises"},
    {"peers", 0, 0, run_peers, "", "the nodes of the fleet and what is known of them"},
    {"stat", 0, 0, run_stat, "", "a line a second; -n N to end"},
    {"top", 0, 1, run_top, "[RULE]", "the keys that are asked for most, live on a terminal; -n so many"},
    {"check", 1, 1, run_check, "FILE", "check a configuration, without a daemon"},
    {"reload", 0, 0, run_reload, "", "have the daemon read its configuration again, all of it or nothing"},
    {"forget", 1, 1, run_forget, "NODE", "wait no longer for a node that is gone for good"},
    {"ping", 0, 0, run_ping, "", "whether the daemon answers"},
};

std::string help_text(const cxxopts::Options& options) {
  std::string text = options.help({""}) + "\nCommands:\n";
  for (const Command& command : kCommands) {
    std::string left = "  " + std::string(command.name) + " " + command.usage;
    left.resize(std::max<size_t>(left.size() + 2, 44), ' ');
    text += left + command.help + "\n";
  }
  text += "  plan RULE [OPTION...]                     what a rule does on a fleet, by settings; plan --help\n"
          "  try RULE [OPTION...]                      a rule against a stream on one node; try --help\n"
          "  secret [--rotate] FILE                    make, or rotate, what a fleet seals with; secret --help\n"
          "  rules test REQUEST [-c FILE]              which rules of a file a request matches; rules test --help\n"
          "  convert envoy FILE                        a configuration made of envoyproxy/ratelimit's\n"
          "  books URL | books -c FILE                 what a fleet keeps in Redis, or its removal; books --help\n";
  return text +
         "\nExit codes: 0 allowed, 1 limited, 2 usage, 3 unreachable; check, secret, rules test, convert, books: 78 where there are "
         "errors.\n";
}

Result<std::string> socket_of(const cxxopts::ParseResult& parsed) {
  if (parsed.count("socket") != 0) return parsed["socket"].as<std::string>();
  const char* environment = std::getenv("TALLY_SOCKET");
  if (environment != nullptr && environment[0] != '\0') return std::string(environment);
  return default_socket_path("");
}

int run(int argc, char** argv) {
  // These have options of their own; --json may stand before any command.
  if (argc > 2 && std::string(argv[1]) == "--json") std::swap(argv[1], argv[2]);
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "plan") return run_plan_command(argc - 1, argv + 1);
  if (first == "try") return run_try_command(argc - 1, argv + 1);
  if (first == "secret") return run_secret_command(argc - 1, argv + 1);
  if (first == "convert") return run_convert_command(argc - 1, argv + 1);
  if (first == "books") return run_books_command(argc - 1, argv + 1);
  const auto is = [&](int i, const char* word) { return i < argc && std::strcmp(argv[i], word) == 0; };
  if (first == "rules" && is(2, "--json") && is(3, "test")) std::swap(argv[2], argv[3]);
  if (first == "rules" && is(2, "test")) return run_rules_test_command(argc - 2, argv + 2);
  const auto numeric = [](const char* word) { return word[0] == '-' && word[1] >= '0' && word[1] <= '9'; };
  for (int i = 1; i < argc && !is(i, "--"); ++i)
    if (numeric(argv[i])) return usage("'" + std::string(argv[i]) + "': numbers and durations are not negative; where it is a key, write -- before the command");
  cxxopts::Options options("tally", "tally - asks a running tallyd\n");
  options.custom_help("[-s PATH] [--json] COMMAND [ARGUMENT...]");
  options.add_options()  //
      ("s,socket", "the daemon's socket, or HOST:PORT; else TALLY_SOCKET, else tallyd's default",
       cxxopts::value<std::string>(),
       "PATH")                //
      ("json", "print JSON")  //
      ("n,lines", "stat: end after so many lines; top: so many keys", cxxopts::value<uint64_t>()->default_value("0"),
       "N")                             //
      ("version", "print the version")  //
      ("h,help", "print this help");
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help") != 0) return std::printf("%s", help_text(options).c_str()), kAllowed;
  if (parsed.count("version") != 0) return std::printf("tally %s\n", kVersion), kAllowed;
  if (parsed.unmatched().empty()) return usage("a command is missing");

  Invocation invocation;
  invocation.json = parsed.count("json") != 0;
  invocation.lines = parsed["lines"].as<uint64_t>();
  invocation.arguments = parsed.unmatched();  // as they are: a list of cxxopts would be cut at commas
  const std::string name = invocation.arguments.front();
  invocation.arguments.erase(invocation.arguments.begin());
  const auto* command = std::ranges::find(kCommands, name, &Command::name);
  if (command == std::end(kCommands)) return usage("unknown command '" + name + "'");
  if (invocation.arguments.size() < command->arguments_min ||
      invocation.arguments.size() > command->arguments_max)
    return usage("usage: tally " + name + " " + command->usage);
  const auto socket = socket_of(parsed);
  if (!socket) return std::fprintf(stderr, "tally: %s\n", socket.error().c_str()), kUnreachable;
  invocation.socket = socket.value();
  return command->run(invocation);
}

}  // namespace
}  // namespace tally::tool

int main(int argc, char** argv) {
  try {
    return tally::tool::run(argc, argv);
  } catch (const std::exception& error) {  // cxxopts reports usage by exceptions
    return tally::tool::usage(error.what());
  }
}
