// Which override holds for a key, and with which floors.
#include "core/overrides.h"

#include <doctest/doctest.h>

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/limiter.h"
#include "core_fixture.h"

namespace tally {
namespace {

using namespace test;

Override limit_of(uint32_t limit) {
  Override override;
  override.limit = window_rule(Algorithm::fixed_window, limit, secs(60)).limit;
  return override;
}

// Each with its place in the list as its limit, from 1.
Overrides overrides_of(const std::vector<std::string>& keys) {
  Overrides overrides;
  for (const std::string& key : keys) {
    const std::string wrong = overrides.add(key, limit_of(static_cast<uint32_t>(overrides.size() + 1)));
    CHECK_MESSAGE(wrong.empty(), key << ": " << wrong);
  }
  return overrides;
}

// The key of the entry that holds; it is the one whose limit is found.
std::string found(const Overrides& overrides, const std::vector<std::string>& keys, std::string_view key) {
  const Override* override = overrides.find(key);
  if (override == nullptr) {
    CHECK(overrides.key_of(key).empty());
    return "";
  }
  CHECK(overrides.key_of(key) == keys[override->limit.limit - 1]);
  return keys[override->limit.limit - 1];
}

TEST_CASE("the whole key goes before the longest block, that before the longest prefix") {
  const std::vector<std::string> keys = {"user:1", "user:*", "user:1*", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10*", "2001:db8::/32", "2001:db8::1", "/login", "/api/1", "*"};
  const Overrides overrides = overrides_of(keys);
  const auto at = [&](std::string_view key) { return found(overrides, keys, key); };
  CHECK(at("user:1") == "user:1");
  CHECK(at("user:12") == "user:1*");
  CHECK(at("user:2") == "user:*");
  CHECK(at("user:") == "user:*");
  CHECK(at("10.1.2.3") == "10.1.2.3");
  CHECK(at("10.1.2.4") == "10.1.0.0/16");
  CHECK(at("10.2.0.1") == "10.0.0.0/8");
  CHECK(at("10.2.0.1:80") == "10*");  // no address
  CHECK(at("::ffff:10.2.0.1") == "10.0.0.0/8");
  CHECK(at("2001:db8::1") == "2001:db8::1");
  CHECK(at("2001:0db8::1") == "2001:db8::1");
  CHECK(at("2001:0db8::2") == "2001:db8::/32");
  CHECK(at("::ffff:10.1.2.3") == "10.1.2.3");
  CHECK(at("2001:db9::1") == "*");
  CHECK(at("/login") == "/login");
  CHECK(at("/api/1") == "/api/1");
  CHECK(at("anything") == "*");
  CHECK(at(std::string_view("10.2.0.1\0", 9)) == "10*");
}

TEST_CASE("nothing holds for a key that no entry fits") {
  const std::vector<std::string> keys = {"a", "b*", "10.0.0.0/8"};
  const Overrides overrides = overrides_of(keys);
  for (const char* key : {"", "aa", "ab", "11.0.0.1", "::1", "10.0.0"}) CHECK(found(overrides, keys, key) == "");
}

TEST_CASE("all of IPv6 is none of IPv4, and the other way round") {
  const std::vector<std::string> keys = {"::/0", "0.0.0.0/0"};
  const Overrides overrides = overrides_of(keys);
  CHECK(found(overrides, keys, "1.2.3.4") == "0.0.0.0/0");
  CHECK(found(overrides, keys, "255.255.255.255") == "0.0.0.0/0");
  CHECK(found(overrides, keys, "::1") == "::/0");
  CHECK(found(overrides, keys, "ffff::") == "::/0");
  CHECK(found(overrides_of({"::/0"}), {"::/0"}, "1.2.3.4") == "");
}

TEST_CASE("what looks like a block and is none is refused, and so is what is there already") {
  Overrides overrides = overrides_of({"10.0.0.0/8", "a", "b*", "2001:db8::/32"});
  const auto add = [&](std::string_view key) { return overrides.add(key, limit_of(1)); };
  const std::string none = "is no block of addresses: ";
  CHECK(add("") == "a key has 1 byte or more");
  CHECK(add("10.0.0.0/33") == none + "the length is 0 to 32 bits");
  CHECK(add("10.0.0.0/99999999999") == none + "the length is 0 to 32 bits");
  CHECK(add("2001:db8::/129") == none + "the length is 0 to 128 bits");
  CHECK(add("10.0.0/8") == none + "what stands before the '/' is no address");
  CHECK(add("10.0.0.256/8") == none + "what stands before the '/' is no address");
  CHECK(add("10.1.2.3/8") == none + "the address has more bits than that; the block that it lies in is \"10.0.0.0/8\"");
  CHECK(add("2001:db8::1/32") == none + "the address has more bits than that; the block that it lies in is \"2001:db8::/32\"");
  const std::string again = "stands in these overrides already";
  for (const char* key : {"10.0.0.0/8", "::ffff:10.0.0.0/104", "a", "b*", "2001:0db8::/32"}) CHECK(add(key) == again);
  CHECK(overrides.size() == 4);
}

TEST_CASE("an address is one key in any spelling, with or without its whole length") {
  const std::vector<std::string> keys = {"192.0.2.7", "2001:db8::1", "::ffff:192.0.2.8", "192.0.2.9/32"};
  Overrides overrides = overrides_of(keys);
  for (const char* key : {"192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:0207"}) CHECK(found(overrides, keys, key) == "192.0.2.7");
  for (const char* key : {"2001:db8::1", "2001:0DB8:0:0::1"}) CHECK(found(overrides, keys, key) == "2001:db8::1");
  CHECK(overrides.key_of("192.0.2.8") == "192.0.2.8");
  CHECK(found(overrides, keys, "192.0.2.9") == "192.0.2.9/32");
  CHECK(found(overrides, keys, "192.0.2.10") == "");
  for (const char* key : {"::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.8", "2001:DB8::1/128", "192.0.2.9"})
    CHECK(overrides.add(key, limit_of(1)) == "stands in these overrides already");
}

TEST_CASE("a key that looks like a block in another notation is known as that, with what was meant") {
  for (const auto& [key, meant] : std::vector<std::pair<const char*, const char*>>{{"10.0.0.0/255.0.0.0", "10.0.0.0/8"},
                                                                                  {"10.0.0.0/255.255.255.255", "10.0.0.0/32"},
                                                                                  {"10.0.0.0/255.0.255.0", ""},
                                                                                  {"10.0.0.0/8 ", "10.0.0.0/8"},
                                                                                  {"\t192.0.2.7", "192.0.2.7"},
                                                                                  {" 10.0.0.0/255.0.0.0", "10.0.0.0/8"},
                                                                                  {"[2001:db8::]/32", "2001:db8::/32"},
                                                                                  {"[2001:db8::1]", "2001:db8::1"},
                                                                                  {"10.0.0.0-10.0.0.255", ""},
                                                                                  {"fe80::%eth0/64", "fe80::/64"}}) {
    CAPTURE(key);
    CHECK(Overrides::meant_by(key) == std::string(meant));
  }
  for (const char* key : {"", " ", "a", "10.0.0.0/8", "192.0.2.7", "10.0.0.0/8*", "10.0.0*", "/api/1", "a b", "10.0.0.1-2", "fe80::1%eth0", "a/255.0.0.0", "[a]/32",
                          "[2001:db8::1]:80", "10.0.0.1/login", "-", "/", "%"}) {
    CAPTURE(key);
    CHECK_FALSE(Overrides::meant_by(key));
  }
}

// By looking at each block with a mask of its own.
bool covers(const std::array<uint8_t, 16>& block, unsigned length, const std::array<uint8_t, 16>& address) {
  for (unsigned bit = 0; bit < length; ++bit)
    if (((block[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  return true;
}

TEST_CASE("the block found is the longest that covers the address, by its bits") {
  Random random(seed() + 40);
  int hits = 0;
  for (int round = 0; round < kRounds; ++round) {
    const bool ipv6 = random.chance(0.5);
    const unsigned bytes = ipv6 ? 16 : 4;
    const auto text = [&](const std::array<uint8_t, 16>& address) {
      char out[INET6_ADDRSTRLEN];
      ::inet_ntop(ipv6 ? AF_INET6 : AF_INET, address.data(), out, sizeof out);
      return std::string(out);
    };
    const auto draw = [&] {  // few different bits, so that blocks lie in each other
      std::array<uint8_t, 16> address{};
      for (unsigned i = 0; i < bytes; ++i) address[i] = i < 2 ? static_cast<uint8_t>(0x20 + random.below(2)) : static_cast<uint8_t>(random.below(4) << 6);
      return address;
    };
    Overrides overrides;
    std::vector<std::pair<std::array<uint8_t, 16>, unsigned>> blocks;
    for (int i = 0; i < 20; ++i) {
      auto address = draw();
      const auto length = static_cast<unsigned>(random.below(bytes * 8 + 1));
      for (unsigned bit = length; bit < 128; ++bit) address[bit / 8] = static_cast<uint8_t>(address[bit / 8] & ~(1u << (7 - bit % 8)));
      if (overrides.add(text(address) + "/" + std::to_string(length), limit_of(static_cast<uint32_t>(blocks.size() + 1))).empty()) blocks.emplace_back(address, length);
    }
    for (int i = 0; i < 50; ++i) {
      const auto address = draw();
      size_t best = blocks.size();
      for (size_t b = 0; b < blocks.size(); ++b)
        if (covers(blocks[b].first, blocks[b].second, address) && (best == blocks.size() || blocks[b].second > blocks[best].second)) best = b;
      const Override* override = overrides.find(text(address));
      REQUIRE((override == nullptr) == (best == blocks.size()));
      if (override != nullptr) REQUIRE(override->limit.limit == best + 1);
      hits += override != nullptr;
    }
  }
  CHECK(hits > kRounds);
}

TEST_CASE("an override's limit has a floor of its own in the split of the fleet") {
  Rule window = window_rule(Algorithm::fixed_window, 1000, secs(60), Overcount{50'000, false});
  const auto overrides = std::make_shared<Overrides>();
  CHECK(overrides->add("big", limit_of(40'000)).empty());
  CHECK(overrides->add("small", limit_of(20)).empty());
  CHECK(overrides->add("free", {Treatment::exempt, {}, 0, {}}).empty());
  CHECK(overrides->add("bad", {Treatment::blocked, {}, 0, {}}).empty());
  window.overrides = overrides;
  const RuleSet rules({window}, Rule{}, {0, 4}, kPublicIdKey);
  const Rule& rule = rules.by_id(0);
  CHECK(rule.for_key("other").limit == &rule.limit);
  CHECK(rule.for_key("other").limit->floor == 13);
  CHECK(rule.for_key("big").limit->floor == 500);
  CHECK(rule.for_key("big").limit->window == secs(60));
  CHECK(rule.for_key("small").limit->floor == 1);
  CHECK(rule.for_key("small").treatment == Treatment::limited);
  CHECK(rule.for_key("free").treatment == Treatment::exempt);
  CHECK(rule.for_key("bad").treatment == Treatment::blocked);
  CHECK(overrides->find("big")->limit.floor == 0);  // as it was configured
  CHECK(bound_of(rule, rule.for_key("big").limit->limit, 4) == 42'000);
  CHECK(rule.overrides->fingerprint() == overrides->fingerprint());
}

TEST_CASE("what an exempt or a blocked key is answered") {
  const Rule rule = window_rule(Algorithm::fixed_window, 7, secs(60));
  const Answer exempt = answer_by({&rule.limit, Treatment::exempt}), blocked = answer_by({&rule.limit, Treatment::blocked});
  CHECK(exempt.verdict == Verdict::exempt);
  CHECK(exempt.limit == 7);
  CHECK(exempt.remaining == 7);
  CHECK(blocked.verdict == Verdict::blocked);
  CHECK(blocked.limit == 0);
  CHECK(blocked.remaining == 0);
  CHECK(blocked.retry_after < Duration(0));  // never
}

TEST_CASE("the fingerprint is of what the overrides say, in any order") {
  const auto of = [](std::vector<std::pair<std::string, uint32_t>> all) {
    Overrides overrides;
    for (const auto& [key, limit] : all) CHECK(overrides.add(key, limit_of(limit)).empty());
    return overrides.fingerprint();
  };
  CHECK(of({{"a", 1}, {"b", 2}}) == of({{"b", 2}, {"a", 1}}));
  CHECK(of({{"a", 1}, {"b", 2}}) != of({{"a", 2}, {"b", 1}}));
  CHECK(of({{"a", 1}}) != of({{"a", 1}, {"b", 2}}));
  CHECK(of({{"a*", 1}}) != of({{"a", 1}}));
}

TEST_CASE("a rule whose every key is exempt or blocked limits nothing") {
  Overrides overrides;
  const Override exempt{Treatment::exempt, {}, 0, {}}, blocked{Treatment::blocked, {}, 0, {}};
  CHECK(overrides.add("a", blocked).empty());
  CHECK_FALSE(overrides.limits_nothing());
  CHECK(overrides.add("*", exempt).empty());
  CHECK(overrides.limits_nothing());
  CHECK(overrides.add("b", limit_of(1)).empty());
  CHECK_FALSE(overrides.limits_nothing());
}

TEST_CASE("processes get nothing to hold of a bucket that is an override") {
  Rule bucket = bucket_rule(100, ms(10));
  bucket.process_hold = ms(100);
  const auto overrides = std::make_shared<Overrides>();
  Override more;
  more.limit = bucket_rule(1000, ms(1)).limit;
  CHECK(overrides->add("vip", more).empty());
  bucket.overrides = overrides;
  Bench bench(bucket);
  const Applied vip = bench.rule.for_key("vip");
  CHECK(bench.rule.limit.limit == 100 - bench.rule.held);
  CHECK(vip.limit->limit == 1000);
  CHECK(bench.limiter.take_portion(bench.ask("k"), 10, at(secs(1)), nullptr).amount == 10);
  const Ask ask{&bench.rule, vip.limit, "vip", bench.limiter.hash(bench.rule, "vip"), 1};
  CHECK(bench.limiter.take_portion(ask, 10, at(secs(1)), nullptr).amount == 0);
  CHECK(bench.limiter.peek(ask, at(secs(1))).limit == 1000);
}

}  // namespace
}  // namespace tally
