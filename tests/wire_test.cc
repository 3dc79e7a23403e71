// The peer wire: what is written is read back, and how many bytes it takes. What damage does is in
// wire_damage_test.cc.
#include "cluster/wire.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <limits>
#include <new>

#include "base/random.h"
#include "seed.h"
#include "wire_fixture.h"

using namespace tally;
using namespace tally::test;

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
  r.waiting_min = r.waiting = r.reset = kTop;
  r.demand_milli = kTop >> 1;
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
        "0317"                      // marks: type, length
        "07eae1b91cc1a907"          // of all: presence, window, length in ms; sliding is a bit alone
        "03"                        // a mark's presence; the ballot is a bit alone
        "0102030405060708090a0b0c"  // its key
        "bc05");                    // mark
}

TEST_CASE("what a newer version adds is skipped: types, fields and presence bits") {
  Random random(test_seed(7));
  int read = 0;
  for (int i = 0; i < 5'000; ++i) {
    Bytes bytes;
    const Datagram d = random_datagram(random, random.below(8), bytes);
    const Bytes newer = as_if_newer(d);
    if (newer.size() > kDatagramMax) continue;  // long keys of orders
    Datagram back;
    REQUIRE(decode(newer, kKey, back) == DecodeError::none);
    REQUIRE(back == d);
    ++read;
  }
  CHECK(read > 4'000);
}

TEST_CASE("another version is told from a forgery whatever its hash is") {
  Bytes bytes = DatagramWriter(Header{}, kKey).finish();
  bytes[2] = kWireVersion + 1;
  Datagram out;
  CHECK(decode(bytes, kKey, out) == DecodeError::version);
  CHECK(decode(signed_bytes(unsigned_bytes(bytes)), kKey, out) == DecodeError::version);
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

  // The second of a list is what each further one takes.
  const auto further = [&](const Entry& e) {
    DatagramWriter writer(h, kKey);
    for (int i = 0; i < 2; ++i) REQUIRE(writer.add(e));
    return writer.finish().size() - size_with(h, &e);
  };
  MESSAGE("empty datagram " << size_with(h, nullptr) << " bytes");
  MESSAGE("report " << size_of(h, report) << " bytes, a further one " << further(report) << ", "
                    << how_many_fit(h, report) << " a datagram; first of a strict rule " << size_of(h, first)
                    << "; of a bucket " << size_of(h, bucket));
  MESSAGE("grant " << size_of(h, grant) << " bytes, a further one " << further(grant) << ", "
                   << how_many_fit(h, grant) << " a datagram");
  MESSAGE("mark " << size_of(h, mark) << " and " << further(mark) << ", accepted " << size_of(h, accepted)
                  << " and " << further(accepted) << ", member " << size_of(h, member));
  CHECK(size_of(h, report) <= 50);
  CHECK(size_of(h, first) <= 50);
  CHECK(size_of(h, bucket) <= 70);
  CHECK(size_of(h, grant) <= 40);
  CHECK(further(report) <= 23);
  CHECK(further(first) <= 20);
  CHECK(further(bucket) <= 40);
  CHECK(further(grant) <= 23);
  CHECK(further(mark) <= 15);
  CHECK(further(accepted) <= 18);
}

TEST_CASE("a list's length grows with it, and one that has no room any more is not begun") {
  const Header h = usual_header();
  const Entry mark = usual_mark(h);
  size_t before = 0;
  for (size_t n = 1; n < 80; ++n) {  // across 127 bytes, from which on the length has two
    DatagramWriter writer(h, kKey);
    for (size_t i = 0; i < n; ++i) REQUIRE(writer.add(mark));
    const Bytes bytes = writer.finish();
    Datagram out;
    REQUIRE(decode(bytes, kKey, out) == DecodeError::none);
    REQUIRE(out.entries == std::vector<Entry>(n, mark));
    REQUIRE(bytes.size() > before);
    before = bytes.size();
  }
  DatagramWriter writer(h, kKey, size_with(h, &mark));
  REQUIRE(writer.add(mark));
  CHECK_FALSE(writer.add(mark));
  CHECK_FALSE(writer.add(usual_accepted(h)));
  CHECK(writer.finish().size() == size_with(h, &mark));
}

TEST_CASE("kinds and errors have names for metrics") {
  CHECK(entry_kind_name(Entry{Report{}}.index()) == "report");
  CHECK(entry_kind_name(Entry{Accepted{}}.index()) == "accepted");
  CHECK(entry_kind_name(Entry{Clone{}}.index()) == "clone");
  CHECK(entry_kind_name(kEntryKinds) == "unknown");
  CHECK(decode_error_name(DecodeError::bad_magic) == "bad_magic");
  CHECK(decode_error_name(DecodeError::malformed) == "malformed");
}
