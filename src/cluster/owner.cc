#include "cluster/owner.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "core/windows.h"

namespace tally {

namespace {

// Of a key that may have an override only those who know the key's name know the limit: they report it.
bool has_one_limit(const Rule* rule) { return rule != nullptr && rule->overrides == nullptr; }

// Of the form that `terms` have.
void go_by(const Rule& rule, Terms& terms) {
  terms.limit = rule.limit.limit;
  terms.emission = rule.limit.emission;
  terms.max_overcount = rule.max_overcount;
}

constexpr Duration kLookAgain = std::chrono::seconds(1);  // at a bucket that is not over yet

bool sane(const Terms& terms) {
  if (terms.limit < 1 || terms.limit > kLimitMax || terms.max_overcount.ppm > kPartsPerMillion) return false;
  if (terms.algorithm == Algorithm::token_bucket)
    return terms.emission > Duration(0) && terms.emission <= kBurstSpanMax / static_cast<int64_t>(terms.limit);
  if (is_calendar(terms.window) && terms.algorithm != Algorithm::fixed_window) return false;
  return terms.window >= kWindowMin && terms.window <= kWindowMax;
}

}  // namespace

Owner::Owner(Surroundings around, size_t keys_max, MonoTime started)
    : around_(around), started_(started), keys_max_(keys_max), numbers_(around.incarnation << 20) {}

void Owner::prefetch(const WireId& id, int64_t window, int step) const {
  if (step == 0) return keys_.prefetch_cell(id);
  if (step == 1) return keys_.prefetch_value(id);
  const Key* const key = keys_.find(id);
  if (key == nullptr) return;
  const auto& book = key->books[static_cast<size_t>(window & 3)];
  if (!book) return;
  if (step == 2) return prefetch_object(&*book);
  const auto& lines = book->lines();
  if (!lines.empty()) prefetch_object(lines.data());  // one lessee's is all that there is, often
  for (size_t i = 1; i < std::min(lines.size(), kLinesPrefetched); ++i) prefetch_line(&lines[i]);
}

// ---- reports ----------------------------------------------------------------------------------------------------

void Owner::on_report(const Report& report, const Origin& from, Now now) {
  if (!sane(report.terms)) {
    ++dropped_["report_out_of_range"];
    return;
  }
  Key* key = key_for(report, now);
  if (key == nullptr) return;
  key->touched = now.mono;
  activate(*key);
  if (report.reset > key->reset) on_reset(report.key, report.reset, now);
  if (report.terms.algorithm == Algorithm::token_bucket)
    report_bucket(*key, report, from, now);
  else
    report_window(*key, report, from, now);
}

Owner::Key* Owner::key_for(const Report& report, Now now) {
  if (Key* const found = keys_.find(report.key)) {
    const Terms& terms = found->terms;
    if (terms.algorithm != report.terms.algorithm || terms.window != report.terms.window) {
      ++dropped_["rule_mismatch"];
      return nullptr;
    }
    found->stated = report.terms.limit;
    if (!has_one_limit(found->rule) && terms.algorithm != Algorithm::token_bucket) found->terms = report.terms;
    found->terms.limit = around_.ordered_limit(found->id).value_or(found->terms.limit);
    return found;
  }
  const Rule* rule = around_.rules->by_seed(report.rule);
  const OnAmnesia on_amnesia = rule != nullptr ? rule->on_amnesia : OnAmnesia::deny;
  if (rule == &around_.rules->inline_rule()) rule = nullptr;
  if (rule != nullptr && (rule->limit.algorithm != report.terms.algorithm || rule->limit.window != report.terms.window)) {
    ++dropped_["rule_mismatch"];
    return nullptr;
  }
  const Groups groups = around_.roster.groups(report.key);
  if (!groups.contains(around_.self)) {
    ++dropped_["not_owner"];
    return nullptr;
  }
  if (keys_.size() >= keys_max_) expire(now);
  if (keys_.size() >= keys_max_) {
    ++dropped_["ledger_full"];
    return nullptr;
  }
  Key& key = keys_[report.key];
  key.id = report.key;
  key.terms = report.terms;
  key.stated = report.terms.limit;
  key.groups = groups;
  key.rule = rule;
  key.on_amnesia = on_amnesia;
  if (has_one_limit(rule)) go_by(*rule, key.terms);
  key.terms.limit = around_.ordered_limit(key.id).value_or(key.terms.limit);
  key.born = now.wall;
  key.reset = around_.resets.number_of(key.id);
  return &key;
}

void Owner::use_rules() {
  keys_.for_each([&](const WireId&, Key& key) {
    if (key.rule == nullptr) return;
    const uint16_t rule = key.rule->id;
    key.rule = around_.rules->is_retired(rule) ? nullptr : &around_.rules->by_id(rule);
    if (key.rule == nullptr) return;
    key.on_amnesia = key.rule->on_amnesia;
    if (!has_one_limit(key.rule)) return;
    go_by(*key.rule, key.terms);
    lower_limit(key);
  });
}

// By other rules: reports may still come by those before.
void Owner::lower_limit(Key& key) {
  if (const auto ordered = around_.ordered_limit(key.id)) key.terms.limit = *ordered;
  for (auto& book : key.books)
    if (book) book->lower_limit(key.terms.limit);
}

// An order is known here as it was given, so that books go by it at once. When it has ended they go by the rule's number again, or
// by the one that reports state; as some may still be on their way that state the order's, the newest holds for a while.
void Owner::use_limit(const WireId& id, Now now) {
  Key* const key = keys_.find(id);
  if (key == nullptr) return;
  if (has_one_limit(key->rule)) go_by(*key->rule, key->terms);
  const auto ordered = around_.ordered_limit(id);
  if (ordered)
    key->terms.limit = *ordered;
  else if (!has_one_limit(key->rule))
    key->terms.limit = key->stated;
  for (auto& book : key->books)
    if (book) book->set_limit(key->terms.limit);
  if (!ordered && key->terms.algorithm != Algorithm::token_bucket) {
    const WallTime clock = around_.standing.clock();
    const int64_t next = window_at(clock, key->terms.window) + 1;
    key->newest_until = now.mono + (window_end(next, key->terms.window) - clock);
  }
  key->rests_in = 0;  // whoever was told that all is used may hear otherwise
  key->touched = now.mono;
  activate(*key);
}

// What a report comes with: the smallest number that one stated, but for a while after an order (use_limit).
void Owner::hear_limit(const Key& key, WindowBook& book, uint32_t stated, Now now) {
  if (around_.ordered_limit(key.id)) return;
  if (now.mono < key.newest_until)
    book.set_limit(key.terms.limit);
  else
    book.lower_limit(stated);
}

void Owner::use_pace() {
  keys_.for_each([&](const WireId&, Key& key) {
    if (key.bucket) key.bucket->use_recent(around_.recent());
    for (auto& book : key.books)
      if (book) book->use_recent(around_.recent());
  });
}

void Owner::activate(Key& key) {
  if (key.active) return;
  key.active = true;
  active_.push_back(key.id);
}

// No books here: whoever should be asked instead, or that it will not be long.
void Owner::refuse(const Key& key, const Report& report, const Origin& from, Now now) {
  const Contest* c = find_contest(key, report.window);
  const Ballot highest = highest_ballot(key, report.window, now);
  const auto other = around_.roster.rank_of(highest.node);
  Grant grant;
  grant.key = report.key;
  grant.window = report.window;
  grant.ballot = highest;
  grant.line = report.line;
  grant.incarnation = from.incarnation;
  grant.stamp = report.stamp;
  grant.refused = true;
  if (c == nullptr || !c->claim) {
    grant.ask_again = around_.pace.sync_interval;
    if (other && *other != around_.self) {
      grant.ask_again = Duration(0);
      if (!around_.peers.probing(*other)) grant.ask = highest.node;
    }
  }
  around_.mail.send(from.rank, grant);
}

WindowBook* Owner::open_book(Key& key, int64_t window, Now now) {
  if (WindowBook* book = key.book(window)) return book;
  // What is drawn from above is nobody else's: every member of the group may issue its own.
  if (around_.upstream != nullptr) return &begin_book(key, window, {by_chance(kFirstSpread), around_.roster.id(around_.self)}, 0);
  const WallTime begins = window_start(window, key.terms.window);
  // The natural owner begins at ballot 0, without a claim, only where its own register has nothing yet.
  if (!natural(key, window) || find_contest(key, window) != nullptr) return nullptr;
  if (!around_.succession.takes_part(key.groups, window, key.terms.window)) return nullptr;
  if (!around_.standing.may_vote(begins) || !around_.registers.may_begin(key.id, window, now)) return nullptr;
  // Nor where that register takes nothing any more: without a trace in it, books that were lost would be begun twice.
  if (key.terms.algorithm == Algorithm::sliding_window && around_.registers.may_tell(key.id, window, key.terms.window)) return nullptr;
  return &begin_book(key, window, {0, around_.roster.id(around_.self)}, 0);
}

WindowBook& Owner::begin_book(Key& key, int64_t window, Ballot ballot, uint64_t base) {
  retire(key);
  auto& slot = key.books[static_cast<size_t>(window & 3)];
  slot.emplace(window, key.terms, group(key, window), ballot, around_.recent(), base);
  if (around_.upstream != nullptr) slot->draw_from_above();
  key.rests_in = 0;
  return *slot;
}

void Owner::report_window(Key& key, const Report& report, const Origin& from, Now now) {
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);
  if (report.window < running - 1 || report.window > running + 1) {
    ++dropped_["window_out_of_range"];
    return;
  }
  WindowBook* book = report.final ? key.book(report.window) : open_book(key, report.window, now);
  if (book == nullptr) {
    if (report.final) return;
    heard_ballot(key, report.window, std::max(report.ballot, report.highest), now);
    claim_if_lost(key, report.window, report.insists, now);
    book = key.book(report.window);  // a group of one promises itself
    if (book == nullptr) return refuse(key, report, from, now);
  }
  hear_limit(key, *book, report.terms.limit, now);
  const LineKey line_key{around_.peers.id(from.rank), from.incarnation, report.line};
  Line* line = book->find(line_key);
  const bool heard_higher = report.has_ballot && report.ballot > book->ballot() && report.ballot.counter < UINT32_MAX - kStepSpread;
  if (book->above() && heard_higher && !report.final) {
    book = &rebase(key, *book, report.ballot);
    line = nullptr;
  }
  if (line == nullptr) {
    if (report.final && book->above()) return;
    if (book->lines().size() >= kLinesMax) {
      ++dropped_["lines_full"];
      return;
    }
    // It has heard this ballot from other books, of a life before a window was begun anew: what it gave back went there.
    if (report.has_ballot && report.ballot == book->ballot()) {
      ++dropped_["other_books"];
      return;
    }
    // A line that has heard a ballot had its floor charged under it. Charge each node's floor once, whatever is left.
    const uint32_t floor = report.has_ballot ? 0 : report.floor;
    line = &book->open(line_key, from.rank, floor);
  } else if (!report.has_ballot) {
    book->charge_floor(*line, report.floor);  // opened ahead, by books that had not charged its floor
  }
  line->rank = from.rank;  // a guest's may be another one by now
  book->merge(*line, report, now.mono);
  count_previous(key, *book);
  issue(key, *book, *line, now);
  resend_mark(key, *book, now);
  send_grant(key, *book, *line, report.stamp, now);
  serve_turned_away(key, *book, now);
  ask_above(key, *book, now);
  if (book->window() == running) key.rests_in = rests(*book) ? running : 0;
}

