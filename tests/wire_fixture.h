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
           e.refunded, e.given, e.ceiling, e.granted_heard, e.wanted, e.waiting_min, e.waiting,
           e.demand_milli, e.reset, e.stamp, e.lease, e.final, e.second_choice, e.insists);
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

// Entries until one does not fit, or `most`.
inline Datagram random_datagram(Random& random, size_t most, Bytes& bytes) {
  Datagram d;
  fill(random, d.header);
  DatagramWriter writer(d.header, kKey);
  while (d.entries.size() < most) {
    Entry e = random_entry(random, d.header);
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
inline DecodeError decode_report(uint64_t presence, uint64_t number) {
  Bytes fields(16, 0);  // key and rule
  put_varint(fields, number);
  return decode_entry(1, presence, fields);
}

// The same datagram as a newer version of the format would write it: more in the header, more in each entry,
// and an entry of a type that this version does not know before each that it does.
inline Bytes as_if_newer(const Bytes& bytes) {
  const Bytes in = unsigned_bytes(bytes);
  Bytes out(in.begin(), in.begin() + 3);
  size_t at = 3;
  const auto copy_longer = [&] {
    const uint64_t length = take_varint(in, at);
    const size_t end = at + length;
    Bytes body;
    put_varint(body, take_varint(in, at) | uint64_t{1} << 60);  // a field that this version does not know
    body.insert(body.end(), in.begin() + static_cast<ptrdiff_t>(at),
                in.begin() + static_cast<ptrdiff_t>(end));
    body.insert(body.end(), {0xff, 0xff, 7});
    put_varint(out, body.size());
    out.insert(out.end(), body.begin(), body.end());
    at = end;
  };
  copy_longer();
  while (at < in.size()) {
    put_varint(out, 300);
    put_varint(out, 4);
    out.insert(out.end(), {0xff, 0xff, 0xff, 0xff});
    put_varint(out, take_varint(in, at));
    copy_longer();
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
