// What the tests of the wire share: random datagrams, bytes written by hand, what traffic looks like.
#pragma once

#include <doctest/doctest.h>

#include <utility>

#include "base/random.h"
#include "cluster/wire.h"

namespace tally::test {

inline constexpr IdKey kKey = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

// --- random structs ---

// A field that is added to a struct belongs into its fill below, too.
static_assert(sizeof(Report) == 216 && sizeof(Grant) == 144 && sizeof(Mark) == 104 && sizeof(Accepted) == 136);
static_assert(sizeof(Header) == 80 && sizeof(Member) == 32 && sizeof(Hello) == 32 && sizeof(Reset) == 24 && sizeof(Clone) == 24);

// Numbers of every width alike, often 0, sometimes the largest.
inline uint64_t any(Random& random) {
  if (random.chance(0.2)) return 0;
  if (random.chance(0.05)) return ~uint64_t{0};
  return random.next() >> random.below(64);
}
template <typename T>
inline void fill(Random& random, T& x) {
  x = static_cast<T>(any(random));
}
inline void fill(Random& random, bool& x) { x = random.chance(0.5); }
inline void fill(Random& random, Duration& x) {
  auto n = static_cast<int64_t>(any(random) >> 1);
  if (random.chance(0.5)) n -= n % 1'000'000;
  x = Duration(n);
}
inline void fill(Random& random, WireId& x) {
  for (uint8_t& b : x.bytes) b = static_cast<uint8_t>(random.next());
}
inline void fill_node(Random& random, NodeId& x, const Header& h) {
  const NodeId choice[] = {h.sender, h.receiver, 0, random.next()};
  x = choice[random.below(4)];
}
inline void fill(Random& random, Ballot& x, const Header& h) {
  fill(random, x.counter);
  fill_node(random, x.node, h);
}
inline void fill(Random& random, Terms& x) {
  x.algorithm = static_cast<Algorithm>(random.below(3));
  x.limit = static_cast<uint32_t>(any(random) % (uint64_t{kLimitMax} + 1));
  x.max_overcount.ppm = static_cast<uint32_t>(any(random) % 1'000'001);
  if (random.chance(0.5)) x.max_overcount.ppm -= x.max_overcount.ppm % 1000;
  fill(random, x.max_overcount.unbounded);
  fill(random, x.window);
  fill(random, x.emission);
}
template <typename T, size_t N>
inline void fill(Random& random, std::array<T, N>& x) {
  for (T& each : x) fill(random, each);
}
template <typename... T>
inline void fill_all(Random& random, T&... x) {
  (fill(random, x), ...);
}

inline void fill(Random& random, Header& h) {
  fill_all(random, h.incarnation, h.roster_version, h.roster_hash, h.sequence, h.sent_mono_ns, h.sent_wall_ns,
           h.echo_mono_ns, h.echo_held_ns);
  h.sender = random.chance(0.05) ? 0 : random.next();
  h.receiver = random.chance(0.05) ? 0 : random.next();
}
inline void fill(Random& random, Report& e, const Header& h) {
  fill_all(random, e.key, e.rule, e.terms, e.window, e.has_ballot, e.line, e.floor, e.used, e.returned,
           e.refunded, e.given, e.ceiling, e.granted_heard, e.wanted, e.waiting_min, e.waiting, e.reset, e.stamp, e.lease, e.final, e.second_choice, e.insists);
  e.demand_milli = any(random) >> 1;
  fill(random, e.ballot, h);
  fill(random, e.highest, h);
}
inline void fill(Random& random, Grant& e, const Header& h) {
  fill_all(random, e.key, e.window, e.line, e.incarnation, e.granted, e.used_fleet, e.pool, e.demand_share,
           e.exhausted, e.stop, e.backed, e.ask_again, e.reset, e.stamp, e.lease, e.lease_for, e.tat_ahead, e.refused);
  fill(random, e.ballot, h);
  fill_node(random, e.ask, h);
}
inline void fill(Random& random, Mark& e, const Header& h) {
  fill_all(random, e.key, e.window, e.mark, e.length, e.sliding, e.number, e.claim, e.lives);
  fill(random, e.ballot, h);
}
inline void fill(Random& random, Accepted& e, const Header& h) {
  fill_all(random, e.key, e.window, e.refused, e.mark, e.number, e.previous_told, e.previous_mark, e.claim, e.forgotten_by, e.lives);
  fill(random, e.ballot, h);
  fill(random, e.previous_ballot, h);
}
inline void fill(Random& random, Member& e, const Header&) {
  fill_all(random, e.node, e.incarnation, e.heard_ms_ago, e.asked_ms_ago);
}
inline void fill(Random& random, Hello& e, const Header&) {
  fill_all(random, e.answer, e.remembered, e.rules, e.life);
}
inline void fill(Random& random, Reset& e, const Header&) { fill_all(random, e.key, e.number); }
inline void fill(Random& random, Clone& e, const Header&) {
  fill(random, e.incumbent);
  fill(random, e.told);
  e.elsewhere = random.chance(0.5);
}
inline void fill(Random& random, ReadRegisters& e, const Header&) { fill_all(random, e.life, e.from); }
inline void fill(Random& random, Registered& e, const Header& h) {
  fill_all(random, e.life, e.snapshot, e.index, e.key, e.window, e.length, e.mark, e.promised_life, e.clock_ns);
  fill(random, e.promised, h);
  fill(random, e.mark_ballot, h);
}
inline void fill(Random& random, RegistersEnd& e, const Header&) {
  fill_all(random, e.life, e.snapshot, e.from, e.count, e.votes_from_ns, e.clock_ns, e.remembers);
}
inline void fill(Random& random, Moved& e, const Header&) {
  fill_all(random, e.node, e.version, e.hash, e.leaves_ns, e.left_buckets);
}

inline void fill_text(Random& random, std::string& x, size_t most) {
  x.resize(random.chance(0.8) ? random.below(20) : random.below(most + 1));
  for (char& c : x) c = static_cast<char>(random.next());
}
inline void fill(Random& random, KeyOrder& e, const Header& h) {
  fill_text(random, e.rule, kOrderRuleMax);
  fill_text(random, e.key, kOrderKeyMax);
  e.kind = static_cast<OrderKind>(random.below(4));
  e.limit = static_cast<uint32_t>(any(random) % (uint64_t{kLimitMax} + 1));
  fill_all(random, e.until_ns, e.keep_ns, e.set_ns);
  fill_node(random, e.setter, h);
}
inline void fill(Random& random, OrdersDigest& e, const Header&) { fill_all(random, e.digest, e.answer); }

template <size_t... I>
inline Entry entry_of_kind(size_t kind, std::index_sequence<I...>) {
  Entry e;
  ((I == kind ? static_cast<void>(e.emplace<I>()) : static_cast<void>(0)), ...);
  return e;
}
inline Entry entry_of_kind(size_t kind) {
  return entry_of_kind(kind, std::make_index_sequence<kEntryKinds>{});
}

inline Entry random_entry(Random& random, const Header& h) {
  Entry e = entry_of_kind(random.below(kEntryKinds));
  std::visit([&](auto& it) { fill(random, it, h); }, e);
  return e;
}
// Another of the same list, if it is of a kind that comes in lists, but for one in eight.
inline Entry random_neighbour(Random& random, const Entry& before, const Header& h) {
  Entry e = before;
  std::visit([&](auto& it) { fill(random, it, h); }, e);
  if (auto* r = std::get_if<Report>(&e)) {
    const auto& as = std::get<Report>(before);
    r->rule = as.rule, r->terms = as.terms, r->window = as.window, r->floor = as.floor, r->stamp = as.stamp;
    switch (random.below(64)) {
      case 0: ++r->rule; break;
      case 1: r->terms.limit ^= 1; break;
      case 2: r->terms.max_overcount.ppm ^= 1; break;
      case 3: r->terms.max_overcount.unbounded ^= true; break;
      case 4: r->terms.algorithm = static_cast<Algorithm>(random.below(3)); break;
      case 5: r->terms.window = r->terms.emission; break;
      case 6: r->terms.emission = Duration(0); break;
      case 7: fill_all(random, r->window, r->floor, r->stamp); break;
      default: break;
    }
  } else if (auto* g = std::get_if<Grant>(&e)) {
    const auto& as = std::get<Grant>(before);
    g->window = as.window, g->incarnation = as.incarnation, g->stamp = as.stamp;
    switch (random.below(24)) {
      case 0: fill(random, g->window); break;
      case 1: fill(random, g->incarnation); break;
      case 2: fill(random, g->stamp); break;
      default: break;
    }
  } else if (auto* m = std::get_if<Mark>(&e)) {
    const auto& as = std::get<Mark>(before);
    m->window = as.window, m->length = as.length, m->sliding = as.sliding;
    switch (random.below(24)) {
      case 0: fill(random, m->window); break;
      case 1: fill(random, m->length); break;
      case 2: m->sliding ^= true; break;
      default: break;
    }
  } else if (auto* a = std::get_if<Accepted>(&e); a != nullptr && random.below(8) != 0) {
    a->window = std::get<Accepted>(before).window;
  }
  return e;
}

// Entries until one does not fit, or `most`; half of them in the list of the one before.
inline Datagram random_datagram(Random& random, size_t most, Bytes& bytes) {
  Datagram d;
  fill(random, d.header);
  DatagramWriter writer(d.header, kKey);
  while (d.entries.size() < most) {
    const bool alike = !d.entries.empty() && random.chance(0.5);
    Entry e = alike ? random_neighbour(random, d.entries.back(), d.header) : random_entry(random, d.header);
    if (!writer.add(e)) break;
    d.entries.push_back(e);
  }
  CHECK(writer.empty() == d.entries.empty());
  bytes = writer.finish();
  return d;
}

// --- bytes by hand ---

inline Bytes signed_bytes(Bytes bytes) {
  const uint64_t hash = keyed_hash({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, kKey);
  for (unsigned i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(hash >> (8 * i)));
  return bytes;
}
inline Bytes unsigned_bytes(const Bytes& bytes) { return Bytes(bytes.begin(), bytes.end() - 8); }
inline void put_varint(Bytes& to, uint64_t n) {
  for (; n >= 0x80; n >>= 7) to.push_back(static_cast<uint8_t>(n | 0x80));
  to.push_back(static_cast<uint8_t>(n));
}
inline uint64_t take_varint(const Bytes& from, size_t& at) {
  uint64_t n = 0;
  for (unsigned shift = 0;; shift += 7) {
    n |= uint64_t{from[at]} << shift;
    if (from[at++] < 0x80) return n;
    n -= uint64_t{0x80} << shift;
  }
}

// A datagram of one entry: type, presence word, then `fields`.
inline Bytes with_entry(uint64_t type, uint64_t presence, const Bytes& fields) {
  Bytes bytes = unsigned_bytes(DatagramWriter(Header{}, kKey).finish());
  Bytes body;
  put_varint(body, presence);
  body.insert(body.end(), fields.begin(), fields.end());
  put_varint(bytes, type);
  put_varint(bytes, body.size());
  bytes.insert(bytes.end(), body.begin(), body.end());
  return signed_bytes(bytes);
}
inline DecodeError decode_entry(uint64_t type, uint64_t presence, const Bytes& fields) {
  Datagram out;
  return decode(with_entry(type, presence, fields), kKey, out);
}
// A list of reports: what all say, and none.
inline DecodeError decode_report(uint64_t presence, uint64_t number) {
  Bytes fields(4, 0);  // the rule
  put_varint(fields, number);
  return decode_entry(1, presence, fields);
}
// A list of reports with `fields` behind the presence word of the first.
inline DecodeError decode_report_with(uint64_t presence, const Bytes& fields) {
  Bytes list(4, 0);
  put_varint(list, presence);
  list.insert(list.end(), fields.begin(), fields.end());
  return decode_entry(1, 0, list);
}

// The same datagram as a newer version of the format would write it: more in the header, more in each entry and list,
// each of which has an entry of a type that this version does not know before it.
inline Bytes as_if_newer(const Datagram& d) {
  const auto longer = [](const Bytes& body) {
    size_t at = 0;
    Bytes out;
    put_varint(out, take_varint(body, at) | uint64_t{1} << 60);  // a field that this version does not know
    out.insert(out.end(), body.begin() + static_cast<ptrdiff_t>(at), body.end());
    out.insert(out.end(), {0xff, 0xff, 7});
    return out;
  };
  const auto put_body = [](Bytes& out, const Bytes& body) {
    put_varint(out, body.size());
    out.insert(out.end(), body.begin(), body.end());
  };
  const Bytes empty = unsigned_bytes(DatagramWriter(d.header, kKey).finish());
  // The body, which is the only one, of a datagram with that entry so many times.
  const auto body_of = [&](const Entry& e, int times) {
    DatagramWriter writer(d.header, kKey);
    for (int i = 0; i < times; ++i) REQUIRE(writer.add(e));
    const Bytes bytes = unsigned_bytes(writer.finish());
    size_t at = empty.size() + 1;
    const uint64_t length = take_varint(bytes, at);
    REQUIRE(length == bytes.size() - at);
    return Bytes(bytes.begin() + static_cast<ptrdiff_t>(at), bytes.end());
  };
  size_t at = 3;
  take_varint(empty, at);
  Bytes out(empty.begin(), empty.begin() + 3);
  put_body(out, longer(Bytes(empty.begin() + static_cast<ptrdiff_t>(at), empty.end())));
  for (const Entry& e : d.entries) {
    put_varint(out, 300);
    put_body(out, {0xff, 0xff, 0xff, 0xff});
    out.push_back(static_cast<uint8_t>(e.index() + 1));
    const Bytes body = body_of(e, 1);
    if (e.index() > 3) {
      put_body(out, longer(body));
      continue;
    }
    const auto each = static_cast<ptrdiff_t>(body_of(e, 2).size() - body.size());
    Bytes list = longer(Bytes(body.begin(), body.end() - each));
    const Bytes one = longer(Bytes(body.end() - each, body.end()));
    list.insert(list.end(), one.begin(), one.end());
    put_body(out, list);
  }
  return signed_bytes(out);
}

// --- what traffic looks like ---

inline Header usual_header() {
  Header h;
  h.sender = 0x1122334455667788;
  h.receiver = 0x99aabbccddeeff00;
  h.incarnation = 1'790'000'000'000;
  h.roster_version = 1;
  h.roster_hash = 0x123456789abcdef0;
  h.sequence = 123'456;
  h.sent_mono_ns = 864'000'123'456'789;
  h.sent_wall_ns = 1'790'000'000'123'456'789;
  h.echo_mono_ns = 432'000'123'456'789;
  h.echo_held_ns = 12'345'678;
  return h;
}
inline Report usual_report(const Header& h) {
  Report r;
  r.key.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  r.rule = 0xdeadbeef;
  r.terms.limit = 1000;
  r.terms.window = std::chrono::minutes(1);
  r.window = 29'833'333;
  r.ballot = {0, h.receiver};
  r.has_ballot = true;
  r.line = 1;
  r.floor = 5;
  r.used = 423;
  r.ceiling = 505;
  r.granted_heard = 500;
  r.wanted = 612;
  r.demand_milli = 412'345;
  r.stamp = h.sent_mono_ns;
  return r;
}
inline Grant usual_grant(const Header& h) {
  Grant g;
  g.key.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  g.window = 29'833'333;
  g.ballot = {0, h.sender};
  g.line = 1;
  g.incarnation = h.incarnation + 86'400'000;
  g.granted = 607;
  g.used_fleet = 812;
  g.pool = 77;
  g.demand_share = 20'000;
  g.backed = true;
  g.stamp = h.echo_mono_ns - 1'234'567;
  return g;
}
inline Mark usual_mark(const Header& h) {
  Mark m;
  m.key.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  m.window = 29'833'333;
  m.ballot = {0, h.sender};
  m.mark = 700;
  m.length = std::chrono::minutes(1);
  m.sliding = true;
  return m;
}
inline Accepted usual_accepted(const Header& h) {
  Accepted a;
  a.key.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  a.window = 29'833'333;
  a.ballot = {0, h.receiver};
  a.mark = 700;
  a.previous_told = true;
  a.previous_ballot = {0, h.receiver};
  a.previous_mark = 980;
  return a;
}

inline size_t size_with(const Header& h, const Entry* e) {
  DatagramWriter writer(h, kKey);
  if (e != nullptr) CHECK(writer.add(*e));
  return writer.finish().size();
}
inline size_t size_of(const Header& h, const Entry& e) { return size_with(h, &e) - size_with(h, nullptr); }
inline size_t how_many_fit(const Header& h, const Entry& e) {
  DatagramWriter writer(h, kKey);
  size_t n = 0;
  while (writer.add(e)) ++n;
  return n;
}
}  // namespace tally::test