// ---- time ---------------------------------------------------------------------------------------------------------

void Owner::tick(Now now) {
  without_majority_ = 0;
  std::vector<WireId> still;
  still.reserve(active_.size());
  const auto prefetch_running = [&](const WireId& id, int step) {
    if (step < 2) return prefetch(id, 0, step);
    if (const Key* const key = keys_.find(id); key != nullptr && key->terms.window > Duration(0) && !rests(*key, now))
      prefetch(id, window_at(around_.standing.clock(), key->terms.window), step);
  };
  with_prefetch(std::exchange(active_, {}), prefetch_running, [&](const WireId& id) {
    Key* const found = keys_.find(id);
    if (found == nullptr) return;
    Key& key = *found;
    if (around_.upstream == nullptr && !group_lives(key, now)) {
      ++without_majority_;
      key.cut_off = now.mono;
    }
    if (key.terms.algorithm == Algorithm::token_bucket)
      tick_bucket(key, now);
    else if (!rests(key, now))
      tick_windows(key, now);
    // What is drawn from above is spent, or given back, at the latest when the leases of it have ended: see to that.
    const bool drawn = key.bucket && key.bucket->above() && key.bucket->above()->drawn > 0;
    key.active = drawn || now.mono - key.touched <= around_.recent();
    if (key.active) still.push_back(id);
  });
  still.insert(still.end(), active_.begin(), active_.end());  // what the round itself activated
  active_ = std::move(still);
  expire(now);
}

