// RESP commands -> typed requests, and typed answers -> RESP replies. Pure: whoever owns the limiter, the
// clocks and the sockets stands between the two.
//
// Thread rule: pure functions; a Connection belongs to the thread that reads it. Total over any arguments.
// The decide path (CL.THROTTLE, TALLY.TAKE) allocates nothing once `reply` has grown. Units: seconds in
// CL.THROTTLE and its reply, milliseconds in all other replies.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/time.h"
#include "core/limiter.h"
#include "core/order_table.h"
#include "core/rules.h"
#include "doors/http_form.h"
#include "doors/resp.h"

namespace tally::resp {

// What a client said about itself.
struct Connection {
  uint64_t id = 0;
  int version = 2;  // HELLO
  std::string name, library, library_version;
};

// What a command may be answered from. Valid for one batch; `rules` must outlive the requests made from it.
struct Env {
  const RuleSet* rules = nullptr;
  uint64_t rules_number = 1;  // of `rules`: each that follows has a higher one; an address may come again
  size_t key_bytes_max = 1024;
  std::string_view version;  // of tallyd
  std::string_view node;
  int64_t process_id = 0;
  WallTime now{};
  Duration uptime{0};
  uint64_t connections = 0, connections_max = 0;
  uint64_t commands = 0;  // answered since the start
};

// How an answer is written.
enum class Form : uint8_t {
  six,       // write_six
  throttle,  // write_throttle
  lease,     // write_lease
  all,       // of several: write_all, then a write_six for each
};

inline constexpr size_t kPartsMax = 128;
inline constexpr uint32_t kTopRows = 10, kTopRowsMax = 1'000;  // of TALLY.TOP, unless it says; at most

// One take of several.
struct Part {
  const Rule* rule = nullptr;
  std::string_view key;  // into the arguments
  uint32_t cost = 1;     // 0: a peek
};

// Why a command was refused before it became a question; what tallyd_errors_total counts by.
enum class Fault : uint8_t { none, unknown_command, arguments, unknown_rule, authentication, protocol };
std::string_view name_of(Fault fault);  // "unknown_command", ...

struct Request {
  enum class Kind : uint8_t {
    answered,  // nothing to do: the reply is written already
    take,      // limiter.take; in the form of a lease what is admitted takes a portion of `most`, too
    take_all,  // all of `parts` or none
    peek,      // limiter.peek with `cost`; TALLY.PEEK (not throttle): peeked(that, the same with cost 0)
    give,      // `cost` to give back; then answer with the peek of cost 0
    lease,     // limiter.take_portion of `most`, and no question: write_lease with the peek of cost 0
    put_back,  // `cost` of a portion that was taken in the window of `account`: how much that was
    reset,     // +OK
    del,       // `keys` under the inline rule; the number of them that had a count
    explain,   // write_map
    peers,     // write_table
    stats,     // write_map
    reload,    // the configuration is read again: +OK, or an error
    forget,    // the node `key` is gone for good: +OK, or an error
    order,     // `ordered` of the key for `lasts`, `most` being the limit of OrderKind::limit: +OK, or an error
    lift,      // what was ordered of the key holds no longer: 1, or 0 where nothing did
    orders,    // write_maps: what is ordered of which keys
    metrics,   // over HTTP alone: the exposition text
    top,       // write_top: `cost` rows at most, of `rule` where there is one
  };
  Kind kind = Kind::answered;
  Form form = Form::six;
  bool barrier =
      false;  // what came before is answered first, and nothing after it is read before it is answered
  bool close = false;  // after the reply; what follows it on the connection is not read
  Fault fault = Fault::none;
  int version = 2;    // for the Writer of the reply: of the connection when the command was read
  uint32_t cost = 1;  // above the limit: never possible (saturates at 2^32 - 1)
  uint32_t most = 0;
  int64_t account = 0;
  OrderKind ordered = OrderKind::lifted;
  Duration lasts{0};
  const Rule* rule = nullptr;
  Limit limit;                         // the key's by its rule, or what came with the call
  // By the rule's overrides; exempt or blocked: the answer is answer_by, and nobody's limiter is asked. Of commands that decide, give back,
  // or explain; limited in all others.
  Treatment treatment = Treatment::limited;
  std::string_view key;                // into the arguments
  std::vector<std::string_view> keys;  // DEL alone
  std::vector<Part> parts;             // take_all alone
  http::Form http;                     // of a request over HTTP: it goes before `form` and `version`

