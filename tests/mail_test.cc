#include "cluster/mail.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cluster_fixture.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr uint64_t kLife = 77;

struct Post {
  Roster roster = Roster(entries_of(3), 4, 9, kPublicIdKey);
  Peers peers{roster, 1, std::nullopt, ms(100)};
  Mail mail{roster, peers, kLife, kPublicIdKey};

  std::vector<Outgoing> flushed(Duration since) {
    mail.flush(peers, at(since));
    return mail.take();
  }
};

Datagram read(const Outgoing& out) {
  Datagram datagram;
  REQUIRE(decode(out.bytes, kPublicIdKey, datagram) == DecodeError::none);
  return datagram;
}

Report report(uint64_t number) {
  Report r;
  r.used = number;
  r.terms.window = secs(1);
  return r;
}

}  // namespace

TEST_CASE(
    "what is said to one receiver goes out in one datagram, kind by kind in order, under a header that says who speaks") {
  Post post;
  post.mail.send(2, report(1));
  post.mail.send(2, Hello{true, 5, 6, 7});
  post.mail.send(2, report(2));
  const auto out = post.flushed(ms(5));
  REQUIRE(out.size() == 1);
  CHECK(out[0].to == 2);
  CHECK_FALSE(out[0].to_source);
  const Datagram d = read(out[0]);
  REQUIRE(d.entries.size() == 3);
  CHECK(d.entries[0] == Entry(Hello{true, 5, 6, 7}));
  CHECK(d.entries[1] == Entry(report(1)));
  CHECK(d.entries[2] == Entry(report(2)));
  CHECK(d.header.sender == post.roster.id(1));
  CHECK(d.header.receiver == post.roster.id(2));
  CHECK(d.header.incarnation == kLife);
  CHECK(d.header.roster_version == 4);
  CHECK(d.header.roster_hash == post.roster.hash());
  CHECK(d.header.sequence == 1);
  CHECK(d.header.sent_mono_ns == static_cast<uint64_t>(nanos(at(ms(5)).mono)));
  CHECK(d.header.sent_wall_ns == nanos(at(ms(5)).wall));
}

TEST_CASE("nothing goes out before a flush, and nothing twice") {
  Post post;
  CHECK(post.flushed(ms(0)).empty());
  post.mail.send(0, report(1));
  CHECK(post.mail.take().empty());
  CHECK(post.flushed(ms(1)).size() == 1);
  CHECK(post.mail.take().empty());
  CHECK(post.flushed(ms(2)).empty());
}

TEST_CASE("what a node says to itself stays inside, in order") {
  Post post;
  post.mail.send(1, report(1));
  post.mail.send(1, report(2));
  CHECK(post.flushed(ms(0)).empty());
  Entry entry;
  REQUIRE(post.mail.pop_local(entry));
  CHECK(entry == Entry(report(1)));
  REQUIRE(post.mail.pop_local(entry));
  CHECK(entry == Entry(report(2)));
  CHECK_FALSE(post.mail.pop_local(entry));
  CHECK(post.mail.entries()[0] == 0);  // only what is said to others is counted
}

TEST_CASE("each receiver is numbered by itself") {
  Post post;
  for (int i = 0; i < 3; ++i) {
    post.mail.send(0, report(1));
    if (i == 1) post.mail.send(2, report(1));
    for (const Outgoing& out : post.flushed(ms(i)))
      CHECK(read(out).header.sequence == (out.to == 0 ? static_cast<uint64_t>(i) + 1 : 1));
  }
}

TEST_CASE("an answer to wherever a datagram came from goes there and says whom it is meant for") {
  Post post;
  post.mail.answer_source(post.peers, 2, Clone{9}, at(ms(3)));
  const auto out = post.mail.take();
  REQUIRE(out.size() == 1);
  CHECK(out[0].to_source);
  const Datagram d = read(out[0]);
  CHECK(d.header.receiver == post.roster.id(2));
  CHECK(d.header.sender == post.roster.id(1));
  REQUIRE(d.entries.size() == 1);
  CHECK(d.entries[0] == Entry(Clone{9}));
  // Its number is one of those to the member of that name: said again to that member, it must not pass for another one.
  CHECK(d.header.sequence == 1);
  CHECK(post.peers[2].sequence_out == 1);
}

TEST_CASE("datagrams, entries by kind and bytes are counted") {
  Post post;
  post.mail.send(0, report(1));
  post.mail.send(0, report(2));
  post.mail.send(2, Member{3, 4, 5});
  size_t to_first = 0;
  for (const Outgoing& out : post.flushed(ms(0)))
    if (out.to == 0) to_first += out.bytes.size();
  post.mail.answer_source(post.peers, 1, Clone{}, at(ms(1)));
  CHECK(post.mail.datagrams() == 3);
  CHECK(post.mail.entries()[Entry(Report{}).index()] == 2);
  CHECK(post.mail.entries()[Entry(Member{}).index()] == 1);
  CHECK(post.mail.entries()[Entry(Clone{}).index()] == 1);
  CHECK(post.peers[0].bytes_out == to_first);
}