// No mark is under way, and nobody was turned away.
bool Owner::rests(const WindowBook& book) {
  if (book.above() || (book.needs_marks() && (book.mark_pending() || !book.previous_known()))) return false;
  return std::ranges::none_of(book.lines(), [](const Line& line) { return line.told_exhausted || line.turned_away; });
}

// Known without a look at the books, which a tick would have to wait for. Towards the end of a window there is the next to look to.
bool Owner::rests(const Key& key, Now now) const {
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);
  return key.rests_in == running && key.contests.empty() && window_end(running, key.terms.window) - now.wall > around_.pace.sync_interval * 2;
}

void Owner::tick_windows(Key& key, Now now) {
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);  // by which books are retired, too
  for (size_t i = 0; i < key.contests.size(); ++i) resend_claim(key, key.contests[i].window, now);
  WindowBook* book = key.book(running);
  if (book == nullptr) return;
  if (book->above()) {
    draw(key, *book, 0, now);
    serve_turned_away(key, *book, now);
    put_back(key, *book, now);
    return ask_above(key, *book, now);
  }
  count_previous(key, *book);
  if (book->needs_marks() && (book->mark_pending() || !book->previous_known())) {
    send_mark(key, *book, now);  // once more; of a sliding window it also asks what the members have of the one before
  }
  serve_turned_away(key, *book, now);
  look_to_next_window(key, *book, now);
}

