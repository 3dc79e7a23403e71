// The format is written once: fields(visitor, entry) names the fields of an entry in order, and the same
// function sizes, writes and reads it, so the three cannot drift apart.
//
//   datagram  magic (2) | version (1) | header | entry ... | keyed_hash of all before (8)
//   header    length (varint) | body
//   entry     type (varint) | length (varint) | body
//   body      presence (varint) | fields
//
// Numbers are little-endian base-128 varints, signed ones zig-zag. Each optional field and each boolean owns
// one bit of the presence word, in the order of the fields below: a zero costs nothing, and the rarest fields
// stand last, so that the word is short as well. A newer version appends fields, hence bits; an older reader
// skips both.
//
// What nearly every entry says is said relative to the header: the node of a ballot is mostly the owner, at
// one end of the datagram, a stamp is mostly the time of sending, or the one that the header echoes, and
// incarnations are near each other.
#include "cluster/wire.h"

#include <concepts>
#include <cstring>
#include <utility>

#include "base/fail.h"
#include "cluster/codec.h"

namespace tally {
namespace {

using namespace codec;

constexpr uint8_t kMagic[2] = {'T', 'y'};
constexpr size_t kPrefixBytes = sizeof kMagic + 1;
constexpr size_t kHashBytes = 8;
constexpr uint64_t kPpmUnit = 1'000;  // most overcounts are whole per mille

// The types on the wire, by place in Entry. Never renumbered, never used again.
constexpr uint8_t kTypes[kEntryKinds] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
constexpr std::string_view kKindNames[kEntryKinds] = {"report",         "grant",      "mark",          "accepted", "member",    "hello",        "reset", "clone",
                                                      "read_registers", "registered", "registers_end", "moved",    "key_order", "orders_digest"};
static_assert(std::same_as<Entry, std::variant<Report, Grant, Mark, Accepted, Member, Hello, Reset, Clone, ReadRegisters,
                                               Registered, RegistersEnd, Moved, KeyOrder, OrdersDigest>>);

template <typename V>
void ppm(V& v, Of<V, uint32_t>& x) {
  if constexpr (V::kReads) {
    x = static_cast<uint32_t>(read_packed(v, kPpmUnit, kPartsPerMillion));
  } else {
    v.varint(x != 0, pack(x, kPpmUnit));
  }
}

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

template <typename V>
void fields(V& v, Of<V, Report>& e, const Header& h) {
  key(v, e.key);
  rule(v, e.rule);
  number(v, e.terms.limit, kLimitMax);
  ppm(v, e.terms.max_overcount.ppm);
  duration(v, e.terms.window);
  signed_number(v, e.window);
  number(v, e.line);
  number(v, e.used);
  number(v, e.ceiling);
  number(v, e.wanted);
  number(v, e.demand_milli);
  near(v, e.stamp, h.sent_mono_ns);
  flag(v, e.has_ballot);
  ballot(v, e.ballot, h.receiver);
  number(v, e.granted_heard);
  number(v, e.floor);
  number(v, e.waiting_min);
  number(v, e.waiting);
  choice(v, e.terms.algorithm, Algorithm::token_bucket);
  duration(v, e.terms.emission);
  number(v, e.lease);
  number(v, e.returned);
  flag(v, e.final);
  flag(v, e.second_choice);
  number(v, e.refunded);
  number(v, e.given);
  number(v, e.reset);
  flag(v, e.terms.max_overcount.unbounded);
  flag(v, e.insists);
  ballot(v, e.highest, h.receiver);
}

template <typename V>
void fields(V& v, Of<V, Grant>& e, const Header& h) {
  key(v, e.key);
  signed_number(v, e.window);
  ballot(v, e.ballot, h.sender);
  number(v, e.line);
  near(v, e.incarnation, h.incarnation);  // both began at some second of the same calendar
  number(v, e.granted);
  number(v, e.used_fleet);
  number(v, e.pool);
  number(v, e.demand_share);
  flag(v, e.backed);
  near(v, e.stamp, h.echo_mono_ns);
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
void fields(V& v, Of<V, Mark>& e, const Header& h) {
  key(v, e.key);
  signed_number(v, e.window);
  number(v, e.mark);
  duration(v, e.length);
  flag(v, e.sliding);
  ballot(v, e.ballot, h.sender);
  number(v, e.number);
  flag(v, e.claim);
  for (auto& life : e.lives) number(v, life);
}

template <typename V>
void fields(V& v, Of<V, Accepted>& e, const Header& h) {
  key(v, e.key);
  signed_number(v, e.window);
  number(v, e.mark);
  ballot(v, e.ballot, h.receiver);
  flag(v, e.refused);
  number(v, e.number);
  flag(v, e.previous_told);
  number(v, e.previous_mark);
  ballot(v, e.previous_ballot, h.receiver);
  flag(v, e.claim);
  number(v, e.forgotten_by);
  for (auto& life : e.lives) number(v, life);
}

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

// --- datagrams ---

template <typename T>
bool read_into(Datagram& out, Reader body) {
  T& e = std::get<T>(out.entries.emplace_back(std::in_place_type<T>));
  body.read_presence();
  fields(body, e, out.header);
  return body.ok();
}

bool read_entry(Datagram& out, uint64_t type, Reader body) {
  switch (type) {
    case kTypes[0]:
      return read_into<Report>(out, body);
    case kTypes[1]:
      return read_into<Grant>(out, body);
    case kTypes[2]:
      return read_into<Mark>(out, body);
    case kTypes[3]:
      return read_into<Accepted>(out, body);
    case kTypes[4]:
      return read_into<Member>(out, body);
    case kTypes[5]:
      return read_into<Hello>(out, body);
    case kTypes[6]:
      return read_into<Reset>(out, body);
    case kTypes[7]:
      return read_into<Clone>(out, body);
    case kTypes[8]:
      return read_into<ReadRegisters>(out, body);
    case kTypes[9]:
      return read_into<Registered>(out, body);
    case kTypes[10]:
      return read_into<RegistersEnd>(out, body);
    case kTypes[11]:
      return read_into<Moved>(out, body);
    case kTypes[12]:
      return read_into<KeyOrder>(out, body);
    case kTypes[13]:
      return read_into<OrdersDigest>(out, body);
    default:
      return true;  // a newer node says something that we do not know
  }
}

uint64_t hash_of(std::span<const uint8_t> bytes, const IdKey& id_key) {
  return keyed_hash({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, id_key);
}

}  // namespace

std::string_view entry_kind_name(size_t index) { return index < kEntryKinds ? kKindNames[index] : "unknown"; }

std::string_view decode_error_name(DecodeError error) {
  switch (error) {
    case DecodeError::none:
      return "none";
    case DecodeError::too_short:
      return "too_short";
    case DecodeError::too_long:
      return "too_long";
    case DecodeError::bad_magic:
      return "bad_magic";
    case DecodeError::version:
      return "version";
    case DecodeError::forged:
      return "forged";
    case DecodeError::malformed:
      return "malformed";
  }
  return "unknown";
}

DatagramWriter::DatagramWriter(const Header& header, const IdKey& id_key, size_t bytes_max)
    : header_(header), bytes_max_(bytes_max), key_(id_key) {
  Sizer sizer;
  fields(sizer, header_);
  const size_t body = sizer.size();
  header_bytes_ = kPrefixBytes + varint_bytes(body) + body;

  bytes_.reserve(kDatagramMax);
  bytes_.resize(header_bytes_);
  Putter out(bytes_.data());
  out.raw(kMagic, sizeof kMagic);
  out.raw(&kWireVersion, 1);
  out.put_varint(body);
  out.put_varint(sizer.bits());
  fields(out, header_);
}

bool DatagramWriter::add(const Entry& entry) {
  return std::visit(
      [&](const auto& e) {
        Sizer sizer;
        fields(sizer, e, header_);
        const size_t body = sizer.size(), before = bytes_.size();
        const size_t after = before + 1 + varint_bytes(body) + body;
        if (after + kHashBytes > bytes_max_) return false;
        bytes_.resize(after);
        Putter out(bytes_.data() + before);
        out.put_varint(kTypes[entry.index()]);
        out.put_varint(body);
        out.put_varint(sizer.bits());
        fields(out, e, header_);
        return true;
      },
      entry);
}

bool DatagramWriter::empty() const { return bytes_.size() <= header_bytes_; }

Bytes DatagramWriter::finish() {
  CHECK_THAT(!bytes_.empty());
  const uint64_t hash = hash_of(bytes_, key_);
  bytes_.resize(bytes_.size() + kHashBytes);
  Putter(bytes_.data() + bytes_.size() - kHashBytes).put_word(hash);
  return std::exchange(bytes_, {});
}

DecodeError decode(std::span<const uint8_t> bytes, const IdKey& id_key, Datagram& out) {
  if (bytes.size() < kPrefixBytes + kHashBytes) return DecodeError::too_short;
  if (bytes.size() > kDatagramMax) return DecodeError::too_long;
  if (std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return DecodeError::bad_magic;
  // Before the hash: an older node shall count a newer one as such, whatever that one's hash is.
  if (bytes[sizeof kMagic] != kWireVersion) return DecodeError::version;
  const auto signed_part = bytes.first(bytes.size() - kHashBytes);
  if (Reader(bytes.last(kHashBytes)).take_word() != hash_of(signed_part, id_key)) return DecodeError::forged;

  Reader in(signed_part.subspan(kPrefixBytes));
  Reader header = in.take_part(in.take_varint());
  header.read_presence();
  fields(header, out.header);
  if (!in.ok() || !header.ok()) return DecodeError::malformed;
  out.entries.clear();
  while (in.left() > 0) {
    const uint64_t type = in.take_varint();
    const Reader body = in.take_part(in.take_varint());
    if (!in.ok() || !read_entry(out, type, body)) return DecodeError::malformed;
  }
  return DecodeError::none;
}

}  // namespace tally
