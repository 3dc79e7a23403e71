// A datagram as text, a line for its header and for each entry: what tests/wire_v1.txt has beside its bytes.
// Fields have the names of docs/protocol.md, and one that is 0 is left out, so that a field that is added
// later changes no line.
#pragma once

#include <cstdio>
#include <string>

#include "cluster/wire.h"

namespace tally::test {

class Line {
 public:
  explicit Line(std::string kind) : text_(std::move(kind)) {}
  Line& bytes(const char* name, const uint8_t* from, size_t n) {
    std::string hex;
    for (size_t i = 0; i < n; ++i) hex += digits(from[i], 2);
    return field(name, hex);
  }
  Line& text(const char* name, const std::string& s) {
    return s.empty() ? *this : bytes(name, reinterpret_cast<const uint8_t*>(s.data()), s.size());
  }
  Line& key(const WireId& id) { return bytes("key", id.bytes.data(), id.bytes.size()); }
  template <typename T>
  Line& number(const char* name, T n) {
    return n == 0 ? *this : field(name, std::to_string(n));
  }
  Line& flag(const char* name, bool set) { return set ? field(name, "yes") : *this; }
  Line& word(const char* name, uint64_t n) { return n == 0 ? *this : field(name, digits(n, 16)); }
  Line& time(const char* name, Duration d) { return number(name, nanos(d)); }
  Line& ballot(const char* name, const Ballot& b) {
    return b == Ballot{} ? *this : field(name, std::to_string(b.counter) + "@" + digits(b.node, 16));
  }
  Line& lives(const Lives& lives) {
    return number("life_0", lives[0]).number("life_1", lives[1]).number("life_2", lives[2]);
  }
  std::string text() const { return text_ + "\n"; }