// In the last sync intervals of a window: the mark of the next one, and for a fixed window quota by demand, so that
// nothing stampedes at the boundary.
void Owner::look_to_next_window(Key& key, WindowBook& book, Now now) {
  const Duration left = window_end(book.window(), key.terms.window) - now.wall;
  if (left > around_.pace.sync_interval * 2 || !around_.can_lease(key.terms, Duration(0)) || book.used() == 0) return;
  if (key.terms.max_overcount.unbounded) return;
  WindowBook* next = open_book(key, book.window() + 1, now);
  if (next == nullptr) return claim_if_lost(key, book.window() + 1, false, now);
  uint64_t ahead = 0;
  const bool fixed = key.terms.algorithm == Algorithm::fixed_window;
  const double intervals = 3.0 * static_cast<double>(nanos(around_.pace.sync_interval)) / 1e9;
  double all = 0;
  for (const Line& line : book.lines())
    if (book.is_recent(line, now.mono)) all += static_cast<double>(line.demand_milli) / 1000;
  const auto ahead_max = static_cast<double>(next->allowance(now.wall));
  const auto part_of = [&](const Line& line) {
    const double demand = static_cast<double>(line.demand_milli) / 1000;
    return static_cast<uint64_t>(all <= 0 ? 0 : std::min(demand * intervals, ahead_max * demand / all));
  };
  if (fixed)
    for (const Line& line : book.lines())
      if (book.is_recent(line, now.mono)) ahead += part_of(line);
  raise_mark(key, *next, now, minus(ahead, next->outstanding()));
  if (!fixed) return;
  for (size_t i = 0; i < book.lines().size(); ++i) {
    const Line& line = book.lines()[i];
    const uint64_t part = book.is_recent(line, now.mono) ? part_of(line) : 0;
    if (part == 0) continue;
    Line* coming = next->find(line.key);
    if (coming == nullptr) coming = &next->open(line.key, line.rank, line.floor);
    const uint64_t missing = minus(part, coming->granted);
    if (missing > 0 && next->issue_ahead(*coming, missing, now.wall) > 0) send_grant(key, *next, *coming, 0, now);
  }
}

void Owner::on_turn(Now now) {
  keys_.for_each([&](const WireId&, Key& key) {
    if (key.groups.same() || (key.bucket && key.bucket->above())) return;
    if (key.terms.algorithm == Algorithm::token_bucket) {
      drop_bucket(key, now);
      key.contests.clear();
      return;
    }
    for (auto& book : key.books)
      if (book && book->group() != group(key, book->window())) book.reset();
    key.contests.clear();  // who holds what, the registers know
  });
}

void Owner::retire(Key& key) {
  if (key.terms.algorithm == Algorithm::token_bucket) return;
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);
  std::erase_if(key.contests, [&](const Contest& c) { return c.window < running - 1 || c.window > running + 1; });
  for (auto& book : key.books) {
    if (!book || book->window() >= running - 1) continue;
    if (key.rule != nullptr) {
      const double over = static_cast<double>(book->used()) / static_cast<double>(book->limit()) - 1;
      Seen& seen = overcount_seen_[key.rule->id];
      if (book->window() > seen.window) seen = {book->window(), 0};
      if (book->window() == seen.window) seen.ratio = std::max(seen.ratio, over);
    }
    book.reset();
  }
}

