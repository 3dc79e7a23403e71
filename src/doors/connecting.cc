// What Redis clients ask on connecting, and for housekeeping. Each answer is here because some client needs
// it: ioredis fails without INFO, node-redis without HELLO 3, redis-cli asks COMMAND DOCS, redis-benchmark
// CONFIG GET. Texts of errors are Redis's own, since clients compare them.
#include <algorithm>
#include <array>
#include <optional>

#include "doors/command_table.h"

namespace tally::resp {
namespace {

// The Redis whose manners these are: clients choose what to send by it.
constexpr std::string_view kRedisVersion = "7.0.0";
constexpr size_t kNameMax = 256;

void ok(Call& call) { call.reply.simple("OK"); }

// Printable and without spaces, so that CLIENT LIST stays one word a field.
bool is_name(std::string_view text) {
  return text.size() <= kNameMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
}

bool check_name(Call& call, std::string_view what, std::string_view text) {
  if (is_name(text)) return true;
  refuse(call, Fault::arguments,
         "ERR " + std::string(what) + " cannot contain spaces, newlines or special characters.");
  return false;
}

// The one user there is has no password: any is right for it, and none for others.
bool check_user(Call& call, std::string_view user) {
  if (user == "default") return true;
  refuse(call, Fault::authentication, "WRONGPASS invalid username-password pair or user is disabled.");
  return false;
}

void refuse_subcommand(Call& call, std::string_view of) {
  refuse(call, Fault::unknown_command,
         "ERR unknown subcommand " + quoted(call.args[1]) + ". " + std::string(of));
}

bool check_subcommand_arity(Call& call, size_t low, size_t high) {
  if (call.args.size() >= low && call.args.size() <= high) return true;
  refuse_arity(call, lower(call.args[0]) + "|" + lower(call.args[1]));
  return false;
}

std::string client_line(const Call& call) {
  const Connection& c = call.connection;
  std::string line = "id=" + std::to_string(c.id);
  line.append(" name=").append(c.name).append(" db=0 user=default resp=").append(std::to_string(c.version));
  line.append(" lib-name=").append(c.library).append(" lib-ver=").append(c.library_version);
  return line.append("\n");
}

void set_info(Call& call) {
  if (!check_subcommand_arity(call, 4, 4)) return;
  const std::string_view what = call.args[2], value = call.args[3];
  const bool is_name_field = equals_ignoring_case(what, "lib-name");
  if (!is_name_field && !equals_ignoring_case(what, "lib-ver")) {
    return refuse(call, Fault::arguments, "ERR Unrecognized option " + quoted(what));
  }
  if (!check_name(call, what, value)) return;
  (is_name_field ? call.connection.library : call.connection.library_version) = value;
  ok(call);
}

// [name, arity, flags, first key, last key, step, categories, tips, key specifications, subcommands]
void write_command(Writer& reply, const Command& command) {
  reply.array(10);
  reply.bulk(command.name);
  reply.integer(command.args_min == command.args_max ? command.args_min : -int{command.args_min});
  std::vector<std::string_view> flags;
  for (std::string_view rest = command.flags; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    flags.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  reply.array(flags.size());
  for (const std::string_view flag : flags) reply.simple(flag);
  reply.integer(command.key_first);
  reply.integer(command.key_last);
  reply.integer(command.key_first == 0 ? 0 : 1);
  for (int i = 0; i < 4; ++i) reply.array(0);
}

void write_arguments(Writer& reply, std::string_view usage) {
  std::vector<std::string_view> words;
  for (std::string_view rest = usage; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    words.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  reply.array(words.size());
  for (std::string_view word : words) {
    const bool optional = word.starts_with('[');
    if (optional) word = word.substr(1, word.size() - 2);
    reply.map(optional ? 3 : 2);
    reply.bulk("name");
    reply.bulk(word);
    reply.bulk("type");
    reply.bulk("string");
    if (!optional) continue;
    reply.bulk("flags");
    reply.array(1);
    reply.simple("optional");
  }
}

void write_documentation(Writer& reply, const Command& command) {
  reply.bulk(command.name);
  reply.map(4);
  reply.bulk("summary");
  reply.bulk(command.summary);
  reply.bulk("since");
  reply.bulk("0.1.0");
  reply.bulk("group");
  reply.bulk(command.group);
  reply.bulk("arguments");
  write_arguments(reply, command.usage);
}

// COMMAND INFO and DOCS: all commands, or those named.
std::vector<const Command*> named_commands(const Call& call) {
  std::vector<const Command*> chosen;
  if (call.args.size() == 2) {
    for (const Command& command : commands()) chosen.push_back(&command);
  }
  for (const std::string_view name : call.args.subspan(2)) chosen.push_back(find_command(name));
  return chosen;
}

// Redis's patterns as far as anybody asks them here: * and ?, without case. Linear in text times stars met:
// after a mismatch only the last star is tried again.
bool matches(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() &&
               (pattern[p] == '?' || equals_ignoring_case(pattern.substr(p, 1), text.substr(t, 1)))) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void config_get(Call& call) {
  if (call.args.size() < 3) return refuse_arity(call, "config|get");
  const std::array<std::pair<std::string_view, std::string>, 6> settings{{
      {"appendonly", "no"},
      {"databases", "1"},
      {"maxclients", std::to_string(call.env.connections_max)},
      {"maxmemory", "0"},
      {"save", ""},
      {"timeout", "0"},
  }};
  std::vector<const std::pair<std::string_view, std::string>*> chosen;
  for (const auto& setting : settings) {
    const auto wanted = [&](std::string_view pattern) { return matches(pattern, setting.first); };
    const auto patterns = call.args.subspan(2);
    if (std::any_of(patterns.begin(), patterns.end(), wanted)) chosen.push_back(&setting);
  }
  call.reply.map(chosen.size());
  for (const auto* setting : chosen) {
    call.reply.bulk(setting->first);
    call.reply.bulk(setting->second);
  }
}

using Facts = std::vector<std::pair<std::string_view, std::string>>;

struct Section {
  std::string_view name, title;
  Facts (*facts)(const Env&);
};

std::string seconds(Duration d) { return std::to_string(nanos(d) / 1'000'000'000); }

constexpr std::array<Section, 6> kSections{{
    {"server", "Server",
     [](const Env& env) {
       return Facts{{"redis_version", std::string(kRedisVersion)},
                    {"redis_mode", "standalone"},
                    {"server_name", "tallyd"},
                    {"tallyd_version", std::string(env.version)},
                    {"tallyd_node", std::string(env.node)},
                    {"process_id", std::to_string(env.process_id)},
                    {"uptime_in_seconds", seconds(env.uptime)},
                    {"uptime_in_days", std::to_string(nanos(env.uptime) / 86'400'000'000'000)}};
     }},
    {"clients", "Clients",
     [](const Env& env) {
       return Facts{{"connected_clients", std::to_string(env.connections)},
                    {"maxclients", std::to_string(env.connections_max)}};
     }},
    {"persistence", "Persistence",
     [](const Env&) {
       return Facts{{"loading", "0"}};
     }},
    {"stats", "Stats",
     [](const Env& env) {
       return Facts{{"total_commands_processed", std::to_string(env.commands)}};
     }},
    {"replication", "Replication",
     [](const Env&) {
       return Facts{{"role", "master"}, {"connected_slaves", "0"}};
     }},
    {"cluster", "Cluster",
     [](const Env&) {
       return Facts{{"cluster_enabled", "0"}};
     }},
}};

bool wants_all(std::string_view section) {
  return equals_ignoring_case(section, "all") || equals_ignoring_case(section, "default") ||
         equals_ignoring_case(section, "everything");
}

struct Hello {
  int64_t version = 0;  // 0: as it is
  std::optional<std::string_view> name;
};

bool read_hello(Call& call, Hello& hello) {
  const auto args = call.args;
  if (args.size() > 1) {
    if (!parse_integer(args[1], hello.version)) {
      refuse(call, Fault::arguments, "ERR Protocol version is not an integer or out of range");
      return false;
    }
    if (hello.version != 2 && hello.version != 3) {
      refuse(call, Fault::arguments, "NOPROTO unsupported protocol version");
      return false;
    }
  }
  for (size_t i = 2; i < args.size();) {
    if (equals_ignoring_case(args[i], "auth") && i + 2 < args.size()) {
      if (!check_user(call, args[i + 1])) return false;
      i += 3;
    } else if (equals_ignoring_case(args[i], "setname") && i + 1 < args.size()) {
      if (!check_name(call, "Client names", args[i + 1])) return false;
      hello.name = args[i + 1];
      i += 2;
    } else {
      refuse(call, Fault::arguments, "ERR Syntax error in HELLO option " + quoted(args[i]));
      return false;
    }
  }
  return true;
}

}  // namespace

void run_auth(Call& call) {
  if (call.args.size() == 3) {
    if (check_user(call, call.args[1])) ok(call);
    return;
  }
  refuse(call, Fault::authentication,
         "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
         "configuration is correct?");
}

void run_client(Call& call) {
  const std::string sub = lower(call.args[1]);
  Connection& c = call.connection;
  if (sub == "setname") {
    if (!check_subcommand_arity(call, 3, 3) || !check_name(call, "Client names", call.args[2])) return;
    c.name = call.args[2];
    ok(call);
  } else if (sub == "getname") {
    if (!check_subcommand_arity(call, 2, 2)) return;
    c.name.empty() ? call.reply.null() : call.reply.bulk(c.name);
  } else if (sub == "id") {
    if (check_subcommand_arity(call, 2, 2)) call.reply.integer(static_cast<int64_t>(c.id));
  } else if (sub == "setinfo") {
    set_info(call);
  } else if (sub == "list" || sub == "info") {
    call.reply.bulk(client_line(call));  // of this connection alone: a worker does not know the others'
  } else if (sub == "maint_notifications" || sub == "no-evict" || sub == "no-touch") {
    ok(call);  // there is nothing to notify of, to evict or to touch
  } else {
    refuse_subcommand(call, "CLIENT has SETNAME, GETNAME, ID, SETINFO, LIST, INFO.");
  }
}

void run_command(Call& call) {
  if (call.args.size() == 1) {
    call.reply.array(commands().size());
    for (const Command& command : commands()) write_command(call.reply, command);
    return;
  }
  const std::string sub = lower(call.args[1]);
  if (sub == "count") {
    if (check_subcommand_arity(call, 2, 2)) call.reply.integer(static_cast<int64_t>(commands().size()));
  } else if (sub == "list") {
    if (!check_subcommand_arity(call, 2, 2)) return;
    call.reply.array(commands().size());
    for (const Command& command : commands()) call.reply.bulk(command.name);
  } else if (sub == "info") {
    const auto chosen = named_commands(call);
    call.reply.array(chosen.size());
    for (const Command* command : chosen)
      command != nullptr ? write_command(call.reply, *command) : call.reply.null();
  } else if (sub == "docs") {
    auto chosen = named_commands(call);
    std::erase(chosen, nullptr);
    call.reply.map(chosen.size());
    for (const Command* command : chosen) write_documentation(call.reply, *command);
  } else {
    refuse_subcommand(call, "COMMAND has COUNT, DOCS, INFO, LIST.");
  }
}

void run_config(Call& call) {
  if (equals_ignoring_case(call.args[1], "get")) return config_get(call);
  refuse_subcommand(call, "CONFIG has GET; what tallyd does is set in its file, see tallyd --print-config.");
}

void run_echo(Call& call) { call.reply.bulk(call.args[1]); }

void run_hello(Call& call) {
  Hello hello;
  if (!read_hello(call, hello)) return;
  if (hello.version != 0) call.connection.version = static_cast<int>(hello.version);
  if (hello.name) call.connection.name = *hello.name;
  call.request.barrier = true;
  call.request.version = call.connection.version;
  Writer reply(call.out, call.connection.version);
  reply.map(7);
  const auto field = [&](std::string_view name, std::string_view value) {
    reply.bulk(name);
    reply.bulk(value);
  };
  field("server", "tallyd");
  field("version", kRedisVersion);
  reply.bulk("proto");
  reply.integer(call.connection.version);
  reply.bulk("id");
  reply.integer(static_cast<int64_t>(call.connection.id));
  field("mode", "standalone");
  field("role", "master");
  reply.bulk("modules");
  reply.array(0);
}

// A web page can make a browser post to any local TCP port: the body's lines would be commands.
void run_http(Call& call) {
  call.request.barrier = call.request.close = true;
  refuse(call, Fault::protocol, "ERR this port speaks RESP, not HTTP");
}

void run_info(Call& call) {
  const auto wanted = call.args.subspan(1);
  std::string text;
  for (const Section& section : kSections) {
    const auto asks = [&](std::string_view name) {
      return wants_all(name) || equals_ignoring_case(name, section.name);
    };
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(), asks)) continue;
    if (!text.empty()) text += "\r\n";
    text.append("# ").append(section.title).append("\r\n");
    for (const auto& [name, value] : section.facts(call.env))
      text.append(name).append(":").append(value).append("\r\n");
  }
  call.reply.bulk(text);
}

void run_ping(Call& call) {
  call.args.size() == 1 ? call.reply.simple("PONG") : call.reply.bulk(call.args[1]);
}

void run_quit(Call& call) {
  call.request.barrier = call.request.close = true;
  ok(call);
}

void run_reset(Call& call) {
  call.request.barrier = true;
  call.request.version = 2;
  call.connection.version = 2;
  call.connection.name.clear();
  call.reply.simple("RESET");
}

void run_select(Call& call) {
  int64_t index = 0;
  if (!parse_integer(call.args[1], index)) {
    return refuse(call, Fault::arguments, "ERR value is not an integer or out of range");
  }
  if (index != 0) return refuse(call, Fault::arguments, "ERR DB index is out of range");
  ok(call);
}

void run_time(Call& call) {
  const int64_t micros = nanos(call.env.now) / 1000;
  call.reply.array(2);
  call.reply.bulk(std::to_string(micros / 1'000'000));
  call.reply.bulk(std::to_string(micros % 1'000'000));
}

}  // namespace tally::resp
