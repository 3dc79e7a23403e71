#include "sim/trace.h"

#include <array>
#include <cinttypes>
#include <concepts>
#include <cstdio>

namespace tally::sim {
namespace {

// "name=value" for what is not zero.
class Line {
 public:
  Line(std::string_view kind, const Roster& roster) : text_(kind), roster_(roster) {}

  Line& number(std::string_view name, uint64_t n) { return n == 0 ? *this : pair(name, std::to_string(n)); }
  Line& always(std::string_view name, uint64_t n) { return pair(name, std::to_string(n)); }
  Line& window(int64_t n) { return n == 0 ? *this : pair("w", std::to_string(n)); }
  Line& flag(std::string_view name, bool set) {
    if (set) text_.append(" ").append(name);
    return *this;
  }
  Line& duration(std::string_view name, Duration d) {
    return d == Duration(0) ? *this : pair(name, describe(d));
  }
  Line& ballot(std::string_view name, const Ballot& b) {
    if (b == Ballot{}) return *this;
    const auto rank = roster_.rank_of(b.node);
    return pair(name, std::to_string(b.counter) + "/" + (rank ? std::to_string(*rank) : "?"));
  }
  std::string take() { return std::move(text_); }

 private:
  Line& pair(std::string_view name, const std::string& value) {
    text_.append(" ").append(name).append("=").append(value);
    return *this;
  }
  std::string text_;
  const Roster& roster_;
};

std::string text(const Report& r, const Roster& roster) {
  return Line("report", roster)
      .window(r.window)
      .ballot("ballot", r.ballot)
      .flag("charged", r.has_ballot)
      .always("line", r.line)
      .number("lease", r.lease)
      .number("floor", r.floor)
      .always("used", r.used)
      .number("returned", r.returned)
      .number("refunded", r.refunded)
      .number("given", r.given)
      .always("ceiling", r.ceiling)
      .number("heard", r.granted_heard)
      .always("wanted", r.wanted)
      .number("waiting", r.waiting)
      .number("waiting_min", r.waiting_min)
      .number("demand/s", r.demand_milli / 1000)
      .number("reset", r.reset)
      .flag("final", r.final)
      .flag("second_choice", r.second_choice)
      .take();
}

std::string text(const Grant& g, const Roster& roster) {
  return Line("grant", roster)
      .window(g.window)
      .ballot("ballot", g.ballot)
      .always("line", g.line)
      .number("lease", g.lease)
      .always("granted", g.granted)
      .number("used_fleet", g.used_fleet)
      .always("pool", g.pool)
      .flag("exhausted", g.exhausted)
      .flag("stop", g.stop)
      .flag("backed", g.backed)
      .duration("ask_again", g.ask_again)
      .duration("lease_for", g.lease_for)
      .duration("tat_ahead", g.tat_ahead)
      .number("reset", g.reset)
      .flag("refused", g.refused)
      .ballot("ask", {0, g.ask})
      .flag("unasked", g.stamp == 0)
      .take();
}

std::string text(const Mark& m, const Roster& roster) {
  return Line(m.claim ? "claim" : "mark", roster)
      .window(m.window)
      .ballot("ballot", m.ballot)
      .always("mark", m.mark)
      .number("number", m.number)
      .flag("anew", m.anew())
      .take();
}

std::string text(const Accepted& a, const Roster& roster) {
  Line line(a.refused ? "refused" : a.forgotten_by != 0 ? "forgotten" : a.claim ? "promised" : "accepted", roster);
  line.window(a.window).ballot("ballot", a.ballot).always("mark", a.mark).number("number", a.number);
  if (a.previous_told) line.ballot("previous_ballot", a.previous_ballot).always("previous", a.previous_mark);
  return line.take();
}

std::string text(const Member& m, const Roster& roster) {
  return Line("member", roster)
      .ballot("node", {0, m.node})
      .number("incarnation", m.incarnation)
      .number("heard_ms_ago", m.heard_ms_ago)
      .take();
}
std::string text(const Hello& h, const Roster& roster) {
  return Line(h.answer ? "hello answer" : "hello", roster).number("remembered", h.remembered).number("life", h.life).take();
}
std::string text(const Reset& r, const Roster& roster) {
  return Line("reset", roster).number("number", r.number).take();
}
std::string text(const Clone& c, const Roster& roster) {
  return Line("clone", roster).number("incumbent", c.incumbent).number("told", c.told).flag("elsewhere", c.elsewhere).take();
}

std::string text(const ReadRegisters& r, const Roster& roster) {
  return Line("read_registers", roster).always("from", r.from).take();
}
std::string text(const Registered& r, const Roster& roster) {
  return Line("registered", roster)
      .window(r.window)
      .ballot("promised", r.promised)
      .ballot("mark_ballot", r.mark_ballot)
      .always("mark", r.mark)
      .take();
}
std::string text(const RegistersEnd& e, const Roster& roster) {
  return Line("registers_end", roster).always("count", e.count).take();
}

}  // namespace

std::string text(const Moved& m, const Roster& roster) {
  return Line("moved", roster).number("version", m.version).take();
}

std::string text(const KeyOrder& o, const Roster& roster) {
  return Line("key_order", roster).number("kind", static_cast<uint64_t>(o.kind)).number("limit", o.limit).take();
}

std::string text(const OrdersDigest& d, const Roster& roster) { return Line("orders_digest", roster).flag("answer", d.answer).take(); }

std::string describe(const Entry& entry, const Roster& roster) {
  return std::visit([&](const auto& e) { return text(e, roster); }, entry);
}

std::optional<WireId> key_of(const Entry& entry) {
  return std::visit(
      [](const auto& e) -> std::optional<WireId> {
        if constexpr (requires { { e.key } -> std::convertible_to<WireId>; }) return e.key;
        return std::nullopt;
      },
      entry);
}

std::string describe(Duration d) {
  std::array<char, 40> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%.3fms", static_cast<double>(nanos(d)) / 1e6);
  return buffer.data();
}

}  // namespace tally::sim
