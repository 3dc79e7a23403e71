// The format of the peer wire, written once: fields(visitor, entry) names the fields of an entry in order,
// and the same function writes and reads it, so the two cannot drift apart.
//
// Thread rule: pure functions.
//
// What is said most often, by thousands of entries in one datagram after another, comes in lists: of_all() is
// said once, of_each() by each entry. The most usual fields stand first, so that their bits fit one byte, and
// those that are near others are said relative to them: the node of a ballot is mostly the owner, at one end
// of the datagram, a stamp is mostly the time of sending, or the one that the header echoes, incarnations are
// near each other, and so are a lessee's counts.
#pragma once

#include <cstdint>

#include "cluster/codec.h"
#include "cluster/wire.h"

namespace tally::codec {

inline constexpr uint64_t kPpmUnit = 1'000;   // most overcounts are whole per mille
inline constexpr uint64_t kDemandUnit = 100;  // large demands are told in tenths

// An enumeration whose values go from 0 to `last`.
template <typename V, typename E>
void choice(V& v, E& e, std::remove_const_t<E> last) {
  if constexpr (V::kReads) {
    uint8_t n = 0;
    number(v, n, static_cast<uint8_t>(last));
    e = static_cast<E>(v.ok() ? n : 0);
  } else {
    const auto n = static_cast<uint8_t>(e);
    number(v, n);
  }
}

template <typename V>
void key(V& v, Of<V, WireId>& id) {
  v.raw(id.bytes.data(), id.bytes.size());
}

template <typename V>
void rule(V& v, Of<V, uint32_t>& hash) {  // half of a hash: four bytes are less than its varint
  uint8_t b[4];
  if constexpr (!V::kReads)
    for (unsigned i = 0; i < 4; ++i) b[i] = static_cast<uint8_t>(hash >> (8 * i));
  v.raw(b, sizeof b);
  if constexpr (V::kReads) {
    if (v.ok()) hash = b[0] | uint32_t{b[1]} << 8 | uint32_t{b[2]} << 16 | uint32_t{b[3]} << 24;
  }
}

// 0 means none. `base`: a number of the header that is mostly near.
template <typename V>
void near(V& v, Of<V, uint64_t>& x, uint64_t base) {
  if constexpr (V::kReads) {
    uint64_t n;
    x = v.varint(n) ? base + static_cast<uint64_t>(unzigzag(n)) : 0;
  } else {
    v.varint(x != 0, zigzag(static_cast<int64_t>(x - base)));
  }
}

// `usual`: the end of the datagram that is the owner's.
template <typename V>
void ballot(V& v, Of<V, Ballot>& b, NodeId usual) {
  if constexpr (V::kReads) {
    const bool is_usual = v.flag();
    number(v, b.counter);
    if (v.word(b.node) && is_usual) v.fail();
    if (is_usual) b.node = usual;
  } else {
    const bool is_usual = b.node == usual && usual != 0;
    v.flag(is_usual);
    number(v, b.counter);
    v.word(b.node != 0 && !is_usual, b.node);
  }
}

// --- the format ---

template <typename V>
void fields(V& v, Of<V, Header>& h) {
  word(v, h.sender);
  word(v, h.receiver);
  number(v, h.incarnation);
  number(v, h.roster_version);
  word(v, h.roster_hash);
  number(v, h.sequence);
  number(v, h.sent_mono_ns);
  signed_number(v, h.sent_wall_ns);
  number(v, h.echo_mono_ns);
  number(v, h.echo_held_ns);
}

// --- lists: what all entries of one say, and each by itself ---

template <typename V>
void of_all(V& v, Of<V, Report>& e, const Header& h) {
  rule(v, e.rule);
  number(v, e.terms.limit, kLimitMax);
  packed(v, e.terms.max_overcount.ppm, kPpmUnit, kPartsPerMillion);
  duration(v, e.terms.window);
  signed_number(v, e.window);
  number(v, e.floor);
  near(v, e.stamp, h.sent_mono_ns);
  choice(v, e.terms.algorithm, Algorithm::token_bucket);
  duration(v, e.terms.emission);
  flag(v, e.terms.max_overcount.unbounded);
}
inline bool together(const Report& a, const Report& b) {
  return a.stamp == b.stamp && a.rule == b.rule && a.window == b.window && a.floor == b.floor &&
         a.terms == b.terms;
}
template <typename V>
void of_each(V& v, Of<V, Report>& e, const Header& h) {
  key(v, e.key);
  always(v, e.line);
  always(v, e.used);
  above(v, e.ceiling, e.used);
  above(v, e.wanted, e.used);
  packed(v, e.demand_milli, kDemandUnit);
  flag(v, e.has_ballot);
  ballot(v, e.ballot, h.receiver);
  difference(v, e.granted_heard, e.ceiling - e.floor);
  number(v, e.waiting_min);
  number(v, e.waiting);
  number(v, e.returned);
  number(v, e.refunded);
  number(v, e.given);
  number(v, e.reset);
  number(v, e.lease);
  flag(v, e.final);
  flag(v, e.second_choice);
  flag(v, e.insists);
  ballot(v, e.highest, h.receiver);
}

template <typename V>
void of_all(V& v, Of<V, Grant>& e, const Header& h) {
  signed_number(v, e.window);
  near(v, e.incarnation, h.incarnation);  // both began at some second of the same calendar
  near(v, e.stamp, h.echo_mono_ns);
}
inline bool together(const Grant& a, const Grant& b) {
  return a.stamp == b.stamp && a.window == b.window && a.incarnation == b.incarnation;
}
template <typename V>
void of_each(V& v, Of<V, Grant>& e, const Header& h) {
  key(v, e.key);
  always(v, e.line);
  number(v, e.granted);
  number(v, e.used_fleet);
  complement(v, e.pool);
  complement(v, e.demand_share);
  flag(v, e.backed);
  ballot(v, e.ballot, h.sender);
  flag(v, e.exhausted);
  duration(v, e.ask_again);
  number(v, e.lease);
  duration(v, e.lease_for);
  duration(v, e.tat_ahead);
  flag(v, e.stop);
  number(v, e.reset);
  flag(v, e.refused);
  word(v, e.ask);
}

template <typename V>
void of_all(V& v, Of<V, Mark>& e, const Header&) {
  signed_number(v, e.window);
  duration(v, e.length);
  flag(v, e.sliding);
}
inline bool together(const Mark& a, const Mark& b) {
  return a.window == b.window && a.length == b.length && a.sliding == b.sliding;
}
template <typename V>
void of_each(V& v, Of<V, Mark>& e, const Header& h) {
  key(v, e.key);
  number(v, e.mark);
  ballot(v, e.ballot, h.sender);
  number(v, e.number);
  flag(v, e.claim);
  for (auto& life : e.lives) number(v, life);
}

template <typename V>
void of_all(V& v, Of<V, Accepted>& e, const Header&) {
  signed_number(v, e.window);
}
inline bool together(const Accepted& a, const Accepted& b) { return a.window == b.window; }
template <typename V>
void of_each(V& v, Of<V, Accepted>& e, const Header& h) {
  key(v, e.key);
  number(v, e.mark);
  ballot(v, e.ballot, h.receiver);
  flag(v, e.previous_told);
  flag(v, e.refused);
  number(v, e.number);
  number(v, e.previous_mark);
  ballot(v, e.previous_ballot, h.receiver);
  flag(v, e.claim);
  number(v, e.forgotten_by);
  for (auto& life : e.lives) number(v, life);
}

// --- entries by themselves ---

template <typename V>
void fields(V& v, Of<V, Member>& e, const Header&) {
  word(v, e.node);
  number(v, e.incarnation);
  number(v, e.heard_ms_ago);
  number(v, e.asked_ms_ago);
}

template <typename V>
void fields(V& v, Of<V, Hello>& e, const Header&) {
  flag(v, e.answer);
  number(v, e.remembered);
  word(v, e.rules);
  number(v, e.life);
}

template <typename V>
void fields(V& v, Of<V, Reset>& e, const Header&) {
  key(v, e.key);
  number(v, e.number);
}

template <typename V>
void fields(V& v, Of<V, Clone>& e, const Header&) {
  number(v, e.incumbent);
  number(v, e.told);
  flag(v, e.elsewhere);
}

template <typename V>
void fields(V& v, Of<V, ReadRegisters>& e, const Header&) {
  number(v, e.life);
  number(v, e.from);
}

template <typename V>
void fields(V& v, Of<V, Registered>& e, const Header& h) {
  key(v, e.key);
  number(v, e.life);
  number(v, e.snapshot);
  number(v, e.index);
  signed_number(v, e.window);
  duration(v, e.length);
  ballot(v, e.promised, h.sender);
  ballot(v, e.mark_ballot, h.sender);
  number(v, e.mark);
  number(v, e.promised_life);
  signed_number(v, e.clock_ns);
}

template <typename V>
void fields(V& v, Of<V, RegistersEnd>& e, const Header&) {
  number(v, e.life);
  number(v, e.snapshot);
  number(v, e.from);
  number(v, e.count);
  signed_number(v, e.votes_from_ns);
  signed_number(v, e.clock_ns);
  duration(v, e.remembers);
}

template <typename V>
void fields(V& v, Of<V, Moved>& e, const Header&) {
  word(v, e.node);
  number(v, e.version);
  word(v, e.hash);
  signed_number(v, e.leaves_ns);
  flag(v, e.left_buckets);
}

template <typename V>
void fields(V& v, Of<V, KeyOrder>& e, const Header&) {
  text(v, e.rule, kOrderRuleMax);
  text(v, e.key, kOrderKeyMax);
  choice(v, e.kind, OrderKind::limit);
  number(v, e.limit, kLimitMax);
  signed_number(v, e.until_ns);
  signed_number(v, e.keep_ns);
  number(v, e.set_ns);
  word(v, e.setter);
}

template <typename V>
void fields(V& v, Of<V, OrdersDigest>& e, const Header&) {
  word(v, e.digest);
  flag(v, e.answer);
}

}  // namespace tally::codec