 private:
  static std::string digits(uint64_t n, int width) {
    char text[17];
    std::snprintf(text, sizeof text, "%0*llx", width, static_cast<unsigned long long>(n));
    return text;
  }
  Line& field(const char* name, const std::string& value) {
    text_ += std::string(" ") + name + "=" + value;
    return *this;
  }
  std::string text_;
};

inline std::string text_of(const Header& h) {
  return Line("header")
      .word("sender", h.sender)
      .word("receiver", h.receiver)
      .number("incarnation", h.incarnation)
      .number("roster_version", h.roster_version)
      .word("roster_hash", h.roster_hash)
      .number("sequence", h.sequence)
      .number("sent_mono", h.sent_mono_ns)
      .number("sent_wall", h.sent_wall_ns)
      .number("echo_mono", h.echo_mono_ns)
      .number("echo_held", h.echo_held_ns)
      .text();
}

inline std::string text_of(const Report& e) {
  uint8_t rule[4];
  for (unsigned i = 0; i < 4; ++i) rule[i] = static_cast<uint8_t>(e.rule >> (8 * i));
  return Line("report")
      .key(e.key)
      .bytes("rule", rule, 4)
      .number("limit", e.terms.limit)
      .number("overcount", e.terms.max_overcount.ppm)
      .time("length", e.terms.window)
      .number("window", e.window)
      .number("line", e.line)
      .number("used", e.used)
      .number("ceiling", e.ceiling)
      .number("wanted", e.wanted)
      .number("demand_milli", e.demand_milli)
      .number("stamp", e.stamp)
      .flag("has_ballot", e.has_ballot)
      .ballot("ballot", e.ballot)
      .number("granted_heard", e.granted_heard)
      .number("floor", e.floor)
      .number("waiting_min", e.waiting_min)
      .number("waiting", e.waiting)
      .number("algorithm", static_cast<unsigned>(e.terms.algorithm))
      .time("emission", e.terms.emission)
      .number("lease", e.lease)
      .number("returned", e.returned)
      .flag("final", e.final)
      .flag("second_choice", e.second_choice)
      .number("refunded", e.refunded)
      .number("given", e.given)
      .number("reset", e.reset)
      .flag("unbounded", e.terms.max_overcount.unbounded)
      .flag("insists", e.insists)
      .ballot("highest", e.highest)
      .text();
}

inline std::string text_of(const Grant& e) {
  return Line("grant")
      .key(e.key)
      .number("window", e.window)
      .ballot("ballot", e.ballot)
      .number("line", e.line)
      .number("incarnation", e.incarnation)
      .number("granted", e.granted)
      .number("used_fleet", e.used_fleet)
      .number("pool", unsigned{e.pool})
      .number("demand_share", e.demand_share)
      .flag("backed", e.backed)
      .number("stamp", e.stamp)
      .flag("exhausted", e.exhausted)
      .time("ask_again", e.ask_again)
      .number("lease", e.lease)
      .time("lease_for", e.lease_for)
      .time("tat_ahead", e.tat_ahead)
      .flag("stop", e.stop)
      .number("reset", e.reset)
      .flag("refused", e.refused)
      .word("ask", e.ask)
      .text();
}

inline std::string text_of(const Mark& e) {
  return Line("mark")
      .key(e.key)
      .number("window", e.window)
      .number("mark", e.mark)
      .time("length", e.length)
      .flag("sliding", e.sliding)
      .ballot("ballot", e.ballot)
      .number("number", e.number)
      .flag("claim", e.claim)
      .lives(e.lives)
      .text();
}

inline std::string text_of(const Accepted& e) {
  return Line("accepted")
      .key(e.key)
      .number("window", e.window)
      .number("mark", e.mark)
      .ballot("ballot", e.ballot)
      .flag("refused", e.refused)
      .number("number", e.number)
      .flag("previous_told", e.previous_told)
      .number("previous_mark", e.previous_mark)
      .ballot("previous_ballot", e.previous_ballot)
      .flag("claim", e.claim)
      .number("forgotten_by", e.forgotten_by)
      .lives(e.lives)
      .text();
}

inline std::string text_of(const Member& e) {
  return Line("member")
      .word("node", e.node)
      .number("incarnation", e.incarnation)
      .number("heard_ms_ago", e.heard_ms_ago)
      .number("asked_ms_ago", e.asked_ms_ago)
      .text();
}

inline std::string text_of(const Hello& e) {
  return Line("hello")
      .flag("answer", e.answer)
      .number("remembered", e.remembered)
      .word("rules", e.rules)
      .number("life", e.life)
      .text();
}

inline std::string text_of(const Reset& e) {
  return Line("reset").key(e.key).number("number", e.number).text();
}

inline std::string text_of(const Clone& e) {
  return Line("clone")
      .number("incumbent", e.incumbent)
      .number("told", e.told)
      .flag("elsewhere", e.elsewhere)
      .text();
}

inline std::string text_of(const ReadRegisters& e) {
  return Line("read_registers").number("life", e.life).number("from", e.from).text();
}

inline std::string text_of(const Registered& e) {
  return Line("registered")
      .key(e.key)
      .number("life", e.life)
      .number("snapshot", e.snapshot)
      .number("index", e.index)
      .number("window", e.window)
      .time("length", e.length)
      .ballot("promised", e.promised)
      .ballot("mark_ballot", e.mark_ballot)
      .number("mark", e.mark)
      .number("promised_life", e.promised_life)
      .number("clock", e.clock_ns)
      .text();
}

inline std::string text_of(const RegistersEnd& e) {
  return Line("registers_end")
      .number("life", e.life)
      .number("snapshot", e.snapshot)
      .number("from", e.from)
      .number("count", e.count)
      .number("votes_from", e.votes_from_ns)
      .number("clock", e.clock_ns)
      .time("remembers", e.remembers)
      .text();
}

inline std::string text_of(const Moved& e) {
  return Line("moved")
      .word("node", e.node)
      .number("version", e.version)
      .word("hash", e.hash)
      .number("leaves", e.leaves_ns)
      .flag("left_buckets", e.left_buckets)
      .text();
}

inline std::string text_of(const KeyOrder& e) {
  return Line("key_order")
      .text("rule", e.rule)
      .text("key", e.key)
      .number("kind", static_cast<unsigned>(e.kind))
      .number("limit", e.limit)
      .number("until", e.until_ns)
      .number("keep", e.keep_ns)
      .number("set", e.set_ns)
      .word("setter", e.setter)
      .text();
}

inline std::string text_of(const OrdersDigest& e) {
  return Line("orders_digest").word("digest", e.digest).flag("answer", e.answer).text();
}

inline std::string text_of(const Datagram& d) {
  std::string text = text_of(d.header);
  for (const Entry& entry : d.entries) text += std::visit([](const auto& e) { return text_of(e); }, entry);
  return text;
}

}  // namespace tally::test
