// Answers -> RESP replies (the second half of commands.h).
#include <algorithm>
#include <array>

#include "core/calendar.h"
#include "core/matcher.h"
#include "core/overrides.h"
#include "doors/commands.h"

namespace tally::resp {
namespace {

constexpr int64_t kSecond = 1'000'000'000, kMillisecond = 1'000'000, kMicrosecond = 1'000;

constexpr int64_t units_up(Duration d, int64_t unit) {
  const int64_t n = nanos(d);
  return n < 0 ? -1 : n / unit + (n % unit != 0);
}

constexpr std::string_view name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::sliding_window:
      return "sliding_window";
    case Algorithm::fixed_window:
      return "fixed_window";
    case Algorithm::token_bucket:
      return "token_bucket";
  }
  return "";
}

constexpr std::string_view name_of(OnIsolation policy) {
  switch (policy) {
    case OnIsolation::share:
      return "share";
    case OnIsolation::open:
      return "open";
    case OnIsolation::closed:
      return "closed";
  }
  return "";
}

// A refusal that says when to ask again says 1 at least: 0 would read as "now".
int64_t wait_in(Duration d, int64_t unit) {
  const int64_t n = units_up(d, unit);
  return n < 0 ? -1 : std::max<int64_t>(n, 1);
}

std::array<int64_t, 6> six_of(const Answer& answer, Reason reason) {
  const bool limited = is_limited(reason);
  return {limited,
          answer.limit,
          answer.remaining,
          limited ? wait_in(answer.retry_after, kMillisecond) : -1,
          std::max<int64_t>(milliseconds_up(answer.reset_after), 0),
          static_cast<int64_t>(reason)};
}

int64_t as_integer(uint64_t n) { return static_cast<int64_t>(std::min<uint64_t>(n, INT64_MAX)); }
std::string text(std::string_view s) { return std::string(s); }

void write_value(Writer& writer, const Value& value) {
  if (const auto* n = std::get_if<int64_t>(&value)) {
    writer.integer(*n);
  } else if (const auto* b = std::get_if<bool>(&value)) {
    writer.boolean(*b);
  } else if (const auto* d = std::get_if<double>(&value)) {
    writer.number(*d);
  } else if (const auto* s = std::get_if<std::string>(&value)) {
    writer.bulk(*s);
  } else if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    writer.array(list->size());
    for (const std::string& item : *list) writer.bulk(item);
  }
}

Row describe(const Rule& rule, Share share, bool is_inline) {
  Row row{rule.name, {}};
  auto add = [&](std::string name, Value value) {
    row.fields.push_back({std::move(name), std::move(value)});
  };
  if (!is_inline) {
    add("algorithm", text(name_of(rule.limit.algorithm)));
    add("limit", int64_t{rule.limit.limit});
    if (rule.limit.algorithm == Algorithm::token_bucket) {
      add("rate_count", int64_t{rule.rate_count});
      add("rate_period_ms", milliseconds_up(rule.rate_period));
    } else {
      if (is_calendar(rule.limit.window))  // has no length
        add("window", text(calendar_name(rule.limit.window)));
      else
        add("window_ms", milliseconds_up(rule.limit.window));
    }
  }
  if (rule.max_overcount.unbounded) {
    add("max_overcount", std::string("unbounded"));
  } else {
    add("max_overcount", rule.max_overcount.ppm / double{kPartsPerMillion});
  }
  if (!is_inline) {
    add("floor", int64_t{rule.limit.floor});
    add("bound", as_integer(bound_of(rule, share.size)));
    add("bound_isolated", as_integer(bound_isolated_of(rule, share.size)));
  }
  add("mode", std::string(rule.mode == Mode::central ? "central" : "leased"));
  add("on_isolation", text(name_of(rule.on_isolation)));
  add("on_amnesia", std::string(rule.on_amnesia == OnAmnesia::deny ? "deny" : "forget"));
  add("wait_ms", milliseconds_up(rule.wait));
  if (!is_inline) add("shadow", rule.shadow);
  if (!rule.also_names.empty()) add("also", rule.also_names);
  if (!rule.match.descriptors.empty()) add("match", text_of(rule.match));
  if (rule.overrides != nullptr) add("overrides", as_integer(rule.overrides->size()));
  if (!rule.comment.empty()) add("comment", rule.comment);
  return row;
}

}  // namespace

std::string_view name_of(Reason reason) {
  switch (reason) {
    case Reason::admitted:
      return "admitted";
    case Reason::over_limit:
      return "over_limit";
    case Reason::no_grant:
      return "no_grant";
    case Reason::isolated:
      return "isolated";
    case Reason::shadow:
      return "shadow";
    case Reason::blocked:
      return "blocked";
    case Reason::exempt:
      return "exempt";
  }
  return "";
}

std::string_view name_of(OrderKind order) {
  switch (order) {
    case OrderKind::lifted:
      return "lifted";
    case OrderKind::block:
      return "block";
    case OrderKind::allow:
      return "allow";
    case OrderKind::limit:
      return "limit";
  }
  return "";
}

