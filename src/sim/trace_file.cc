#include "sim/trace_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/random.h"
#include "core/rules.h"

namespace tally::sim {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kSecondsMax = INT64_MAX / kSecond - 1;
constexpr size_t kShownMax = 40;  // of what is wrong

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// As it stands in a message: cut short, and nothing in it that a terminal obeys.
std::string shown(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, kShownMax)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return out + (text.size() > kShownMax ? "...'" : "'");
}

struct Problem {
  size_t column = 0;  // bytes before it in its line
  std::string message;
};

// --- the parts of a line ---

template <typename T>
std::optional<T> whole(std::string_view text) {
  T value{};
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || !is_digit(text[0]) || failed != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

// "1700000000.25"
std::optional<Duration> seconds_of(std::string_view text) {
  const size_t point = text.find('.');
  const auto seconds = whole<int64_t>(text.substr(0, point));
  if (!seconds || *seconds > kSecondsMax) return std::nullopt;
  int64_t ns = *seconds * kSecond;
  if (point == std::string_view::npos) return Duration(ns);
  const std::string_view digits = text.substr(point + 1);
  const auto part = whole<int64_t>(digits);
  if (!part || digits.size() > 9) return std::nullopt;
  int64_t scale = kSecond;
  for (size_t i = 0; i < digits.size(); ++i) scale /= 10;
  return Duration(ns + *part * scale);
}

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

constexpr unsigned kYearFirst = 1970, kYearLast = 2261;  // as nanoseconds of 64 bits hold them

// "10/Oct/2000:13:55:36 -0700"
std::optional<Duration> log_time_of(std::string_view t) {
  constexpr std::string_view kForm = "00/aaa/0000:00:00:00 +0000";
  if (t.size() != kForm.size()) return std::nullopt;
  for (size_t i = 0; i < t.size(); ++i) {
    const bool fits = kForm[i] == '0'   ? is_digit(t[i])
                      : kForm[i] == '+' ? t[i] == '+' || t[i] == '-'
                                        : kForm[i] == 'a' || t[i] == kForm[i];
    if (!fits) return std::nullopt;
  }
  const auto number = [&](size_t at, size_t digits) { return *whole<unsigned>(t.substr(at, digits)); };
  const auto month = std::ranges::find(kMonths, t.substr(3, 3));
  const std::chrono::year_month_day day(
      std::chrono::year(static_cast<int>(number(7, 4))),
      std::chrono::month(static_cast<unsigned>(month - kMonths.begin()) + 1), std::chrono::day(number(0, 2)));
  if (!day.ok() || number(7, 4) < kYearFirst || number(7, 4) > kYearLast || number(12, 2) > 23 ||
      number(15, 2) > 59 || number(18, 2) > 60 || number(24, 2) > 59)
    return std::nullopt;
  const Duration zone = std::chrono::hours(number(22, 2)) + std::chrono::minutes(number(24, 2));
  const Duration time = std::chrono::sys_days(day).time_since_epoch() + std::chrono::hours(number(12, 2)) +
                        std::chrono::minutes(number(15, 2)) + std::chrono::seconds(number(18, 2)) +
                        (t[21] == '-' ? zone : -zone);
  return time < Duration(0) ? std::nullopt : std::optional(time);
}

struct Field {
  size_t column = 0;
  std::string text;
};

// The fields of a line of CSV, or what is wrong with it.
std::optional<Problem> split(std::string_view line, std::vector<Field>& out) {
  out.clear();
  for (size_t at = 0;; ++at) {
    Field field{at, ""};
    if (at < line.size() && line[at] == '"') {
      for (++at; at < line.size() && (line[at] != '"' || line.substr(at, 2) == "\"\""); ++at) {
        if (line[at] == '"') ++at;
        field.text += line[at];
      }
      if (at == line.size()) return Problem{field.column, "the quotation mark is not closed on this line"};
      if (++at < line.size() && line[at] != ',')
        return Problem{at, "expected a comma or the end of the line after the quotation mark"};
    } else {
      const size_t end = std::min(line.find(',', at), line.size());
      field.text = line.substr(at, end - at);
      at = end;
    }
    out.push_back(std::move(field));
    if (at >= line.size()) return std::nullopt;
  }
}

// --- the whole ---

class TraceReader {
 public:
  TraceReader(std::string_view text, const TraceTerms& terms)
      : text_(text), terms_(terms), random_(terms.seed) {}

  Result<Trace> read() {
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
    std::string_view line;
    for (bool first = true; next(line); first = false) {
      const auto problem = first          ? begin(line)
                           : line.empty() ? std::nullopt
                           : log_         ? read_log(line)
                                          : read_csv(line);
      if (problem) return at(*problem);
      if (trace_.arrivals.size() > kTraceRequestsMax)
        return at({0, "more than " + std::to_string(kTraceRequestsMax) + " requests"});
    }
    if (trace_.arrivals.empty()) {
      ++line_;
      return at({0, line_ == 1 ? "the trace is empty; expected " + std::string(kFormats)
                               : "expected a request, got the end of the trace"});
    }
    return finish();
  }

 private:
  enum Column : uint8_t { time, key, cost, node, kColumns };
  static constexpr std::array<std::string_view, kColumns> kNames = {"time", "key", "cost", "node"};
  static constexpr size_t kMissing = SIZE_MAX;
  static constexpr std::string_view kFormats =
      "a header line such as time,key,cost or a line of a web server's common log";

  bool next(std::string_view& line) {
    if (text_.empty()) return false;
    ++line_;
    const size_t end = text_.find('\n');
    line = text_.substr(0, end);
    text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return true;
  }

  Failure at(const Problem& problem) const {
    return {std::to_string(line_) + ":" + std::to_string(problem.column + 1) + ": " + problem.message};
  }

  std::optional<Problem> begin(std::string_view line) {
    log_ = line.find(" [") != std::string_view::npos;
    return log_ ? read_log(line) : read_header(line);
  }

  std::optional<Problem> read_header(std::string_view line) {
    places_.fill(kMissing);
    if (const auto problem = split(line, fields_)) return problem;
    bool any = false;
    for (size_t i = 0; i < fields_.size(); ++i) {
      const auto found = std::ranges::find(kNames, fields_[i].text);
      if (found == kNames.end())
        return Problem{fields_[i].column,
                       any || i > 0
                           ? "no column " + shown(fields_[i].text) + ", only time, key, cost and node"
                           : "expected " + std::string(kFormats) + ", got " + shown(line)};
      any = true;
      size_t& place = places_[static_cast<size_t>(found - kNames.begin())];
      if (place != kMissing) return Problem{fields_[i].column, "a second column " + shown(fields_[i].text)};
      place = i;
    }
    for (const Column needed : {time, key})
      if (places_[needed] == kMissing)
        return Problem{line.size(),
                       "no column '" + std::string(kNames[needed]) + "'; time and key are needed"};
    columns_ = fields_.size();
    return std::nullopt;
  }

  std::optional<Problem> read_csv(std::string_view line) {
    if (const auto problem = split(line, fields_)) return problem;
    if (fields_.size() != columns_)
      return Problem{fields_.size() > columns_ ? fields_[columns_].column - 1 : line.size(),
                     "expected " + std::to_string(columns_) + " fields as in the header line, got " +
                         std::to_string(fields_.size())};
    const auto field = [&](Column c) -> const Field& { return fields_[places_[c]]; };
    const auto when = seconds_of(field(time).text);
    if (!when)
      return Problem{field(time).column,
                     "time: expected seconds such as 1700000000.25, got " + shown(field(time).text)};
    std::optional<uint32_t> units = 1;
    if (places_[cost] != kMissing) units = whole<uint32_t>(field(cost).text);
    if (!units || *units < 1 || *units > kLimitMax)
      return Problem{field(cost).column, "cost: expected a whole number, 1 to " + std::to_string(kLimitMax) +
                                             ", got " + shown(field(cost).text)};
    std::optional<uint16_t> rank;
    if (places_[node] != kMissing) {
      rank = whole<uint16_t>(field(node).text);
      if (!rank || *rank >= terms_.nodes)
        return Problem{field(node).column, "node: expected a whole number, 0 to " +
                                               std::to_string(terms_.nodes - 1) + " (there are " +
                                               std::to_string(terms_.nodes) + " nodes), got " +
                                               shown(field(node).text)};
    }
    return add(*when, field(key), *units, rank);
  }

  std::optional<Problem> read_log(std::string_view line) {
    const size_t space = line.find(' '), open = line.find(" [");
    if (space == std::string_view::npos || open == std::string_view::npos)
      return Problem{0, "expected an address and a time in brackets, as in a common log, got " + shown(line)};
    const size_t begin = open + 2, close = line.find(']', begin);
    const std::string_view stamp =
        line.substr(begin, close == std::string_view::npos ? close : close - begin);
    const auto when = close == std::string_view::npos ? std::nullopt : log_time_of(stamp);
    if (!when)
      return Problem{begin, "expected a time such as 10/Oct/2000:13:55:36 -0700, got " + shown(stamp)};
    return add(*when, {0, std::string(line.substr(0, space))}, 1, std::nullopt);
  }

  std::optional<Problem> add(Duration when, const Field& name, uint32_t units, std::optional<uint16_t> rank) {
    if (name.text.empty() || name.text.size() > kTraceKeyMax)
      return Problem{name.column, "key: expected 1 to " + std::to_string(kTraceKeyMax) + " bytes, got " +
                                      std::to_string(name.text.size())};
    const auto [found, is_new] = numbers_.try_emplace(name.text, static_cast<uint32_t>(trace_.keys.size()));
    if (is_new) trace_.keys.push_back(name.text);
    if (!rank) rank = static_cast<uint16_t>(random_.below(terms_.nodes));
    trace_.arrivals.push_back({when, *rank, found->second, units});
    return std::nullopt;
  }

  Result<Trace> finish() {
    auto& arrivals = trace_.arrivals;
    std::ranges::stable_sort(arrivals, {}, &Arrival::at);
    if (log_) spread_within_seconds();
    trace_.origin = arrivals.front().at;
    if (arrivals.back().at - trace_.origin > kTraceSpanMax)
      return at({0, "the trace takes " +
                        std::to_string((arrivals.back().at - trace_.origin) / std::chrono::hours(24)) +
                        " days; expected 31 at most from its first request to its last"});
    for (Arrival& a : arrivals) a.at -= trace_.origin;
    return std::move(trace_);
  }

  void spread_within_seconds() {
    auto& arrivals = trace_.arrivals;
    for (size_t i = 0; i < arrivals.size();) {
      size_t end = i;
      while (end < arrivals.size() && arrivals[end].at == arrivals[i].at) ++end;
      const auto n = static_cast<int64_t>(end - i);
      for (int64_t k = 0; k < n; ++k, ++i) arrivals[i].at += Duration(kSecond * k / n);
    }
  }

  std::string_view text_;
  const TraceTerms terms_;
  Random random_;
  size_t line_ = 0;
  bool log_ = false;
  std::array<size_t, kColumns> places_{};  // of the columns among the fields
  size_t columns_ = 0;
  std::vector<Field> fields_;  // scratch
  std::unordered_map<std::string, uint32_t> numbers_;
  Trace trace_;
};

}  // namespace

Result<Trace> parse_trace(std::string_view text, const TraceTerms& terms) {
  CHECK_THAT(terms.nodes >= 1);
  return TraceReader(text, terms).read();
}

}  // namespace tally::sim
