// The rules of a decision exist twice: in C++ for keys that a node counts, in Lua for keys that Redis counts.
// Both are given the same random requests at the same times, and every answer and all that is given back have
// to be the same.
#include <doctest/doctest.h>

#include <lua.hpp>
#include <string>
#include <vector>

#include "books/central_call.h"
#include "books/scripts.h"
#include "core/windows.h"
#include "core_fixture.h"

using namespace tally;
using namespace tally::test;
using std::chrono::microseconds;
using What = CentralCall::What;

namespace {

// Redis, as far as the script knows it.
constexpr const char* kRedis = R"lua(
local kept, now = {}, 0
function set_time(us) now = us end
function keys_kept() local n = 0; for _, one in pairs(kept) do if one.until_us > now then n = n + 1 end end; return n end
redis = {}
function redis.call(command, name, text, px, ms)
  if command == "TIME" then return {string.format("%.0f", math.floor(now / 1000000)), string.format("%.0f", now % 1000000)} end
  local one = kept[name]
  if one and one.until_us <= now then one = nil end
  if command == "GET" then return one and one.text or false end
  if command == "DEL" then kept[name] = nil; return one and 1 or 0 end
  assert(command == "SET" and px == "PX" and tonumber(ms) >= 1 and tonumber(ms) % 1 == 0)
  kept[name] = {text = text, until_us = now + ms * 1000}
end
)lua";

class Script {
 public:
  Script() : lua_(luaL_newstate()) {
    luaL_openlibs(lua_);
    REQUIRE_MESSAGE(luaL_dostring(lua_, kRedis) == 0, lua_tostring(lua_, -1));
    const std::string text = text_of(BooksScript::central);
    REQUIRE_MESSAGE(luaL_loadstring(lua_, text.c_str()) == 0, lua_tostring(lua_, -1));
    script_ = luaL_ref(lua_, LUA_REGISTRYINDEX);
  }
  ~Script() { lua_close(lua_); }