Reason reason_of(const Answer& answer, const Rule& rule) {
  if (answer.verdict == Verdict::admitted) return Reason::admitted;
  if (answer.verdict == Verdict::exempt) return Reason::exempt;
  if (rule.shadow) return Reason::shadow;
  switch (answer.verdict) {
    case Verdict::starved:
      return Reason::no_grant;
    case Verdict::isolated:
      return Reason::isolated;
    case Verdict::blocked:
      return Reason::blocked;
    default:
      return Reason::over_limit;
  }
}

Reason reason_of_peek(const Answer& answer, const Rule& rule) {
  return answer.verdict == Verdict::starved && answer.remaining > 0 ? Reason::admitted
                                                                    : reason_of(answer, rule);
}

Answer peeked(const Answer& of_one, const Answer& state) {
  Answer answer = of_one;
  answer.remaining = state.remaining;
  answer.reset_after = state.reset_after;
  return answer;
}

int64_t seconds_up(Duration d) { return units_up(d, kSecond); }
int64_t milliseconds_up(Duration d) { return units_up(d, kMillisecond); }

void write_throttle(Writer& writer, const Answer& answer) {
  const bool limited = answer.verdict != Verdict::admitted && answer.verdict != Verdict::exempt;
  const std::array<int64_t, 5> numbers{limited, answer.limit, answer.remaining,
                                       limited ? wait_in(answer.retry_after, kSecond) : -1,
                                       std::max<int64_t>(seconds_up(answer.reset_after), 0)};
  writer.integers(numbers);
}

void write_six(Writer& writer, const Answer& answer, Reason reason) { writer.integers(six_of(answer, reason)); }

void write_lease(Writer& writer, const Answer& answer, Reason reason, const Leased& leased) {
  std::array<int64_t, 9> numbers{};
  std::ranges::copy(six_of(answer, reason), numbers.begin());
  numbers[6] = leased.amount;
  numbers[7] = std::max<int64_t>(nanos(leased.lasts) / kMicrosecond, 0);
  numbers[8] = leased.account;
  writer.integers(numbers);
}

void write_all(Writer& writer, std::optional<size_t> refused, size_t parts) {
  writer.array(2 + parts);
  writer.integer(refused.has_value());
  writer.integer(refused ? static_cast<int64_t>(*refused) : -1);
}

void write_answer(Writer& writer, const Request& request, const Answer& answer) {
  if (request.form == Form::throttle) return write_throttle(writer, answer);
  write_six(writer, answer,
            request.kind == Request::Kind::take ? reason_of(answer, *request.rule)
                                                : reason_of_peek(answer, *request.rule));
}

void write_map(Writer& writer, std::span<const Field> fields) {
  writer.map(fields.size());
  for (const Field& field : fields) {
    writer.bulk(field.name);
    write_value(writer, field.value);
  }
}

void write_table(Writer& writer, std::span<const Row> rows) {
  writer.map(rows.size());
  for (const Row& row : rows) {
    writer.bulk(row.name);
    write_map(writer, row.fields);
  }
}

void write_maps(Writer& writer, std::span<const std::vector<Field>> maps) {
  writer.array(maps.size());
  for (const std::vector<Field>& fields : maps) write_map(writer, fields);
}

void write_top(Writer& writer, std::span<const TopRow> rows) {
  writer.array(rows.size());
  for (const TopRow& row : rows) {
    writer.array(4);
    writer.bulk(row.key);
    writer.integer(as_integer(row.admitted));
    writer.integer(as_integer(row.limited));
    writer.bulk(row.rule);
  }
}

std::vector<Row> describe_rules(const RuleSet& rules) {
  std::vector<Row> rows;
  for (const Rule& rule : rules.all()) {
    rows.push_back(describe(rule, rules.share(), &rule == &rules.inline_rule()));
  }
  return rows;
}

std::string sentence(const Answer& answer, const Rule& rule, bool ordered) {
  const std::string of_limit =
      std::to_string(answer.remaining) + " of " + std::to_string(answer.limit) + " left";
  const std::string again =
      answer.retry_after < Duration(0)
          ? std::string()
          : "; try again in " + std::to_string(milliseconds_up(answer.retry_after)) + " ms";
  std::string result;
  switch (answer.verdict) {
    case Verdict::admitted:
      return "admitted: " + of_limit;
    case Verdict::over_limit:
      result = "limited: the limit of " + std::to_string(answer.limit) + " is used up" + again;
      break;
    case Verdict::starved:
      result = "waits for a grant of the owner, " + std::to_string(milliseconds_up(rule.wait)) +
               " ms at most: " + of_limit + ", as far as is known";
      break;
    case Verdict::isolated:
      result =
          "limited: nothing is left of what this node may admit by itself, and no owner can be asked" + again;
      break;
    case Verdict::blocked:
      result = ordered ? "blocked by an order" : "blocked by an override of the rule";
      break;
    case Verdict::exempt:
      return std::string(ordered ? "allowed by an order" : "exempt by an override of the rule") + ": all is admitted, and nothing counted";
  }
  return rule.shadow ? result + " (the rule is in shadow: let through)" : result;
}

}  // namespace tally::resp
