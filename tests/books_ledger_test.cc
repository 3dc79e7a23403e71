// The rules of the ledger exist twice: in C++ for books that nodes keep, in Lua for books that Redis keeps. Both are given the same
// random reports, and every grant and all that the books say has to be the same. Those in Lua are written and read again now and then.
#include <doctest/doctest.h>

#include <cmath>
#include <lua.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "books/batch.h"
#include "books/scripts.h"
#include "cluster/bucket_book.h"
#include "cluster/window_book.h"
#include "core/windows.h"
#include "redis_lua.h"

using namespace tally;
using std::chrono::microseconds;

namespace {

int64_t us(Duration d) { return std::chrono::duration_cast<microseconds>(d).count(); }
int64_t us_up(Duration d) { return (nanos(d) + 999) / 1000; }

// A table, or any other value, that stays in Lua.
class Value {
 public:
  Value(lua_State* lua) : lua_(lua), at_(luaL_ref(lua, LUA_REGISTRYINDEX)) {}  // takes what is on top of the stack
  Value(const Value&) = delete;
  Value& operator=(const Value&) = delete;
  ~Value() { luaL_unref(lua_, LUA_REGISTRYINDEX, at_); }

  void push() const { lua_rawgeti(lua_, LUA_REGISTRYINDEX, at_); }
  double number(const char* field) const {
    push();
    lua_getfield(lua_, -1, field);
    const double n = lua_isboolean(lua_, -1) ? lua_toboolean(lua_, -1) : lua_tonumber(lua_, -1);
    lua_pop(lua_, 2);
    return n;
  }

 private:
  lua_State* lua_;
  int at_;
};
using Handle = std::shared_ptr<Value>;

struct Field {
  const char* name;
  double number;
};

class Ledger {
 public:
  Ledger() : lua_(luaL_newstate()) {
    luaL_openlibs(lua_);
    add_redis(lua_);
    const std::string text = std::string(kLedgerScript) + "\nreturn ledger";
    REQUIRE_MESSAGE(luaL_dostring(lua_, text.c_str()) == 0, lua_tostring(lua_, -1));
    ledger_ = std::make_shared<Value>(lua_);
  }
  ~Ledger() {
    ledger_.reset();
    lua_close(lua_);
  }

  Handle table(std::initializer_list<Field> fields) {
    lua_newtable(lua_);
    for (const Field& field : fields) set(field);
    return std::make_shared<Value>(lua_);
  }
  void flag(const Handle& table, const char* name, bool is) {
    table->push();
    lua_pushboolean(lua_, is);
    lua_setfield(lua_, -2, name);
    lua_pop(lua_, 1);
  }
  void number(const Handle& table, const char* name, double value) {
    table->push();
    set({name, value});
    lua_pop(lua_, 1);
  }
  void text(const Handle& table, const char* name, const std::string& value) {
    table->push();
    lua_pushstring(lua_, value.c_str());
    lua_setfield(lua_, -2, name);
    lua_pop(lua_, 1);
  }
  template <typename... Args>
  Handle call(const char* function, const Args&... args) {
    ledger_->push();
    lua_getfield(lua_, -1, function);
    lua_remove(lua_, -2);
    (push(args), ...);
    REQUIRE_MESSAGE(lua_pcall(lua_, sizeof...(args), 1, 0) == 0, lua_tostring(lua_, -1));
    return std::make_shared<Value>(lua_);
  }

 private:
  void set(const Field& field) {
    lua_pushnumber(lua_, field.number);
    lua_setfield(lua_, -2, field.name);
  }
  void push(const Handle& value) { value == nullptr ? lua_pushnil(lua_) : value->push(); }
  void push(const char* text) { lua_pushstring(lua_, text); }
  void push(bool is) { lua_pushboolean(lua_, is); }
  void push(const std::string& text) { lua_pushlstring(lua_, text.data(), text.size()); }
  template <typename N>
    requires(std::is_arithmetic_v<N> && !std::is_same_v<N, bool>)
  void push(N n) {
    lua_pushnumber(lua_, static_cast<double>(n));
  }