  // As it is before a command is read; `limit` and `account` mean nothing then.
  void begin(int version_) {
    kind = Kind::answered;
    form = Form::six;
    barrier = close = false;
    fault = Fault::none;
    version = version_;
    cost = 1;
    most = 0;
    rule = nullptr;
    treatment = Treatment::limited;
    key = {};
    keys.clear();
    parts.clear();
    http = {};
  }
};

// "no rule 'lgoin'; did you mean 'login'?"
std::string no_such_rule(const RuleSet& rules, std::string_view name);

// Reads one command. Where the request is `answered`, its reply is appended to `reply`; otherwise nothing is,
// and the reply is up to the caller. Who decides in batches hands in a scratch string and copies from it when
// the turn comes. `request` is overwritten whole; it is a parameter so that it can be used again.
void read_command(std::span<const std::string_view> args, Connection& connection, const Env& env,
                  Request& request, std::string& reply);

// Sets what the rule has for the key: limit and treatment. Requires both, and a rule that has a limit.
inline void apply_rule(Request& request) {
  const Applied applied = request.rule->for_key(request.key);
  request.limit = *applied.limit;
  request.treatment = applied.treatment;
}

// The last of the six numbers.
enum class Reason : uint8_t {
  admitted = 0,
  over_limit = 1,
  no_grant = 2,
  isolated = 3,
  shadow = 4,  // refused, but the rule is in shadow: let through
  blocked = 5,
  exempt = 6,
};
std::string_view name_of(Reason reason);  // "admitted", "over_limit", ...
std::string_view name_of(OrderKind order);  // "block", "allow", "limit"; "lifted"
Reason reason_of(const Answer& answer, const Rule& rule);
// Of a peek: nobody waits in it, so a shortage that a grant would end counts as admitted.
Reason reason_of_peek(const Answer& answer, const Rule& rule);
// What TALLY.PEEK tells: of the answer that a take of 1 would get, whether and when; of the state of the key
// (a peek of cost 0), how much is there now.
Answer peeked(const Answer& of_one, const Answer& state);
constexpr bool is_limited(Reason reason) {
  return reason == Reason::over_limit || reason == Reason::no_grant || reason == Reason::isolated ||
         reason == Reason::blocked;
}

// True ceilings; -1 for a negative duration (was admitted, or never).
int64_t seconds_up(Duration d);
int64_t milliseconds_up(Duration d);

// [limited, limit, remaining, retry_after s, reset_after s]; retry_after is at least 1 where there is a wait.
void write_throttle(Writer& writer, const Answer& answer);
// [limited, limit, remaining, retry_after ms, reset_after ms, reason]
void write_six(Writer& writer, const Answer& answer, Reason reason);
// The six, then: how much was taken for later, for how long it may be spent (microseconds, rounded down), and the account that
// TALLY.PUTBACK names; 0: it can not be put back, as of a bucket.
struct Leased {
  uint32_t amount = 0;
  Duration lasts{0};
  int64_t account = 0;
};
void write_lease(Writer& writer, const Answer& answer, Reason reason, const Leased& leased);
// One of the first two, as the request wants it. For take, peek and give.
void write_answer(Writer& writer, const Request& request, const Answer& answer);
// Of several: [limited, index of the one that refused or -1, [six], ...]; the sixes are to follow.
void write_all(Writer& writer, std::optional<size_t> refused, size_t parts);

using Value = std::variant<int64_t, bool, double, std::string, std::vector<std::string>>;
struct Field {
  std::string name;
  Value value;
};
struct Row {
  std::string name;
  std::vector<Field> fields;
};
void write_map(Writer& writer, std::span<const Field> fields);
void write_table(Writer& writer, std::span<const Row> rows);  // a map of name -> map
void write_maps(Writer& writer, std::span<const std::vector<Field>> maps);  // an array of maps
// A key that is asked for often.
struct TopRow {
  std::string key;
  uint64_t admitted = 0, limited = 0;
  std::string rule;
};
void write_top(Writer& writer, std::span<const TopRow> rows);  // an array of [key, admitted, limited, rule]
// What each rule says and what it promises on a cluster of this size. The inline rule comes last.
std::vector<Row> describe_rules(const RuleSet& rules);
// For EXPLAIN: what the answer would be now, and why, in a sentence. `ordered`: something is, of the key.
std::string sentence(const Answer& answer, const Rule& rule, bool ordered);

}  // namespace tally::resp