  void set_time(WallTime now) {
    lua_getglobal(lua_, "set_time");
    lua_pushnumber(lua_, static_cast<double>(nanos(now) / 1'000));
    lua_call(lua_, 1, 0);
  }
  int keys_kept() {
    lua_getglobal(lua_, "keys_kept");
    lua_call(lua_, 0, 1);
    const auto n = static_cast<int>(lua_tonumber(lua_, -1));
    lua_pop(lua_, 1);
    return n;
  }
  CentralState call(const std::string& name, const CentralCall& call) {
    set("KEYS", {name});
    set("ARGV", central_arguments(call));
    lua_rawgeti(lua_, LUA_REGISTRYINDEX, script_);
    REQUIRE_MESSAGE(lua_pcall(lua_, 0, 1, 0) == 0, lua_tostring(lua_, -1));
    std::vector<int64_t> numbers;  // what Redis makes of a Lua table
    for (int i = 1; lua_rawgeti(lua_, -1, i), !lua_isnil(lua_, -1); ++i) {
      numbers.push_back(static_cast<int64_t>(lua_tonumber(lua_, -1)));
      REQUIRE(lua_tonumber(lua_, -1) == static_cast<double>(numbers.back()));
      lua_pop(lua_, 1);
    }
    lua_pop(lua_, 2);
    const auto state = central_state(call, numbers);
    REQUIRE(state);
    return *state;
  }

 private:
  void set(const char* global, const std::vector<std::string>& words) {
    lua_newtable(lua_);
    for (size_t i = 0; i < words.size(); ++i) {
      lua_pushstring(lua_, words[i].c_str());
      lua_rawseti(lua_, -2, static_cast<int>(i + 1));
    }
    lua_setglobal(lua_, global);
  }

  lua_State* lua_;
  int script_ = 0;
};

void require_same(const Answer& ours, const Answer& theirs) {
  REQUIRE(ours.verdict == theirs.verdict);
  REQUIRE(ours.limit == theirs.limit);
  REQUIRE(ours.remaining == theirs.remaining);
  REQUIRE(nanos(ours.retry_after) == nanos(theirs.retry_after));
  REQUIRE(nanos(ours.reset_after) == nanos(theirs.reset_after));
}

Rule random_rule(Random& random) {
  const auto limit = static_cast<uint32_t>(1 + random.below(random.below(3) == 0 ? kLimitMax : 200));
  switch (random.below(4)) {
    case 0:
      return window_rule(
          Algorithm::fixed_window, limit,
          microseconds(10'000 + random.below(random.below(2) == 0 ? 31'000'000'000'000 : 5'000'000)));
    case 1:
      return window_rule(
          Algorithm::sliding_window, limit,
          microseconds(10'000 + random.below(random.below(2) == 0 ? 31'000'000'000'000 : 5'000'000)));
    case 2: {
      constexpr std::array kCalendar{kWeek, kMonth, kYear};
      return window_rule(Algorithm::fixed_window, limit, kCalendar[random.below(3)]);
    }
    default: {
      constexpr int64_t kExact = int64_t{1} << 53;  // nanoseconds
      return bucket_rule(limit, Duration(1 + random.below(static_cast<uint64_t>(
                                                 std::min<int64_t>(kExact / limit, 90'000'000'000)))));
    }
  }
}

// Time passes by a part of what the rule counts in, and now and then by much of it.
Duration random_step(Random& random, const Limit& limit) {
  const Duration scale =
      limit.algorithm == Algorithm::token_bucket ? limit.burst_span() : longest_length(limit.window);
  const auto most =
      static_cast<uint64_t>(std::max<int64_t>(2, nanos(scale) / 1'000 / (random.below(8) == 0 ? 1 : 60)));
  return random.below(3) == 0 ? Duration(0) : microseconds(random.below(most));
}

}  // namespace

TEST_CASE("a decision in Lua is the one in C++, whatever is asked") {
  Script script;
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(kRounds) * 2; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Bench bench(random_rule(random));
    const Limit& limit = bench.rule.limit;
    const bool bucket = limit.algorithm == Algorithm::token_bucket;
    // A slot that was reset still knows the latest window that it was used in, Redis has forgotten it.
    const bool set_back = !bucket && random.below(2) == 0;
    WallTime wall(kEpoch + microseconds(random.below(1'000'000'000'000)));
    const std::string name = "count of " + std::to_string(seed);
    for (int step = 0; step < 150; ++step) {
      CAPTURE(step);
      wall += random_step(random, limit);
      if (set_back && random.below(20) == 0) wall -= random_step(random, limit);
      const Now now{MonoTime(wall.time_since_epoch()), wall};
      script.set_time(wall);
      CentralCall call{What::take, limit, 0, std::nullopt, wall};
      if (is_calendar(limit.window))
        call.now += std::chrono::hours(24) * (static_cast<int64_t>(random.below(13)) - 6);  // of another host
      const auto cost = static_cast<uint32_t>(
          1 + random.below(random.below(4) == 0 ? limit.limit : std::min(limit.limit, limit.limit / 10 + 2)));
      switch (random.below(10)) {
        case 0: {
          call.what = What::peek;
          const CentralState state = script.call(name, call);
          require_same(central_answer(state, limit, cost), bench.limiter.peek(bench.ask("k", cost), now));
          require_same(central_answer(state, limit, 0), bench.limiter.peek(bench.ask("k", 0), now));
          break;
        }
        case 1: {
          call.what = What::give;
          call.n = cost;
          if (!bucket && random.below(2) == 0)
            call.only_in = window_at(wall, limit.window) - static_cast<int64_t>(random.below(2));
          const CentralState state = script.call(name, call);
          REQUIRE(state.done == bench.limiter.give(bench.ask("k"), cost, now, call.only_in));
          require_same(central_answer(state, limit, 0), bench.limiter.peek(bench.ask("k", 0), now));
          break;
        }
        case 2:
          if (set_back || random.below(10) != 0) continue;
          call.what = What::reset;
          script.call(name, call);
          bench.limiter.reset(bench.ask("k"), now);
          break;
        default: {
          call.n = cost;
          const CentralState state = script.call(name, call);
          const Answer answer = central_answer(state, limit, cost);
          require_same(answer, bench.limiter.take(bench.ask("k", cost), now, nullptr));
          REQUIRE((answer.verdict == Verdict::admitted) == (state.done == 1));
        }
      }
    }
  }
}

TEST_CASE("what is kept ends when it means nothing any more") {
  Script script;
  WallTime wall(kEpoch);
  const auto take = [&](const Rule& rule) {
    script.set_time(wall);
    REQUIRE(script.call(rule.name, {What::take, rule.limit, 1, std::nullopt, wall}).done == 1);
    REQUIRE(script.keys_kept() == 1);
  };
  const auto kept_after = [&](Duration time) {
    script.set_time(wall + time);
    return script.keys_kept();
  };
  take(window_rule(Algorithm::fixed_window, 5, secs(60)));
  CHECK(kept_after(secs(59)) == 1);
  CHECK(kept_after(secs(61)) == 0);
  take(window_rule(Algorithm::sliding_window, 5, secs(60)));
  CHECK(kept_after(secs(119)) == 1);
  CHECK(kept_after(secs(121)) == 0);
  take(bucket_rule(5, secs(10)));
  CHECK(kept_after(ms(9'999)) == 1);
  CHECK(kept_after(secs(11)) == 0);
  wall = WallTime(std::chrono::sys_days{std::chrono::year(2026) / 2 / 1}.time_since_epoch());
  take(window_rule(Algorithm::fixed_window, 5, kMonth));
  CHECK(kept_after(secs(28 * 86'400 - 1)) == 1);
  CHECK(kept_after(secs(28 * 86'400 + 1)) == 0);
}

TEST_CASE("a rule of another form under the same name begins anew") {
  Script script;
  script.set_time(WallTime(kEpoch));
  const auto take_all = [&](const Rule& rule) {
    uint32_t taken = 0;
    while (script.call("k", {What::take, rule.limit, 1, std::nullopt, WallTime(kEpoch)}).done == 1) ++taken;
    return taken;
  };
  CHECK(take_all(window_rule(Algorithm::fixed_window, 5, secs(60))) == 5);
  CHECK(take_all(window_rule(Algorithm::fixed_window, 6, secs(60))) == 1);
  CHECK(take_all(window_rule(Algorithm::fixed_window, 5, secs(3'600))) == 5);
  CHECK(take_all(window_rule(Algorithm::sliding_window, 5, secs(3'600))) == 5);
  CHECK(take_all(bucket_rule(5, secs(1))) == 5);
  CHECK(take_all(window_rule(Algorithm::fixed_window, 5, kWeek)) == 5);
}

TEST_CASE("numbers that the script cannot have said are no state") {
  const CentralCall window{What::take, window_rule(Algorithm::fixed_window, 5, secs(60)).limit, 1,
                           std::nullopt, WallTime(kEpoch)};
  const CentralCall bucket{What::take, bucket_rule(5, secs(60)).limit, 1, std::nullopt, WallTime(kEpoch)};
  const int64_t now = nanos(kEpoch) / 1'000;
  CHECK(central_state(window, std::vector<int64_t>{1, now, 7, 4, 0}));
  CHECK(central_state(bucket, std::vector<int64_t>{1, now, 4}));
  for (const auto& wrong : std::vector<std::vector<int64_t>>{{},
                                                             {1},
                                                             {1, now, 4},
                                                             {1, now, 7, 4, 0, 0},
                                                             {-1, now, 7, 4, 0},
                                                             {1, -1, 7, 4, 0},
                                                             {1, INT64_MAX, 7, 4, 0},
                                                             {1, now, INT64_MAX, 4, 0},
                                                             {1, now, -7, 4, 0},
                                                             {1, now, 7, int64_t{1} << 40, 0},
                                                             {1, now, 7, 4, -1}})
    CHECK_FALSE(central_state(window, wrong));
  for (const auto& wrong :
       std::vector<std::vector<int64_t>>{{1, now}, {1, now, -1}, {1, now, INT64_MAX}, {1, now, 7, 4, 0}})
    CHECK_FALSE(central_state(bucket, wrong));
}