  lua_State* lua_;
  Handle ledger_;
};

Handle told(Ledger& ledger, const Report& report) {
  const auto n = [](uint64_t of) { return static_cast<double>(of); };
  Handle table = ledger.table({{"used", n(report.used)},
                               {"returned", n(report.returned)},
                               {"refunded", n(report.refunded)},
                               {"given", n(report.given)},
                               {"ceiling", n(report.ceiling)},
                               {"granted_heard", n(report.granted_heard)},
                               {"wanted", n(report.wanted)},
                               {"waiting_min", n(report.waiting_min)},
                               {"waiting", n(report.waiting)},
                               {"demand_milli", n(report.demand_milli)},
                               {"stamp", n(report.stamp)},
                               {"lease", n(report.lease)}});
  ledger.flag(table, "final", report.final);
  ledger.text(table, "reset", hex_digits(report.reset));
  return table;
}

// A line's key has 20 bytes.
std::string key_of(size_t line) { return std::string(16, '\1') + hex_digits(line).substr(12); }

constexpr int64_t kNeverOver = int64_t{1} << 53;
void hear_limit(Ledger& ledger, const Handle& book, uint32_t limit, uint64_t order, int64_t now_us, int64_t until = kNeverOver) {
  ledger.call("hear_limit", book, ledger.table({{"limit", double(limit)}, {"order", double(order)}, {"order_until", double(until)}}), now_us);
}

constexpr NodeId kStore = 77;
const Group kOne{{0, 0, 0}, 1};
constexpr Ballot kBallot{0, kStore};
constexpr Duration kRecent = std::chrono::milliseconds(350), kSharesFor = std::chrono::milliseconds(1350), kSync = std::chrono::milliseconds(100);

// A lessee as it might be: what it says now, and what it said before and may come again.
struct Teller {
  LineKey key;
  Handle line;
  Line* own = nullptr;
  uint64_t used = 0, returned = 0, refunded = 0, given = 0, stamp = 1;
  std::vector<Report> said;
};

Report next_report(Random& random, Teller& teller, uint64_t granted, uint64_t floor, uint64_t unit, uint64_t most) {
  const uint64_t ceiling = floor + granted;
  Report report;
  if (ceiling > teller.used + teller.returned) teller.used += random.below(ceiling - teller.used - teller.returned + 1) / unit * unit;
  if (random.below(20) == 0) teller.used += unit * random.below(3);  // while it was cut off
  if (random.below(6) == 0 && granted > teller.used + teller.returned) teller.returned += random.below(granted - teller.used - teller.returned + 1);
  if (random.below(12) == 0 && teller.used > teller.refunded) teller.refunded += random.below(teller.used - teller.refunded + 1);
  if (random.below(15) == 0) teller.given += unit * random.below(4);
  report.used = teller.used;
  report.returned = teller.returned;
  report.refunded = teller.refunded;
  report.given = teller.given;
  report.ceiling = ceiling + teller.refunded;
  report.granted_heard = random.below(4) == 0 ? random.below(granted + 1) : granted;
  report.waiting = random.below(3) == 0 ? unit * random.below(9) : 0;
  report.waiting_min = report.waiting == 0 ? 0 : unit * (1 + random.below(3));
  report.wanted = report.ceiling + report.waiting + unit * random.below(most / unit + 1);
  report.demand_milli = random.below(4) == 0 ? 0 : random.below(1'000'000) * unit;
  report.stamp = ++teller.stamp;
  report.final = random.below(40) == 0;
  return report;
}

}  // namespace

