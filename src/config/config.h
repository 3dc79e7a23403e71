// Configuration: JSON with comments -> structs, or every error at once with its place and what to do.
//
// Thread rule: pure functions; the caller reads the file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/fail.h"
#include "base/time.h"
#include "config/books_url.h"
#include "core/rules.h"

namespace tally {

// A place in the text, 1-based, columns in bytes; the path reads like "rules[0].brust".
struct Problem {
  int line = 0;  // 0: no place in a file
  int column = 0;
  std::string path;
  std::string message;
  std::string file{};  // of the place, where that is another than the configuration's own
};

struct Address {  // where the daemon listens for applications
  enum class Kind : uint8_t { unix_socket, tcp } kind = Kind::unix_socket;
  std::string path;          // unix
  uint32_t mode = 0660;      // unix
  std::string host;          // tcp: a numeric address
  uint16_t port = 0;         // tcp
  std::string text() const;  // as it is written: "unix:/run/x.sock?mode=0660", "127.0.0.1:8380"
  friend bool operator==(const Address&, const Address&) = default;
};
// "unix:PATH[?mode=0660]", a bare absolute path, "HOST:PORT", "[::1]:PORT". The error says what is wrong.
Result<Address> parse_address(std::string_view text);

// What CL.THROTTLE's own limits get where nothing else is configured.
Rule default_inline_rule();

struct Config {
  std::string node_name;  // "": the host's name
  std::string state_dir;  // "": the default of the daemon
  std::vector<Address> resp, http, rls;
  struct Members {  // a numbered list of nodes
    std::vector<std::string> peers;        // "host:port"; empty: the aggregators alone
    std::vector<std::string> aggregators;  // those of the peers that keys belong to; empty: all
    uint32_t roster_version = 1;
    uint32_t size = 0;  // 0: as many as are listed
    std::optional<BooksUrl> books;  // keys belong to nobody: their books are there. nullopt: they are kept by the peers

    const std::vector<std::string>& entries() const { return peers.empty() ? aggregators : peers; }
    uint32_t nodes() const { return size != 0 ? size : static_cast<uint32_t>(entries().size()); }
    size_t owners() const { return aggregators.empty() ? peers.size() : aggregators.size(); }
    bool lists(std::string_view entry) const { return std::ranges::find(entries(), entry) != entries().end(); }
    friend bool operator==(const Members&, const Members&) = default;
  };
  struct Upstream : Members {  // the level above a region, as its own nodes list themselves
    std::string bind;          // this node's address there; "": the host of cluster.bind, any port
  };
  struct Cluster : Members {
    std::string bind;  // "": alone
    std::optional<std::string> self;
    std::optional<Members> previous;  // the list that this one replaces, until the change is over
    std::vector<std::string> gone;    // those of its peers that are stopped for good
    std::optional<Upstream> upstream;  // what the aggregators draw from
    Mode mode = Mode::leased;          // of rules that say nothing else, and of limits that come with a call
    Duration sync_interval = std::chrono::milliseconds(100);  // 1 ms to 1 min
    std::optional<Duration> isolation_after;                  // nullopt: max(2 s, 10 sync intervals)
    std::optional<Duration> lease;                            // nullopt: max(1 s, 10 sync intervals)
    std::string secret_file;  // absolute path; "": none, and then loopback only

