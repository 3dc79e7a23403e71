#include "books/batch.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "cluster/bucket_book.h"
#include "core/windows.h"

namespace tally {
namespace {

using nlohmann::json;

int64_t us(Duration d) { return std::chrono::duration_cast<std::chrono::microseconds>(d).count(); }
int64_t us(WallTime t) { return us(t.time_since_epoch()); }

constexpr char kDigits[] = "0123456789abcdef";

template <typename Bytes>
std::string hex(const Bytes& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// 20 bytes.
std::string line_name(const BooksCaller& caller, uint32_t line) {
  std::string name;
  const auto add = [&name](uint64_t n, int bits) {
    for (int shift = bits - 8; shift >= 0; shift -= 8) name += static_cast<char>(n >> shift & 255);
  };
  add(caller.node, 64);
  add(caller.incarnation, 64);
  add(line, 32);
  return name;
}

// The script looks at the next window in the last two; this clock may be another one.
constexpr int kAheadIntervals = 3;

// No honest amount is larger; books have 7 bytes for each.
uint64_t told(uint64_t amount) { return std::min(amount, (uint64_t{1} << 56) - 1); }

// Names of books, each once, as numbers from 2 on: the generation's is the first.
class Keys {
 public:
  explicit Keys(std::string generation) { names_.push_back(std::move(generation)); }
  size_t number_of(std::string name) {
    const auto [at, fresh] = numbers_.try_emplace(name, names_.size() + 1);
    if (fresh) names_.push_back(std::move(name));
    return at->second;
  }
  std::vector<std::string> take() { return std::move(names_); }

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string, size_t> numbers_;
};

json row_of(const BooksReport& asked, const BooksCaller& caller, const BooksTerms& terms, const BooksNames& names, Keys& keys) {
  const Report& r = asked.report;
  const bool bucket = r.terms.algorithm == Algorithm::token_bucket;
  const bool sliding = r.terms.algorithm == Algorithm::sliding_window;
  const size_t book = keys.number_of(bucket ? names.bucket(r.key) : names.window(r.key, r.window));
  const size_t before = sliding ? keys.number_of(names.window(r.key, r.window - 1)) : 0;
  json row = json::array({bucket ? "b" : "w", book, before, line_name(caller, r.line), r.has_ballot, r.ballot.counter, told(r.used), told(r.returned), told(r.refunded), told(r.given),
                          told(r.ceiling), told(r.granted_heard), told(r.wanted), told(r.waiting_min), told(r.waiting), r.demand_milli, r.stamp / 1000, r.floor, r.final, terms.far,
                          hex_digits(r.reset), r.terms.limit, sliding, r.terms.max_overcount.unbounded, asked.begin.knows_before});
  if (bucket) {
    const Duration span = r.terms.emission * static_cast<int64_t>(r.terms.limit);
    for (const int64_t n : {int64_t{0}, int64_t{0}, nanos(r.terms.emission), static_cast<int64_t>(r.lease), nanos(lease_for(span, terms.lease, terms.sync_interval))})
      row.push_back(n);
    row.push_back(nanos(asked.begin.charged));
  } else {
    row.push_back(us(window_start(r.window, r.terms.window)));
    row.push_back(us(window_end(r.window, r.terms.window)));
    const WallTime end = window_end(r.window, r.terms.window);
    const bool ahead = r.terms.algorithm == Algorithm::fixed_window && !r.terms.max_overcount.unbounded && !r.final && asked.begin.takes_next &&
                       end - terms.now <= terms.sync_interval * kAheadIntervals;
    row.push_back(ahead ? keys.number_of(names.window(r.key, r.window + 1)) : 0);
    row.push_back(ahead ? us(window_end(r.window + 1, r.terms.window)) : 0);
    for (int i = 0; i < 2; ++i) row.push_back(0);
  }
  row.push_back(asked.begin.order);
  row.push_back(us(asked.begin.order_until));
  return row;
}

std::optional<uint64_t> number_of_hex(const std::string& text) {
  uint64_t n = 0;
  if (text.size() != 16) return std::nullopt;
  for (const char c : text) {
    const auto* digit = std::find(kDigits, kDigits + 16, c);
    if (digit == kDigits + 16) return std::nullopt;
    n = n << 4 | static_cast<uint64_t>(digit - kDigits);
  }
  return n;
}

// What a script says is within these; the lessee has closer bounds.
uint64_t amount(const json& n) { return n.is_number_integer() || n.is_number_float() ? static_cast<uint64_t>(std::clamp(n.get<double>(), 0.0, 0x1p53)) : 0; }
Duration microseconds(const json& n) { return std::chrono::microseconds(std::min<uint64_t>(amount(n), uint64_t{1} << 45)); }

constexpr size_t kGrantFields = 13;  // and maybe one more row, of the window after

Grant grant_of(const json& row, const WireId& key, int64_t window, uint32_t line, const BooksCaller& caller) {
  Grant grant;
  grant.key = key;
  grant.window = window;
  grant.ballot = {static_cast<uint32_t>(amount(row[0])), caller.store};
  grant.line = line;
  grant.incarnation = caller.incarnation;
  grant.granted = amount(row[1]);
  grant.used_fleet = amount(row[2]);
  grant.pool = static_cast<uint8_t>(std::min<uint64_t>(amount(row[3]), 255));
  grant.demand_share = static_cast<uint16_t>(std::min<uint64_t>(amount(row[4]), UINT16_MAX));
  grant.exhausted = row[5] == true;
  grant.stop = row[6] == true;
  grant.backed = true;
  grant.ask_again = microseconds(row[8]);
  grant.reset = row[9].is_string() ? number_of_hex(row[9].get<std::string>()).value_or(0) : 0;
  grant.lease = amount(row[10]);
  grant.lease_for = Duration(static_cast<int64_t>(amount(row[11])));
  grant.tat_ahead = Duration(static_cast<int64_t>(amount(row[12])));
  return grant;
}

void add_grants(const json& row, const Report& report, int64_t window, const BooksCaller& caller, std::vector<Grant>& out) {
  Grant grant = grant_of(row, report.key, window, report.line, caller);
  grant.stamp = report.stamp;
  out.push_back(grant);
  if (row[7] != true) return;
  grant.stamp = 0;  // unasked: what is not used is looked for
  out.push_back(grant);
}

bool is_grant(const json& row, size_t more) { return row.is_array() && (row.size() == kGrantFields || row.size() == kGrantFields + more); }

}  // namespace

std::string hex_digits(uint64_t n) {
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; n >>= 4) text[i] = kDigits[n & 15];
  return text;
}

std::string BooksNames::window(const WireId& key, int64_t number) const { return start(tag_of(key)) + hex(key.bytes) + ":" + std::to_string(number); }

std::string BooksNames::bucket(const WireId& key) const { return start(tag_of(key)) + hex(key.bytes); }

std::string BooksNames::count(const WireId& key) const { return start(tag_of(key)) + std::string(kCentralMark) + hex(key.bytes); }

std::optional<std::pair<WireId, int64_t>> BooksNames::window_of(std::string_view name) const {
  const size_t end = name.rfind(':');
  WireId key;
  if (end == std::string_view::npos || end < 2 * key.bytes.size()) return std::nullopt;
  const std::string_view digits = name.substr(end - 2 * key.bytes.size(), 2 * key.bytes.size());
  for (size_t i = 0; i < key.bytes.size(); ++i)
    if (std::from_chars(&digits[2 * i], &digits[2 * i] + 2, key.bytes[i], 16).ptr != &digits[2 * i] + 2) return std::nullopt;
  int64_t number = 0;
  const std::string_view rest = name.substr(end + 1);
  if (std::from_chars(rest.data(), rest.data() + rest.size(), number).ptr != rest.data() + rest.size() || window(key, number) != name) return std::nullopt;
  return std::pair(key, number);
}

BooksCall books_call(std::span<const BooksReport> reports, const BooksCaller& caller, const BooksTerms& terms, const BooksNames& names) {
  Keys keys(names.generation(terms.tag));
  json rows = json::array();
  for (const BooksReport& report : reports) rows.push_back(row_of(report, caller, terms, names, keys));
  const json all = json::array({terms.server, terms.generation, us(terms.quiet), json::array({us(terms.recent), us(terms.shares_for), us(terms.sync_interval)}), std::move(rows), terms.generation_since});
  const auto packed = json::to_msgpack(all);
  return {keys.take(), std::string(packed.begin(), packed.end())};
}

Result<BooksAnswer> books_answer(std::string_view bytes, std::span<const BooksReport> reports, const BooksCaller& caller) {
  const Failure wrong{"the script in Redis has answered something that is no answer of it"};
  const json all = json::from_msgpack(bytes.begin(), bytes.end(), true, false);
  if (!all.is_array() || all.size() != 5 || !all[3].is_array() || all[3].size() != reports.size()) return wrong;
  BooksAnswer answer;
  answer.generation = amount(all[0]);
  answer.generation_since = amount(all[4]);
  answer.quiet_left = microseconds(all[1]);
  answer.now = WallTime(std::chrono::microseconds(static_cast<int64_t>(amount(all[2]))));
  for (size_t i = 0; i < reports.size(); ++i) {
    const json& row = all[3][i];
    if (row == false) continue;
    if (!is_grant(row, 1)) return wrong;
    add_grants(row, reports[i].report, reports[i].report.window, caller, answer.grants);
    if (row.size() == kGrantFields) continue;
    if (!is_grant(row[kGrantFields], 0)) return wrong;
    add_grants(row[kGrantFields], reports[i].report, reports[i].report.window + 1, caller, answer.grants);
  }
  return answer;
}

std::optional<Grant> books_push(std::string_view bytes, const BooksCaller& caller, const BooksNames& names) {
  const json all = json::from_msgpack(bytes.begin(), bytes.end(), true, false);
  if (!all.is_array() || all.size() != 3 || !all[0].is_string() || !all[1].is_string() || !is_grant(all[2], 0)) return std::nullopt;
  const auto place = names.window_of(all[0].get<std::string>());
  const auto line = all[1].get<std::string>();
  const std::string ours = hex(line_name(caller, 0)).substr(0, line.size() - std::min<size_t>(line.size(), 8));
  if (!place || line.size() != 40 || !line.starts_with(ours)) return std::nullopt;
  const auto number = number_of_hex("00000000" + line.substr(32));
  if (!number) return std::nullopt;
  return grant_of(all[2], place->first, place->second, static_cast<uint32_t>(*number), caller);
}

}  // namespace tally