void Owner::expire(Now now) {
  constexpr size_t kRounds = 64;
  keys_.sweep(kRounds, now.mono, [&](const WireId& id, Key& key) -> std::optional<MonoTime> {
    retire(key);
    bool empty = !key.active;
    for (const auto& book : key.books) empty = empty && !book;
    // A contest is kept while what it is about lasts: a bucket's, while the own register remembers it.
    empty = empty && (key.contests.empty() || (key.terms.algorithm == Algorithm::token_bucket && around_.registers.may_begin(id, 0, now)));
    // A bucket's books stay as long as the own register does: without them ballot 0 could not be begun anew.
    if (key.bucket) empty = empty && key.bucket->idle(now.mono) && around_.registers.may_begin(id, 0, now);
    if (empty && key.terms.algorithm == Algorithm::token_bucket) empty = now.mono - key.touched > line_kept();
    if (!empty) return look_again(key, now);
    drop_bucket(key, now);
    return std::nullopt;
  });
}

// When something of the key may be over.
MonoTime Owner::look_again(const Key& key, Now now) const {
  if (key.active) return now.mono + around_.recent();
  if (key.terms.algorithm == Algorithm::token_bucket) return std::max(key.touched + keep_of(span_of(key.terms)), now.mono + kLookAgain);
  const WallTime clock = around_.standing.clock();
  return now.mono + (window_end(window_at(clock, key.terms.window), key.terms.window) - clock);
}

void Owner::on_reset(const WireId& id, uint64_t number, Now now) {
  Key* const found = keys_.find(id);
  if (found == nullptr || found->reset >= number || !around_.plausible_reset(number, now)) return;
  Key& key = *found;
  key.reset = number;  // lessees hear of it by their grants, and each knows whether it began before
  key.reset_at = now.mono;
  activate(key);
  key.touched = now.mono;
  key.rests_in = 0;
  if (key.bucket) {
    if (key.resets_it(number)) {
      const uint64_t back = key.bucket->reset(now.mono);
      if (back > 0 && around_.upstream != nullptr) around_.upstream->refund(key.id, key.rule, key.terms, back, now);
    }
    for (auto& leased : key.bucket->lines()) send_bucket_grant(key, leased, 0, now);
    return;
  }
  if (key.terms.algorithm == Algorithm::token_bucket) return;
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);
  if (WindowBook* before = key.book(running - 1)) before->reset(number);
  WindowBook* const book = key.book(running);
  if (book == nullptr) return;
  book->reset(number);
  for (Line& line : book->lines()) send_grant(key, *book, line, 0, now);
}

std::map<uint16_t, double> Owner::overcount_seen() const {
  std::map<uint16_t, double> ratios;
  for (const auto& [rule, seen] : overcount_seen_) ratios[rule] = seen.ratio;
  return ratios;
}

uint64_t Owner::reset_of(const WireId& id) const {
  const Key* const key = keys_.find(id);
  return key == nullptr ? 0 : key->reset;
}

uint64_t Owner::reset_taken(const WireId& id) const {
  const Key* const key = keys_.find(id);
  return key == nullptr || !key->resets_it(key->reset) ? 0 : key->reset;
}

std::optional<Owner::View> Owner::view(const WireId& id, Now now) const {
  const Key* const found = keys_.find(id);
  if (found == nullptr) return std::nullopt;
  const Key& key = *found;
  View view;
  if (key.bucket) {
    const auto tokens = [&](Duration d) {
      return static_cast<uint64_t>(std::max<int64_t>(0, nanos(d)) / std::max<int64_t>(1, nanos(key.terms.emission)));
    };
    view.ballot = key.bucket->ballot();
    view.used = tokens(key.bucket->tat() - now.mono);
    view.mark = tokens(key.bucket->accepted_mark() - now.mono);
    view.outstanding = tokens(Duration(static_cast<int64_t>(std::min<uint64_t>(key.bucket->unreported(), INT64_MAX))));
    return view;
  }
  if (key.terms.algorithm == Algorithm::token_bucket) return std::nullopt;
  const int64_t running = window_at(now.wall, key.terms.window);
  const auto& book = key.books[static_cast<size_t>(running & 3)];
  if (!book || book->window() != running) return std::nullopt;
  view.ballot = book->ballot();
  view.used = book->used();
  view.mark = book->accepted_mark();
  view.outstanding = book->outstanding();
  return view;
}

}  // namespace tally