    bool alone() const { return entries().size() <= 1 && aggregators.empty() && !books && !previous; }
    // In no list: a lessee of the aggregators.
    bool guest() const { return peers.empty() && !aggregators.empty() && !lists(own_entry()) && !(previous && previous->lists(own_entry())); }
    // Keys may belong to this node.
    bool owner() const;
    Duration isolation() const;
    Duration lease_length() const;
    std::string own_entry() const;  // self, or else bind
  } cluster;
  uint64_t table_keys = 1'048'576;
  struct Limits {
    uint64_t connections = 10'000, key_bytes = 1'024, pipeline_bytes = 1'048'576, waiting = 65'536,
             registers = 1'048'576, guests = 4'096;
    Duration http_idle = std::chrono::seconds(75);
  } limits;
  uint32_t workers = 0;  // 0: cores - 2, at least 1
  Duration spin{0};      // how long a worker looks for more to do before it sleeps
  Rule inline_rule = default_inline_rule();
  std::vector<Rule> rules;
};

// Where the fields of a text stand, for problems that are found later (after flags were laid over the file).
class Places {
 public:
  void add(std::string path, int line, int column) {
    at_.insert_or_assign(std::move(path), std::pair(line, column));
  }
  // Gives the problem the place of its path, or of the nearest path above it that is in the text.
  void locate(Problem& problem) const;
  void locate(std::vector<Problem>& problems) const;  // and puts them in order of place

 private:
  std::unordered_map<std::string, std::pair<int, int>> at_;
};

// The files that a configuration names for more of itself (overrides_file).
struct OtherFiles {
  std::string config_file;  // whose directory their paths begin in
  std::function<Result<std::string>(const std::string& path)> read;  // the whole of a file; none: they are left out

  std::string beside(const std::string& path) const {
    return path.starts_with('/') ? path : config_file.substr(0, config_file.rfind('/') + 1) + path;
  }
};

struct Parsed {
  Config config;                  // meaningful where errors is empty
  std::vector<Problem> errors;    // in order of place
  std::vector<Problem> warnings;  // legal but unwise, advice(config) included: what, and what to change
  Places places;                  // of every value of the text
};

// `lay_over` changes what the text said before the whole is checked: command line flags go on top of a file
// that may be incomplete without them (a fleet's common file and each node's --bind).
Parsed parse_config(std::string_view text, const std::function<void(Config&)>& lay_over = {}, const OtherFiles& files = {});
// Checks that need the whole: used again after command line flags were laid over the file.
std::vector<Problem> validate(const Config& config);
// Whether this build has the gRPC door. Where it has none, a Config with `rls` is not valid.
bool built_with_rls();
// What of `next` a daemon that runs by `running` cannot change without a restart. `known`: its rules so far, former ones included
// (RuleSet): no rule may have another algorithm or window than it ever had under its name.
// Whether it has other lists of nodes: a node goes by them from the beginning of a life.
bool other_lists(const Config& running, const Config& next);
std::vector<Problem> refused_by_reload(const Config& running, const Config& next, const RuleSet& known);
// What is legal but unwise on this cluster: a floor of 0, a window that cannot lease in time, a fleet of two,
// ...
std::vector<Problem> advice(const Config& config);
inline constexpr size_t kRuleNameMax = 64;
// "" where a rule may be named so; else what is wrong with it.
std::string wrong_rule_name(std::string_view name);
// "FILE:11:51: rules[0].brust: unknown field; did you mean \"burst\"?" `file`: of problems that are in no other.
std::string format_problem(std::string_view file, const Problem& problem);
// The whole configuration with every default written out, as JSON that parse_config reads back to the same.
std::string print_config(const Config& config);

// For each rule what it really promises on this cluster, as aligned text: limit, e, floors, bound, bound
// where a node is cut off, what has to wait and which e would end that. Requires a valid configuration.
std::string describe_promises(const Config& config);
// "1000 per 1m, sliding", "50/s, burst 100".
std::string describe_limit(const Rule& rule);

// One number and one unit: ns us ms s m h d. The error says what is wrong.
Result<Duration> parse_duration(std::string_view text);
std::string format_duration(Duration d);  // shortest exact form: "100ms", "90s", "1d"
// A window: such a duration, "second", "minute", "hour" or "day" for one of them, or "week", "month" or "year" (core/calendar.h).
Result<Duration> parse_window(std::string_view text);
std::string format_window(Duration window);  // "90s", "1d", "month"

}  // namespace tally