TEST_CASE(
    "however much there is to say, all of it arrives in order, in datagrams that are full and not too long") {
  Random random(test_seed(303));
  for (int round = 0; round < kRandomRounds / 5; ++round) {
    Post post;
    std::map<uint16_t, std::vector<Entry>> said;
    const auto n = random.below(300);
    for (uint64_t i = 0; i < n; ++i) {
      const auto to = static_cast<uint16_t>(random.below(2) * 2);
      Entry entry{report(i)};
      if (random.chance(0.3)) entry = Member{random.next(), random.next(), i};
      if (random.chance(0.3)) {
        Report fat = report(random.next());
        fat.key = random_key(random);
        fat.wanted = fat.ceiling = fat.waiting = fat.refunded = fat.given = fat.returned = fat.reset =
            random.next();
        fat.ballot = {static_cast<uint32_t>(random.next()), random.next()};
        entry = fat;
      }
      said[to].push_back(entry);
      std::visit([&](const auto& e) { post.mail.send(to, e); }, entry);
    }
    std::map<uint16_t, std::vector<Entry>> heard;
    std::map<uint16_t, size_t> last_size;
    for (const Outgoing& out : post.flushed(ms(round))) {
      REQUIRE(out.bytes.size() <= kDatagramMax);
      // A datagram is followed by another only where it had no room for one more entry, of 200 bytes at most.
      if (last_size.contains(out.to)) REQUIRE(last_size[out.to] > kDatagramMax - 200);
      last_size[out.to] = out.bytes.size();
      for (const Entry& entry : read(out).entries) heard[out.to].push_back(entry);
    }
    for (auto& [to, entries] : said)  // those that do not come in lists are first
      std::ranges::stable_partition(entries, [](const Entry& e) { return std::holds_alternative<Member>(e); });
    REQUIRE(heard == said);
  }
}

TEST_CASE("what can be in one list goes out in one, however it is mixed, and all of it once") {
  Random random(test_seed(304));
  const auto bytes_of = [](const std::vector<Report>& reports, std::vector<Entry>& heard) {
    Post post;
    for (const Report& r : reports) {
      post.mail.send(2, r);
      Grant grant;
      grant.window = r.window;
      grant.line = r.line;
      post.mail.send(2, grant);
    }
    size_t bytes = 0;
    for (const Outgoing& out : post.flushed(ms(1))) {
      bytes += out.bytes.size();
      for (const Entry& entry : read(out).entries) heard.push_back(entry);
    }
    return bytes;
  };
  const auto line = [](const Entry& e) {
    const auto* report = std::get_if<Report>(&e);
    return std::pair(e.index(), report != nullptr ? report->line : std::get<Grant>(e).line);
  };
  std::vector<Report> one_rule, three_rules, many_rules;
  for (uint32_t i = 0; i < 900; ++i) {
    Report r = report(i % 50);
    r.key = random_key(random);
    r.line = i;
    one_rule.push_back(r);
    r.rule = i % 3;
    r.window = r.rule;
    three_rules.push_back(r);
    r.rule = i;
    many_rules.push_back(r);
  }
  std::vector<Entry> one, three, many;
  const size_t bytes_of_one = bytes_of(one_rule, one);
  CHECK(bytes_of(three_rules, three) < bytes_of_one * 21 / 20);
  CHECK(bytes_of(many_rules, many) > bytes_of_one);
  for (std::vector<Entry>* heard : {&one, &three, &many}) {
    REQUIRE(heard->size() == 1800);
    std::ranges::sort(*heard, {}, line);
    for (uint32_t i = 0; i < 900; ++i) {
      const std::vector<Report>& said = heard == &one ? one_rule : heard == &three ? three_rules : many_rules;
      REQUIRE((*heard)[i] == Entry(said[i]));
    }
  }
}

TEST_CASE("what is said of one key in one window stays in order, whatever else is said between") {
  Random random(test_seed(305));
  Post post;
  std::map<std::pair<uint32_t, int64_t>, std::vector<uint64_t>> said, heard;
  for (uint64_t i = 0; i < 5000; ++i) {
    Grant grant;
    grant.line = static_cast<uint32_t>(random.below(20));
    grant.window = static_cast<int64_t>(random.below(4));
    grant.stamp = random.below(3) * 1'000'000;  // so that they are not of one list
    grant.granted = i;
    said[{grant.line, grant.window}].push_back(i);
    post.mail.send(2, grant);
  }
  for (const Outgoing& out : post.flushed(ms(1)))
    for (const Entry& entry : read(out).entries) {
      const Grant& grant = std::get<Grant>(entry);
      heard[{grant.line, grant.window}].push_back(grant.granted);
    }
  CHECK(heard == said);
}
