#include "books/batch.h"

#include <algorithm>
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

std::string line_name(const BooksCaller& caller, uint32_t line) { return hex_digits(caller.node) + hex_digits(caller.incarnation) + hex_digits(line).substr(8); }

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
  json row = json::array({bucket ? "b" : "w", book, before, line_name(caller, r.line), r.has_ballot, r.ballot.counter, r.used, r.returned, r.refunded, r.given,
                          r.ceiling, r.granted_heard, r.wanted, r.waiting_min, r.waiting, r.demand_milli, hex_digits(r.stamp), r.floor, r.final, terms.far,
                          hex_digits(r.reset), r.terms.limit, sliding, r.terms.max_overcount.unbounded, asked.begin.knows_before});
  if (bucket) {
    const Duration span = r.terms.emission * static_cast<int64_t>(r.terms.limit);
    for (const int64_t n : {int64_t{0}, int64_t{0}, nanos(r.terms.emission), static_cast<int64_t>(r.lease), nanos(lease_for(span, terms.lease, terms.sync_interval))})
      row.push_back(n);
    row.push_back(nanos(asked.begin.charged));
  } else {
    row.push_back(us(window_start(r.window, r.terms.window)));
    row.push_back(us(window_end(r.window, r.terms.window)));
    for (int i = 0; i < 4; ++i) row.push_back(0);
  }
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

constexpr size_t kGrantFields = 13;

void add_grants(const json& row, const Report& report, const BooksCaller& caller, std::vector<Grant>& out) {
  Grant grant;
  grant.key = report.key;
  grant.window = report.window;
  grant.ballot = {static_cast<uint32_t>(amount(row[0])), caller.store};
  grant.line = report.line;
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
  grant.stamp = report.stamp;
  grant.lease = amount(row[10]);
  grant.lease_for = Duration(static_cast<int64_t>(amount(row[11])));
  grant.tat_ahead = Duration(static_cast<int64_t>(amount(row[12])));
  out.push_back(grant);
  if (row[7] != true) return;
  grant.stamp = 0;  // unasked: what is not used is looked for
  out.push_back(grant);
}

}  // namespace

std::string hex_digits(uint64_t n) {
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; n >>= 4) text[i] = kDigits[n & 15];
  return text;
}

std::string BooksNames::window(const WireId& key, int64_t number) const { return start(tag_of(key)) + hex(key.bytes) + ":" + std::to_string(number); }

std::string BooksNames::bucket(const WireId& key) const { return start(tag_of(key)) + hex(key.bytes); }

std::string BooksNames::count(const WireId& key) const { return start(tag_of(key)) + "c1:" + hex(key.bytes); }

BooksCall books_call(std::span<const BooksReport> reports, const BooksCaller& caller, const BooksTerms& terms, const BooksNames& names) {
  Keys keys(names.generation(reports.empty() ? 0 : names.tag_of(reports.front().report.key)));
  json rows = json::array();
  for (const BooksReport& report : reports) rows.push_back(row_of(report, caller, terms, names, keys));
  const json all = json::array({terms.server, terms.generation, us(terms.quiet), json::array({us(terms.recent), us(terms.shares_for), us(terms.sync_interval)}), std::move(rows)});
  const auto packed = json::to_msgpack(all);
  return {keys.take(), std::string(packed.begin(), packed.end())};
}

Result<BooksAnswer> books_answer(std::string_view bytes, std::span<const BooksReport> reports, const BooksCaller& caller) {
  const Failure wrong{"the script in Redis has answered something that is no answer of it"};
  const json all = json::from_msgpack(bytes.begin(), bytes.end(), true, false);
  if (!all.is_array() || all.size() != 4 || !all[3].is_array() || all[3].size() != reports.size()) return wrong;
  BooksAnswer answer;
  answer.generation = amount(all[0]);
  answer.quiet_left = microseconds(all[1]);
  answer.now = WallTime(std::chrono::microseconds(static_cast<int64_t>(amount(all[2]))));
  for (size_t i = 0; i < reports.size(); ++i) {
    const json& row = all[3][i];
    if (row == false) continue;
    if (!row.is_array() || row.size() != kGrantFields) return wrong;
    add_grants(row, reports[i].report, caller, answer.grants);
  }
  return answer;
}

}  // namespace tally