TEST_CASE("a window's book in Lua says what the one in C++ says, of whatever reports") {
  Ledger ledger;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Terms terms;
    terms.algorithm = random.below(2) == 0 ? Algorithm::sliding_window : Algorithm::fixed_window;
    terms.limit = static_cast<uint32_t>(1 + random.below(random.below(3) == 0 ? 4'000'000'000 : 200));
    terms.window = microseconds(1000 + random.below(random.below(2) == 0 ? 86'400'000'000'000 : 5'000'000));
    terms.max_overcount.unbounded = random.below(10) == 0;
    const bool far = random.below(2) == 0;
    const int64_t window = window_at(WallTime(std::chrono::seconds(1'750'000'000)), terms.window);
    const WallTime start = window_start(window, terms.window), end = window_end(window, terms.window);
    const auto terms_told = ledger.table({{"limit", double(terms.limit)}, {"start", double(us(start.time_since_epoch()))}, {"finish", double(us(end.time_since_epoch()))}});
    ledger.flag(terms_told, "sliding", terms.algorithm == Algorithm::sliding_window);
    ledger.flag(terms_told, "unbounded", terms.max_overcount.unbounded);

    const std::string name = std::to_string(seed);
    WindowBook book(window, terms, kOne, kBallot, kRecent);
    Handle theirs = ledger.call("new_window", terms_told);
    ledger.number(theirs, "generation", 0);
    WindowBook before(window - 1, terms, kOne, kBallot, kRecent);
    Handle theirs_before = ledger.call("new_window", terms_told);
    ledger.number(theirs_before, "generation", 0);
    std::vector<Teller> tellers(1 + random.below(6));
    book.lines().reserve(16);  // lines stay where they are
    before.lines().reserve(16);
    for (size_t i = 0; i < 3; ++i) {
      const LineKey key{i, 1, 1};
      Line& line = before.open(key, 0, 0);
      const Handle their_line = ledger.call("open_window_line", theirs_before, key_of(i), 0);
      Report report;
      report.used = random.below(terms.limit);
      report.final = random.below(2) == 0;
      report.stamp = 1;
      report.has_ballot = true;
      report.ballot = kBallot;
      before.merge(line, report, MonoTime(std::chrono::seconds(1)));
      ledger.call("merge_window", theirs_before, their_line, told(ledger, report), true, 0);
    }
    ledger.call("save_window", name + "before", theirs_before, 0);
    theirs_before = ledger.call("load_window", name + "before", key_of(1));
    const bool has_before = random.below(2) == 0, remembered = random.below(2) == 0;

    const Duration step_max = random.below(2) == 0 ? terms.window / 100 : kSync * 2;
    WallTime wall = random.below(2) == 0 ? start : start - microseconds(us(step_max) * 10);  // some is granted ahead then
    // Without a book of the window before, and without memory of it, all of the limit may have been used there: no line is told that
    // the window is used up, which C++ finds out by asking the group.
    const bool known = terms.algorithm != Algorithm::sliding_window || has_before || remembered || terms.max_overcount.unbounded;
    uint64_t reset = 0, order = 0;
    for (int step = 0; step < 120; ++step) {
      CAPTURE(step);
      wall += microseconds(random.below(static_cast<uint64_t>(std::max<int64_t>(1, us(step_max)))));
      const Now now{MonoTime(wall.time_since_epoch()), wall};
      const int64_t now_us = us(wall.time_since_epoch());
      const size_t which = random.below(tellers.size());
      Teller& teller = tellers[which];
      if (random.below(3) == 0) {
        ledger.call("save_window", name, theirs, 0);
        theirs = ledger.call("load_window", name, key_of(random.below(tellers.size())));
      }
      if (teller.own != nullptr) teller.line = ledger.call("find", theirs, key_of(which));
      if (teller.own == nullptr) {
        const uint64_t charged = random.below(terms.limit / 4 + 1);
        teller.own = &book.open({which + 10, 1, 1}, 0, charged);
        teller.line = ledger.call("open_window_line", theirs, key_of(which), charged);
      } else if (random.below(30) == 0) {
        const uint64_t charged = random.below(terms.limit / 4 + 1);
        book.charge_floor(*teller.own, charged);
        ledger.call("charge_floor", theirs, teller.line, charged);
      }
      if (random.below(40) == 0) {
        reset += 1 + random.below(3);
        book.reset(reset);
        ledger.call("reset_window", theirs, hex_digits(reset));
      }
      if (random.below(50) == 0) {
        const auto limit = static_cast<uint32_t>(1 + random.below(terms.limit));
        book.lower_limit(limit);
        hear_limit(ledger, theirs, limit, order, now_us);
      }
      // Of a window before of which nothing is known all of the limit counts: in Lua that of now, in C++ the smallest that was stated.
      if (random.below(50) == 0 && known) {
        const auto limit = static_cast<uint32_t>(1 + random.below(terms.limit));
        book.set_limit(limit);
        hear_limit(ledger, theirs, limit, ++order, now_us);
        hear_limit(ledger, theirs, terms.limit, order - 1, now_us);  // late
      }
      Report report = next_report(random, teller, teller.own->granted, teller.own->floor, 1, book.limit());
      report.has_ballot = random.below(8) != 0;
      report.ballot = kBallot;
      report.reset = random.below(3) == 0 ? minus(reset, 1) : reset;
      teller.said.push_back(report);
      if (random.below(5) == 0) report = teller.said[random.below(teller.said.size())];  // late, and once more
      book.merge(*teller.own, report, now.mono);
      ledger.call("merge_window", theirs, teller.line, told(ledger, report), report.has_ballot, now_us);
      book.count_previous(has_before ? &before : nullptr, remembered);
      ledger.call("count_previous", theirs, has_before ? theirs_before : Handle(), remembered);
      if (wall < start && random.below(2) == 0) {
        const uint64_t amount = random.below(terms.limit);
        book.issue_ahead(*teller.own, amount, wall);
        ledger.call("issue_ahead", theirs, teller.line, amount, now_us);
      }
      const uint64_t issued = book.issue(*teller.own, now, far);
      const Handle amount = ledger.call("issue_window", theirs, teller.line, now_us, us(kRecent), far);
      (void)issued;

      const auto at = ledger.table({{"now", double(now_us)}, {"recent", double(us(kRecent))}, {"shares_for", double(us(kSharesFor))}, {"sync", double(us(kSync))}});
      const Handle grant = ledger.call("window_grant", theirs, teller.line, at);
      REQUIRE(grant->number("granted") == static_cast<double>(teller.own->granted));
      REQUIRE(theirs->number("outstanding") - theirs->number("given") <= static_cast<double>(book.outstanding()));
      REQUIRE(grant->number("used_fleet") == static_cast<double>(book.used()));
      REQUIRE(grant->number("pool") == level(minus(book.allowance(wall), book.outstanding()), book.limit()));
      REQUIRE(grant->number("demand_share") == book.demand_share(*teller.own, now.mono, kSharesFor));
      REQUIRE((teller.line->number("turned_away") != 0) == teller.own->turned_away);
      REQUIRE((grant->number("exhausted") != 0) == (known && book.exhausted(wall)));
      if (grant->number("exhausted") != 0)
        REQUIRE(grant->number("ask_again") == std::max<int64_t>(1, us_up(book.regrows_after(std::max<uint64_t>(1, teller.own->waiting_min), wall))));
    }
  }
}

TEST_CASE("a bucket's book in Lua says what the one in C++ says, of whatever reports") {
  Ledger ledger;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Terms terms;
    terms.algorithm = Algorithm::token_bucket;
    terms.limit = static_cast<uint32_t>(1 + random.below(200));
    terms.emission = Duration(1 + random.below(random.below(2) == 0 ? 100'000'000 : 1'000));
    const auto unit = static_cast<uint64_t>(nanos(terms.emission));
    const Duration span = terms.emission * static_cast<int64_t>(terms.limit);
    const Duration lease = lease_for(span, std::chrono::seconds(1), kSync);
    const auto terms_told = ledger.table({{"limit", double(terms.limit)}, {"emission", double(unit)}, {"order", 0}});

    MonoTime mono = MonoTime(std::chrono::seconds(1'750'000'000));
    const Duration charged = microseconds(random.below(2) == 0 ? 0 : random.below(static_cast<uint64_t>(us(span)) + 1));
    BucketBook book(terms, kOne, kBallot, lease, kRecent, 5, {mono + charged, mono});
    Handle theirs = ledger.call("new_bucket", terms_told, us(mono.time_since_epoch()), nanos(charged), 5);
    ledger.number(theirs, "generation", 0);
    ledger.call("use_bucket_terms", theirs, terms_told, nanos(lease), us(mono.time_since_epoch()));
    book.lines().reserve(16);
    std::vector<Teller> tellers(1 + random.below(6));
    std::vector<BucketBook::Leased*> leased(tellers.size());
    const Duration step_max = random.below(2) == 0 ? span / 3 + microseconds(2) : kSync * 2;
    for (int step = 0; step < 150; ++step) {
      CAPTURE(step);
      mono += microseconds(1 + random.below(static_cast<uint64_t>(us(step_max)) + 1));
      const int64_t now_us = us(mono.time_since_epoch());
      const size_t which = random.below(tellers.size());
      Teller& teller = tellers[which];
      if (random.below(3) == 0) {
        ledger.call("save_bucket", "bucket", theirs, 0);
        theirs = ledger.call("load_bucket", "bucket");
      }
      if (leased[which] != nullptr) teller.line = ledger.call("find", theirs, key_of(which));
      if (leased[which] == nullptr) {
        leased[which] = &book.open({which + 10, 1, 1}, 0, mono - kSync);
        teller.line = ledger.call("open_bucket_line", theirs, key_of(which));
      }
      Line& line = leased[which]->line;
      if (line.granted == 0) teller.used = teller.returned = teller.refunded = 0;
      Report report = next_report(random, teller, line.granted, 0, unit, static_cast<uint64_t>(nanos(span)));
      report.used = std::min(report.used, line.granted);
      report.has_ballot = random.below(8) != 0;
      report.ballot = kBallot;
      report.lease = random.below(8) == 0 ? 0 : leased[which]->lease;
      teller.said.push_back(report);
      if (random.below(5) == 0) report = teller.said[random.below(teller.said.size())];
      book.merge(*leased[which], report, mono);
      ledger.call("merge_bucket", theirs, teller.line, told(ledger, report), report.has_ballot, now_us);
      book.give(*leased[which], report.given, mono, mono);
      ledger.call("give_bucket", theirs, teller.line, report.given, now_us);
      if (random.below(60) == 0) {
        book.reset(mono);
        ledger.call("reset_bucket", theirs, now_us);
      }
      book.issue(*leased[which], mono);
      ledger.call("issue_bucket", theirs, teller.line, now_us, us(kRecent));

      const auto at = ledger.table({{"now", double(now_us)}, {"recent", double(us(kRecent))}, {"shares_for", double(us(kSharesFor))}, {"sync", double(us(kSync))}});
      const Handle grant = ledger.call("bucket_grant", theirs, teller.line, at);
      REQUIRE(grant->number("granted") == static_cast<double>(line.granted));
      REQUIRE(grant->number("lease") == static_cast<double>(leased[which]->lease));
      if (leased[which]->unreported() > 0) REQUIRE(grant->number("lease_for") == static_cast<double>(nanos(leased[which]->length)));
      REQUIRE(grant->number("tat_ahead") == static_cast<double>(nanos(book.tat() - mono)));
      REQUIRE(grant->number("pool") == level(static_cast<uint64_t>(nanos(book.room(mono))), static_cast<uint64_t>(nanos(span))));
      REQUIRE(grant->number("demand_share") == book.demand_share(*leased[which], mono, kSharesFor));
      const uint64_t cost = std::max(line.waiting_min, unit);
      REQUIRE((grant->number("exhausted") != 0) == book.exhausted(cost, mono));
      if (grant->number("exhausted") != 0) REQUIRE(grant->number("ask_again") == std::max<int64_t>(1, us_up(book.regrows_after(cost, mono))));
      REQUIRE((teller.line->number("turned_away") != 0) == line.turned_away);
    }
  }
}

TEST_CASE("a book of many lines is read as it was written, and by all its lines") {
  Ledger ledger;
  const auto terms = ledger.table({{"limit", 1'000'000}, {"start", 0}, {"finish", 1e9}});
  Handle book = ledger.call("new_window", terms);
  ledger.number(book, "generation", 0);
  constexpr size_t kLines = 200;  // more than are read at once
  Report report;
  report.stamp = 1;
  report.given = 1;
  for (size_t i = 1; i <= kLines; ++i) {
    report.used = i;
    report.demand_milli = 1000 * i;
    const Handle line = ledger.call("open_window_line", book, key_of(i), 2 * i);
    ledger.call("merge_window", book, line, told(ledger, report), true, 1000);
  }
  ledger.call("save_window", "many", book, 0);
  book = ledger.call("load_window", "many", key_of(kLines));
  CHECK(book->number("count") == kLines);
  const auto at = ledger.table({{"now", 1000}, {"recent", 10}, {"shares_for", 10}, {"sync", 10}});
  for (const size_t i : {size_t{1}, size_t{64}, size_t{65}, kLines}) {
    const Handle line = ledger.call("find", book, key_of(i));
    CHECK(line->number("used") == i);
    CHECK(line->number("floor") == 2 * i);
    const Handle grant = ledger.call("window_grant", book, line, at);
    CHECK(grant->number("demand_share") == std::floor(65535.0 * static_cast<double>(i) / (kLines * (kLines + 1) / 2)));
  }
  ledger.call("reset_window", book, hex_digits(5));  // of each line it is unknown now what it gave
  ledger.call("save_window", "many", book, 0);
  book = ledger.call("load_window", "many", key_of(kLines + 1));
  for (size_t i = 1; i <= kLines; ++i) REQUIRE(ledger.call("find", book, key_of(i))->number("given") == -1);
}

TEST_CASE("the newest order for a key sets its limit, and none that comes late does") {
  Ledger ledger;
  const Handle book = ledger.call("new_window", ledger.table({{"limit", 10}, {"start", 0}, {"finish", 1e9}}));
  const auto limit_after = [&](uint32_t limit, uint64_t order, int64_t until, int64_t now) {
    hear_limit(ledger, book, limit, order, now, until);
    return book->number("limit");
  };
  CHECK(limit_after(8, 0, 0, 100) == 8);
  CHECK(limit_after(10, 0, 0, 100) == 8);      // without an order the smallest that is stated
  CHECK(limit_after(50, 7, 1000, 100) == 50);
  CHECK(limit_after(8, 0, 0, 200) == 50);      // has not heard of it
  CHECK(limit_after(60, 7, 1000, 200) == 50);
  CHECK(limit_after(20, 9, 900, 300) == 20);   // a newer one
  CHECK(limit_after(50, 7, 1000, 400) == 20);  // late
  CHECK(limit_after(20, 9, 900, 900) == 20);   // it has ended
  CHECK(limit_after(10, 0, 0, 900) == 10);     // who knows so tells what holds then
  CHECK(limit_after(20, 9, 900, 901) == 10);   // late
  CHECK(limit_after(8, 0, 0, 902) == 8);
}
