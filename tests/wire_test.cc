// The peer wire: what is written is read back, and no bytes at all can do harm.
#include "cluster/wire.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <limits>
#include <new>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {
size_t allocations = 0;  // of this program, for the test that counts them
}

void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace {

constexpr IdKey kKey = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

// --- random structs ---

// A field that is added to a struct belongs into its fill below, too.
static_assert(sizeof(Report) == 200 && sizeof(Grant) == 128 && sizeof(Mark) == 72 && sizeof(Accepted) == 96);
static_assert(sizeof(Header) == 80 && sizeof(Member) == 24 && sizeof(Hello) == 24 && sizeof(Reset) == 24);

// Numbers of every width alike, often 0, sometimes the largest.
uint64_t any(Random& random) {
  if (random.chance(0.2)) return 0;
  if (random.chance(0.05)) return ~uint64_t{0};
  return random.next() >> random.below(64);
}
template <typename T>
void fill(Random& random, T& x) {
  x = static_cast<T>(any(random));
}
void fill(Random& random, bool& x) { x = random.chance(0.5); }
void fill(Random& random, Duration& x) {
  auto n = static_cast<int64_t>(any(random) >> 1);
  if (random.chance(0.5)) n -= n % 1'000'000;
  x = Duration(n);
}
void fill(Random& random, WireId& x) {
  for (uint8_t& b : x.bytes) b = static_cast<uint8_t>(random.next());
}
void fill_node(Random& random, NodeId& x, const Header& h) {
  const NodeId choice[] = {h.sender, h.receiver, 0, random.next()};
  x = choice[random.below(4)];
}
void fill(Random& random, Ballot& x, const Header& h) {
  fill(random, x.counter);
  fill_node(random, x.node, h);
}
void fill(Random& random, Terms& x) {
  x.algorithm = static_cast<Algorithm>(random.below(3));
  x.limit = static_cast<uint32_t>(any(random) % (uint64_t{kLimitMax} + 1));
  x.max_overcount.ppm = static_cast<uint32_t>(any(random) % 1'000'001);
  if (random.chance(0.5)) x.max_overcount.ppm -= x.max_overcount.ppm % 1000;
  fill(random, x.max_overcount.unbounded);
  fill(random, x.window);
  fill(random, x.emission);
}
template <typename... T>
void fill_all(Random& random, T&... x) {
  (fill(random, x), ...);
}

void fill(Random& random, Header& h) {
  fill_all(random, h.incarnation, h.roster_version, h.roster_hash, h.sequence, h.sent_mono_ns, h.sent_wall_ns,
           h.echo_mono_ns, h.echo_held_ns);
  h.sender = random.chance(0.05) ? 0 : random.next();
  h.receiver = random.chance(0.05) ? 0 : random.next();
}
void fill(Random& random, Report& e, const Header& h) {
  fill_all(random, e.key, e.rule, e.terms, e.window, e.has_ballot, e.line, e.floor, e.used, e.returned,
           e.refunded, e.given, e.ceiling, e.granted_heard, e.wanted, e.waiting_min, e.waiting,
           e.demand_milli, e.reset, e.stamp, e.lease, e.final, e.second_choice);
  fill(random, e.ballot, h);
}
void fill(Random& random, Grant& e, const Header& h) {
  fill_all(random, e.key, e.window, e.line, e.incarnation, e.granted, e.used_fleet, e.pool, e.demand_share,
           e.exhausted, e.stop, e.backed, e.ask_again, e.reset, e.stamp, e.lease, e.lease_for, e.tat_ahead);
  fill(random, e.ballot, h);
}
void fill(Random& random, Mark& e, const Header& h) {
  fill_all(random, e.key, e.window, e.mark, e.length, e.sliding, e.number);
  fill(random, e.ballot, h);
}
void fill(Random& random, Accepted& e, const Header& h) {
  fill_all(random, e.key, e.window, e.refused, e.mark, e.number, e.previous_told, e.previous_mark);
  fill(random, e.ballot, h);
  fill(random, e.previous_ballot, h);
}
void fill(Random& random, Member& e, const Header&) {
  fill_all(random, e.node, e.incarnation, e.heard_ms_ago);
}
void fill(Random& random, Hello& e, const Header&) { fill_all(random, e.answer, e.remembered, e.rules); }
void fill(Random& random, Reset& e, const Header&) { fill_all(random, e.key, e.number); }
void fill(Random& random, Clone& e, const Header&) { fill(random, e.incumbent); }

template <size_t... I>
Entry entry_of_kind(size_t kind, std::index_sequence<I...>) {
  Entry e;
  ((I == kind ? static_cast<void>(e.emplace<I>()) : static_cast<void>(0)), ...);
  return e;
}
Entry entry_of_kind(size_t kind) { return entry_of_kind(kind, std::make_index_sequence<kEntryKinds>{}); }

Entry random_entry(Random& random, const Header& h) {
  Entry e = entry_of_kind(random.below(kEntryKinds));
  std::visit([&](auto& it) { fill(random, it, h); }, e);
  return e;
}

// Entries until one does not fit, or `most`.
Datagram random_datagram(Random& random, size_t most, Bytes& bytes) {
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

Bytes signed_bytes(Bytes bytes) {
  const uint64_t hash = keyed_hash({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, kKey);
  for (unsigned i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(hash >> (8 * i)));
  return bytes;
}
Bytes unsigned_bytes(const Bytes& bytes) { return Bytes(bytes.begin(), bytes.end() - 8); }
void put_varint(Bytes& to, uint64_t n) {
  for (; n >= 0x80; n >>= 7) to.push_back(static_cast<uint8_t>(n | 0x80));
  to.push_back(static_cast<uint8_t>(n));
}
uint64_t take_varint(const Bytes& from, size_t& at) {
  uint64_t n = 0;
  for (unsigned shift = 0;; shift += 7) {
    n |= uint64_t{from[at]} << shift;
    if (from[at++] < 0x80) return n;
    n -= uint64_t{0x80} << shift;
  }
}

// A datagram of one entry: type, presence word, then `fields`.
Bytes with_entry(uint64_t type, uint64_t presence, const Bytes& fields) {
  Bytes bytes = unsigned_bytes(DatagramWriter(Header{}, kKey).finish());
  Bytes body;
  put_varint(body, presence);
  body.insert(body.end(), fields.begin(), fields.end());
  put_varint(bytes, type);
  put_varint(bytes, body.size());
  bytes.insert(bytes.end(), body.begin(), body.end());
  return signed_bytes(bytes);
}
DecodeError decode_entry(uint64_t type, uint64_t presence, const Bytes& fields) {
  Datagram out;
  return decode(with_entry(type, presence, fields), kKey, out);
}
DecodeError decode_report(uint64_t presence, uint64_t number) {
  Bytes fields(16, 0);  // key and rule
  put_varint(fields, number);
  return decode_entry(1, presence, fields);
}

// The same datagram as a newer version of the format would write it: more in the header, more in each entry,
// and an entry of a type that this version does not know before each that it does.
Bytes as_if_newer(const Bytes& bytes) {
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

Header usual_header() {
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
Report usual_report(const Header& h) {
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
Grant usual_grant(const Header& h) {
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
Mark usual_mark(const Header& h) {
  Mark m;
  m.key.bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  m.window = 29'833'333;
  m.ballot = {0, h.sender};
  m.mark = 700;
  m.length = std::chrono::minutes(1);
  m.sliding = true;
  return m;
}
Accepted usual_accepted(const Header& h) {
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

size_t size_with(const Header& h, const Entry* e) {
  DatagramWriter writer(h, kKey);
  if (e != nullptr) CHECK(writer.add(*e));
  return writer.finish().size();
}
size_t size_of(const Header& h, const Entry& e) { return size_with(h, &e) - size_with(h, nullptr); }
size_t how_many_fit(const Header& h, const Entry& e) {
  DatagramWriter writer(h, kKey);
  size_t n = 0;
  while (writer.add(e)) ++n;
  return n;
}

}  // namespace

TEST_CASE("every random datagram is read back as it was written") {
  Random random(test_seed(1));
  size_t entries = 0;
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes;
    const Datagram d = random_datagram(random, random.below(30), bytes);
    Datagram back;
    REQUIRE(decode(bytes, kKey, back) == DecodeError::none);
    REQUIRE(back == d);
    entries += d.entries.size();
  }
  CHECK(entries > 100'000);
}

TEST_CASE("an entry of zeros and an entry of the largest numbers are read back") {
  Header h = usual_header();
  for (size_t kind = 0; kind < kEntryKinds; ++kind) {
    CAPTURE(kind);
    DatagramWriter writer(h, kKey);
    const Entry zero = entry_of_kind(kind);
    REQUIRE(writer.add(zero));
    Datagram back;
    REQUIRE(decode(writer.finish(), kKey, back) == DecodeError::none);
    CHECK(back.entries == std::vector<Entry>{zero});
  }

  constexpr uint64_t kTop = ~uint64_t{0};
  constexpr uint32_t kTop32 = ~uint32_t{0};
  Report r;
  r.key.bytes.fill(0xff);
  r.rule = kTop32;
  r.terms = {Algorithm::token_bucket, kLimitMax, {kPartsPerMillion, true}, Duration::max(), Duration::max()};
  r.window = std::numeric_limits<int64_t>::min();
  r.ballot = {kTop32, kTop};
  r.has_ballot = r.final = r.second_choice = true;
  r.line = r.floor = kTop32;
  r.lease = r.used = r.returned = r.refunded = r.given = r.ceiling = r.granted_heard = r.wanted = kTop;
  r.waiting_min = r.waiting = r.demand_milli = r.reset = kTop;
  r.stamp = h.sent_mono_ns + (uint64_t{1} << 63);  // as far as can be
  h.sent_mono_ns = h.incarnation = h.sequence = h.echo_mono_ns = h.echo_held_ns = kTop;
  h.roster_version = kTop32;
  h.sent_wall_ns = std::numeric_limits<int64_t>::max();
  DatagramWriter writer(h, kKey);
  REQUIRE(writer.add(r));
  const Bytes bytes = writer.finish();
  Datagram back;
  REQUIRE(decode(bytes, kKey, back) == DecodeError::none);
  CHECK(back == Datagram{h, {r}});
  CHECK(bytes.size() < kDatagramMax / 2);  // so the largest entry fits an empty datagram, with room to spare
}

TEST_CASE("the bytes of a datagram are pinned") {
  Header h;
  h.sender = 1;
  h.sequence = 300;
  Mark m = usual_mark(h);
  DatagramWriter writer(h, kKey);
  REQUIRE(writer.add(m));
  std::string hex;
  for (const uint8_t b : unsigned_bytes(writer.finish())) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[b >> 4];
    hex += kDigits[b & 15];
  }
  CHECK(hex ==
        "547901"                    // magic, version
        "0b210100000000000000ac02"  // header: length, presence, sender, sequence
        "03161f"                    // a mark: type, length, presence; sliding and the ballot are bits alone
        "0102030405060708090a0b0c"  // its key
        "eae1b91cbc05c1a907");      // window, mark, length in ms
}

TEST_CASE("a datagram cut at any length is refused") {
  Random random(test_seed(2));
  for (int i = 0; i < 50; ++i) {
    Bytes bytes;
    random_datagram(random, 20, bytes);
    for (size_t n = 0; n < bytes.size(); ++n) {
      Datagram out;
      const DecodeError error = decode(std::span(bytes).first(n), kKey, out);
      REQUIRE(error == (n < 11 ? DecodeError::too_short : DecodeError::forged));
    }
  }
}

TEST_CASE("a signed datagram cut at any length is whole entries or malformed") {
  Random random(test_seed(3));
  for (int i = 0; i < 200; ++i) {
    Bytes bytes;
    const Datagram d = random_datagram(random, 12, bytes);
    const Bytes content = unsigned_bytes(bytes);
    size_t readable = 0;
    for (size_t n = 3; n <= content.size(); ++n) {
      Datagram out;
      const DecodeError error = decode(
          signed_bytes(Bytes(content.begin(), content.begin() + static_cast<ptrdiff_t>(n))), kKey, out);
      if (error == DecodeError::none) {
        REQUIRE(out.entries.size() == readable);
        REQUIRE(std::equal(out.entries.begin(), out.entries.end(), d.entries.begin()));
        ++readable;
      } else {
        REQUIRE(error == DecodeError::malformed);
      }
    }
    REQUIRE(readable == d.entries.size() + 1);  // after the header and after each entry
  }
}

TEST_CASE("a flipped bit makes a datagram forged, or of another magic or version") {
  Random random(test_seed(4));
  for (int i = 0; i < 20; ++i) {
    Bytes bytes;
    random_datagram(random, 8, bytes);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      Datagram out;
      const DecodeError expected = bit < 16   ? DecodeError::bad_magic
                                   : bit < 24 ? DecodeError::version
                                              : DecodeError::forged;
      REQUIRE(decode(bytes, kKey, out) == expected);
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    IdKey other = kKey;
    other[15] ^= 1;
    Datagram out;
    REQUIRE(decode(bytes, other, out) == DecodeError::forged);
  }
}

TEST_CASE("signed bytes of any kind are read or malformed, and what is read can be written again") {
  Random random(test_seed(5));
  size_t read = 0, malformed = 0;
  Datagram out;
  for (int i = 0; i < 300'000; ++i) {
    Bytes bytes;
    if (random.chance(0.2)) {  // noise behind a true start
      bytes = {'T', 'y', kWireVersion};
      const size_t n = random.below(200);
      for (size_t k = 0; k < n; ++k) bytes.push_back(static_cast<uint8_t>(random.next()));
    } else {  // a true datagram with a few bytes changed, taken out or put in
      random_datagram(random, random.below(6), bytes);
      bytes = unsigned_bytes(bytes);
      for (uint64_t k = 1 + random.below(4); k > 0 && bytes.size() > 4; --k) {
        const auto at = bytes.begin() + static_cast<ptrdiff_t>(3 + random.below(bytes.size() - 3));
        const auto byte = static_cast<uint8_t>(random.next());
        if (random.chance(0.6))
          *at = byte;
        else if (random.chance(0.5))
          bytes.erase(at);
        else
          bytes.insert(at, byte);
      }
    }
    bytes = signed_bytes(std::move(bytes));
    const DecodeError error = decode(bytes, kKey, out);
    if (bytes.size() > kDatagramMax) {
      REQUIRE(error == DecodeError::too_long);
      continue;
    }
    if (error == DecodeError::malformed) {
      ++malformed;
      continue;
    }
    REQUIRE(error == DecodeError::none);
    ++read;
    REQUIRE(out.entries.size() <= kDatagramMax / 3);
    DatagramWriter writer(out.header, kKey);
    for (const Entry& e : out.entries) REQUIRE(writer.add(e));
    Datagram again;
    REQUIRE(decode(writer.finish(), kKey, again) == DecodeError::none);
    REQUIRE(again == out);
  }
  CHECK(read > 10'000);
  CHECK(malformed > 10'000);
}

TEST_CASE("bytes of any kind without a signature are never read") {
  Random random(test_seed(6));
  for (int i = 0; i < 200'000; ++i) {
    Bytes bytes(random.below(64));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.next());
    if (random.chance(0.5) && bytes.size() >= 3) bytes[0] = 'T', bytes[1] = 'y', bytes[2] = kWireVersion;
    Datagram out;
    const DecodeError error = decode(bytes, kKey, out);
    REQUIRE(error != DecodeError::none);
    REQUIRE(error != DecodeError::malformed);
  }
}

TEST_CASE("what a newer version adds is skipped: types, fields and presence bits") {
  Random random(test_seed(7));
  for (int i = 0; i < 5'000; ++i) {
    Bytes bytes;
    const Datagram d = random_datagram(random, random.below(8), bytes);
    Datagram back;
    REQUIRE(decode(as_if_newer(bytes), kKey, back) == DecodeError::none);
    REQUIRE(back == d);
  }
}

TEST_CASE("another version is told from a forgery whatever its hash is") {
  Bytes bytes = DatagramWriter(Header{}, kKey).finish();
  bytes[2] = kWireVersion + 1;
  Datagram out;
  CHECK(decode(bytes, kKey, out) == DecodeError::version);
  CHECK(decode(signed_bytes(unsigned_bytes(bytes)), kKey, out) == DecodeError::version);
}

TEST_CASE("a number that its field cannot hold is malformed") {
  constexpr uint64_t kLimit = 1 << 0, kPpm = 1 << 1, kWindow = 1 << 2, kLine = 1 << 4, kUsed = 1 << 5;
  CHECK(decode_report(kLimit, kLimitMax) == DecodeError::none);
  CHECK(decode_report(kLimit, uint64_t{kLimitMax} + 1) == DecodeError::malformed);
  CHECK(decode_report(kPpm, 2 * 1'000'000) == DecodeError::none);  // an even number counts ones
  CHECK(decode_report(kPpm, 2 * 1'000'001) == DecodeError::malformed);
  CHECK(decode_report(kPpm, 2 * 1'000 + 1) == DecodeError::none);  // an odd number counts thousands
  CHECK(decode_report(kPpm, 2 * 1'001 + 1) == DecodeError::malformed);
  CHECK(decode_report(kLine, 0xffff'ffff) == DecodeError::none);
  CHECK(decode_report(kLine, 0x1'0000'0000) == DecodeError::malformed);
  CHECK(decode_report(kUsed, ~uint64_t{0}) == DecodeError::none);
  constexpr uint64_t kMostMs = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 1'000'000;
  CHECK(decode_report(kWindow, ~uint64_t{0} - 1) == DecodeError::none);  // Duration::max()
  CHECK(decode_report(kWindow, 2 * kMostMs + 1) == DecodeError::none);
  CHECK(decode_report(kWindow, 2 * kMostMs + 3) == DecodeError::malformed);

  // The algorithm's bit: behind 12 numbers and 5 flags and parts of the ballot.
  constexpr uint64_t kAlgorithm = 1 << 18;
  CHECK(decode_report(kAlgorithm, 2) == DecodeError::none);
  CHECK(decode_report(kAlgorithm, 3) == DecodeError::malformed);
  CHECK(decode_report(kAlgorithm, 256) == DecodeError::malformed);
}

TEST_CASE("a field, a varint or an entry that runs out of its bounds is malformed") {
  const Bytes key(12, 1);
  CHECK(decode_entry(7, 0, key) == DecodeError::none);
  CHECK(decode_entry(7, 0, Bytes(11, 1)) == DecodeError::malformed);  // half a key
  CHECK(decode_entry(7, 1, key) == DecodeError::malformed);           // a field announced, and not there
  Bytes number = key;
  number.insert(number.end(), 9, 0xff);
  CHECK(decode_entry(7, 1, number) == DecodeError::malformed);  // a varint without an end
  number.push_back(0x01);
  CHECK(decode_entry(7, 1, number) == DecodeError::none);  // 2^64 - 1
  number.back() = 0x02;
  CHECK(decode_entry(7, 1, number) == DecodeError::malformed);                 // 65 bits
  CHECK(decode_entry(5, 1, Bytes(7, 1)) == DecodeError::malformed);            // 7 of 8 bytes
  CHECK(decode_entry(3, 0b101'0000, Bytes(20, 1)) == DecodeError::malformed);  // a ballot with two nodes

  for (const uint64_t length : {uint64_t{1}, uint64_t{1000}, ~uint64_t{0}}) {
    Bytes bytes = unsigned_bytes(DatagramWriter(Header{}, kKey).finish());
    bytes.push_back(200);  // an unknown type: its length is believed no more than another's
    bytes.push_back(1);
    put_varint(bytes, length);
    Datagram out;
    CHECK(decode(signed_bytes(bytes), kKey, out) == DecodeError::malformed);
  }
}

TEST_CASE("a datagram holds exactly kDatagramMax bytes") {
  const Header h = usual_header();
  const auto clone_of_size = [](size_t n) { return Entry{Clone{uint64_t{1} << 7 * (n - 4)}}; };
  REQUIRE(size_of(h, clone_of_size(4)) == 4);
  REQUIRE(size_of(h, clone_of_size(12)) == 12);

  DatagramWriter writer(h, kKey);
  size_t left = kDatagramMax - size_with(h, nullptr);
  for (; left > 20; left -= 8) REQUIRE(writer.add(clone_of_size(8)));
  REQUIRE(writer.add(clone_of_size(left - 8)));  // 8 bytes left
  REQUIRE_FALSE(writer.add(clone_of_size(9)));
  REQUIRE(writer.add(clone_of_size(8)));
  REQUIRE_FALSE(writer.add(Clone{}));
  const Bytes bytes = writer.finish();
  CHECK(bytes.size() == kDatagramMax);
  Datagram out;
  CHECK(decode(bytes, kKey, out) == DecodeError::none);

  Bytes longer = unsigned_bytes(bytes);
  longer.push_back(0);
  CHECK(decode(signed_bytes(longer), kKey, out) == DecodeError::too_long);
}

TEST_CASE("a negative duration is written as 0") {
  Grant g;
  g.ask_again = Duration(-1);
  DatagramWriter writer(Header{}, kKey);
  REQUIRE(writer.add(g));
  Datagram out;
  REQUIRE(decode(writer.finish(), kKey, out) == DecodeError::none);
  CHECK(std::get<Grant>(out.entries[0]).ask_again == Duration(0));
}

TEST_CASE("a writer allocates its one buffer and nothing else") {
  const Header h = usual_header();
  const Entry report = usual_report(h);
  const size_t before = allocations;
  DatagramWriter writer(h, kKey);
  size_t n = 0;
  while (writer.add(report)) ++n;
  const Bytes bytes = writer.finish();
  const size_t spent = allocations - before;
  CHECK(spent == 1);
  CHECK(n > 20);

  Datagram out;
  REQUIRE(decode(bytes, kKey, out) == DecodeError::none);
  const size_t before_again = allocations;
  REQUIRE(decode(bytes, kKey, out) == DecodeError::none);
  CHECK(allocations == before_again);  // a Datagram used again keeps its room
}

TEST_CASE("the usual entries are small") {
  const Header h = usual_header();
  const Entry report = usual_report(h), grant = usual_grant(h), mark = usual_mark(h),
              accepted = usual_accepted(h);
  const Entry first{[&] {
    Report r = usual_report(h);  // a strict rule's first request
    r.terms = {Algorithm::sliding_window, 5, {0, false}, std::chrono::minutes(15), Duration(0)};
    r.ballot = {};
    r.has_ballot = false;
    r.floor = 0;
    r.used = r.ceiling = r.granted_heard = r.demand_milli = 0;
    r.wanted = r.waiting_min = r.waiting = 1;
    return r;
  }()};
  const Entry bucket{[&] {
    Report r = usual_report(h);
    r.terms = {Algorithm::token_bucket, 100, {50'000, false}, Duration(0), std::chrono::milliseconds(20)};
    r.window = 0;
    r.lease = 17;
    r.used = 323'456'789;
    r.ceiling = 500'000'000;
    r.granted_heard = 500'000'000;
    r.wanted = 612'345'678;
    r.demand_milli = 40'000'000'000;
    return r;
  }()};
  const Entry member{Member{0x1122334455667788, 7, 120}};

  MESSAGE("empty datagram " << size_with(h, nullptr) << " bytes");
  MESSAGE("report " << size_of(h, report) << " bytes, " << how_many_fit(h, report)
                    << " a datagram; first of a strict rule " << size_of(h, first) << "; of a bucket "
                    << size_of(h, bucket));
  MESSAGE("grant " << size_of(h, grant) << " bytes, " << how_many_fit(h, grant) << " a datagram");
  MESSAGE("mark " << size_of(h, mark) << ", accepted " << size_of(h, accepted) << ", member "
                  << size_of(h, member));
  CHECK(size_of(h, report) <= 50);
  CHECK(size_of(h, first) <= 50);
  CHECK(size_of(h, bucket) <= 70);
  CHECK(size_of(h, grant) <= 37);
  CHECK(how_many_fit(h, report) >= 27);
  CHECK(how_many_fit(h, grant) >= 35);
}

TEST_CASE("kinds and errors have names for metrics") {
  CHECK(entry_kind_name(Entry{Report{}}.index()) == "report");
  CHECK(entry_kind_name(Entry{Accepted{}}.index()) == "accepted");
  CHECK(entry_kind_name(Entry{Clone{}}.index()) == "clone");
  CHECK(entry_kind_name(kEntryKinds) == "unknown");
  CHECK(decode_error_name(DecodeError::bad_magic) == "bad_magic");
  CHECK(decode_error_name(DecodeError::malformed) == "malformed");
}
