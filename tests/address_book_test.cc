// Who is where: several addresses, moves, names that mean the same address, and what is not used.
#include "daemon/address_book.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "seed.h"

using namespace tally;
using Why = AddressBook::Why;

namespace {

AddressBook::Endpoint at(const std::string& ip, uint16_t port = 8381) {
  return {asio::ip::make_address(ip), port};
}

constexpr AddressBook::Reach kEverywhere{true, true, true};

// What is skipped, as "address why".
std::string skipped(const std::vector<AddressBook::Skipped>& list) {
  std::string text;
  constexpr const char* kWords[] = {"family", "not loopback", "unusable", "taken"};
  for (const auto& one : list)
    text += (text.empty() ? "" : ", ") + text_of(one.address) + " " + kWords[static_cast<size_t>(one.why)] +
            (one.why == Why::taken ? " by " + std::to_string(one.by) : "");
  return text;
}

std::string sent_to(AddressBook& book, uint16_t rank) {
  const auto to = book.next(rank);
  return to ? text_of(*to) : "nowhere";
}

}  // namespace

TEST_CASE("the nodes at an IP address are found whatever their ports") {
  AddressBook book(kEverywhere);
  book.set(0, {at("10.0.0.1", 1), at("10.0.0.3", 1)});
  book.set(1, {at("10.0.0.1", 65535)});
  book.set(2, {at("10.0.0.2")});
  const auto there = [&](const char* ip) {
    std::vector<uint16_t> ranks;
    book.ranks_at(asio::ip::make_address(ip), ranks);
    return ranks;
  };
  CHECK(there("10.0.0.1") == std::vector<uint16_t>{0, 1});
  CHECK(there("10.0.0.2") == std::vector<uint16_t>{2});
  CHECK(there("10.0.0.3") == std::vector<uint16_t>{0});
  CHECK(there("10.0.0.4").empty());
  CHECK(there("::1").empty());
}

TEST_CASE("a datagram from any of a node's present addresses is that node's") {
  AddressBook book(kEverywhere);
  CHECK(book.rank_of(at("10.0.0.1")) == std::nullopt);
  CHECK(sent_to(book, 0) == "nowhere");
  CHECK(book.addresses_of(7).empty());
  CHECK(skipped(book.set(0, {at("10.0.0.1"), at("10.0.0.2"), at("2001:db8::1")})) == "");
  CHECK(skipped(book.set(1, {at("10.0.0.1", 9)})) == "");
  for (const char* ip : {"10.0.0.1", "10.0.0.2", "2001:db8::1"}) CHECK(book.rank_of(at(ip)) == uint16_t{0});
  CHECK(book.rank_of(at("10.0.0.1", 9)) == uint16_t{1});
  CHECK(book.rank_of(at("10.0.0.2", 9)) == std::nullopt);
  CHECK(text_of(book.addresses_of(0)) == "10.0.0.1:8381,10.0.0.2:8381,[2001:db8::1]:8381");
}

TEST_CASE(
    "what is said to a node goes to where it was last heard from, and while it is silent to each address in "
    "turn") {
  AddressBook book(kEverywhere);
  book.set(0, {at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3")});
  CHECK(sent_to(book, 0) == "10.0.0.1:8381");
  CHECK(sent_to(book, 0) == "10.0.0.2:8381");
  CHECK(sent_to(book, 0) == "10.0.0.3:8381");
  CHECK(sent_to(book, 0) == "10.0.0.1:8381");
  book.heard(0, at("10.0.0.3"));
  for (int i = 0; i < 4; ++i) CHECK(sent_to(book, 0) == "10.0.0.3:8381");
  book.heard(0, at("10.0.0.9"));  // none of its own
  book.heard(5, at("10.0.0.3"));
  CHECK(sent_to(book, 0) == "10.0.0.3:8381");
  book.silent(0);
  CHECK(sent_to(book, 0) == "10.0.0.3:8381");
  CHECK(sent_to(book, 0) == "10.0.0.1:8381");
}

TEST_CASE(
    "a node that moves is known at its new address only, and is spoken to where it was heard while that is "
    "still its own") {
  AddressBook book(kEverywhere);
  book.set(0, {at("10.0.0.1"), at("10.0.0.2")});
  book.heard(0, at("10.0.0.2"));
  book.set(0, {at("10.0.0.0"), at("10.0.0.2")});
  CHECK(sent_to(book, 0) == "10.0.0.2:8381");
  CHECK(sent_to(book, 0) == "10.0.0.2:8381");
  CHECK(book.rank_of(at("10.0.0.1")) == std::nullopt);
  book.set(0, {at("10.0.0.4"), at("10.0.0.5")});
  CHECK(sent_to(book, 0) == "10.0.0.4:8381");  // in turn: nobody has heard it there
  CHECK(sent_to(book, 0) == "10.0.0.5:8381");
  book.set(0, {});
  CHECK(sent_to(book, 0) == "nowhere");
  CHECK(book.rank_of(at("10.0.0.4")) == std::nullopt);
}

TEST_CASE("an address that two nodes have is the first one's until that one moves") {
  AddressBook book(kEverywhere);
  book.set(1, {at("10.0.0.1")});
  CHECK(skipped(book.set(0, {at("10.0.0.1"), at("10.0.0.2")})) == "10.0.0.1:8381 taken by 1");
  CHECK(book.rank_of(at("10.0.0.1")) == uint16_t{1});
  CHECK(text_of(book.addresses_of(0)) == "10.0.0.2:8381");
  CHECK(skipped(book.set(1, {at("10.0.0.1")})) == "");
  book.set(1, {at("10.0.0.3")});
  CHECK(book.rank_of(at("10.0.0.1")) == uint16_t{0});
  CHECK(text_of(book.addresses_of(0)) == "10.0.0.1:8381,10.0.0.2:8381");
}

TEST_CASE("an address goes to the name that has it now from one that was not found any more") {
  AddressBook book(kEverywhere);
  book.set(0, {at("10.0.0.1")});
  book.set(1, {at("10.0.0.2")});
  book.doubt(0);
  CHECK(text_of(book.addresses_of(0)) == "10.0.0.1:8381");  // name servers fail as well
  CHECK(skipped(book.set(1, {at("10.0.0.1")})) == "");
  CHECK(book.rank_of(at("10.0.0.1")) == uint16_t{1});
  CHECK(book.addresses_of(0).empty());
  CHECK(skipped(book.set(0, {at("10.0.0.1")})) == "10.0.0.1:8381 taken by 1");
  book.doubt(1);
  CHECK(book.rank_of(at("10.0.0.1")) == uint16_t{0});
}

TEST_CASE("a guest is where it last came from, and gives way to names and to whoever comes from there after it") {
  AddressBook book(kEverywhere);
  book.set(0, {at("10.0.0.1")});
  book.come(7, at("10.0.0.7"));
  CHECK(book.rank_of(at("10.0.0.7")) == uint16_t{7});
  CHECK(sent_to(book, 7) == "10.0.0.7:8381");
  book.come(7, at("10.0.0.8"));
  CHECK(book.rank_of(at("10.0.0.7")) == std::nullopt);
  CHECK(sent_to(book, 7) == "10.0.0.8:8381");
  book.come(9, at("10.0.0.8"));  // its port was given again
  CHECK(book.rank_of(at("10.0.0.8")) == uint16_t{9});
  CHECK(sent_to(book, 7) == "nowhere");
  book.come(9, at("10.0.0.1"));
  CHECK(book.rank_of(at("10.0.0.1")) == uint16_t{0});
  book.come(9, at("10.0.0.8"));
  book.set(0, {at("10.0.0.8")});
  CHECK(book.rank_of(at("10.0.0.8")) == uint16_t{0});
}

TEST_CASE("what cannot be reached, or is no host's, is not used") {
  AddressBook four({true, false, true}), six({false, true, true}), both(kEverywhere),
      loopback({true, true, false});
  const std::vector<AddressBook::Endpoint> mixed{at("10.0.0.1"), at("2001:db8::1"), at("::ffff:10.0.0.2")};
  CHECK(skipped(four.set(0, mixed)) == "[2001:db8::1]:8381 family");
  CHECK(text_of(four.addresses_of(0)) ==
        "10.0.0.1:8381,10.0.0.2:8381");  // the last is IPv4 however it is written
  CHECK(skipped(six.set(0, mixed)) == "10.0.0.1:8381 family, 10.0.0.2:8381 family");
  CHECK(skipped(both.set(0, mixed)) == "");
  CHECK(skipped(loopback.set(0, {at("127.3.2.1"), at("::1"), at("10.0.0.1"), at("2001:db8::1")})) ==
        "10.0.0.1:8381 not loopback, [2001:db8::1]:8381 not loopback");
  CHECK(skipped(both.set(0, {at("0.0.0.0"), at("::"), at("224.0.0.1"), at("ff02::1"), at("10.0.0.1", 0)})) ==
        "0.0.0.0:8381 unusable, [::]:8381 unusable, 224.0.0.1:8381 unusable, [ff02::1]:8381 unusable, "
        "10.0.0.1:0 unusable");
}

TEST_CASE("of many addresses the first are used, each once") {
  AddressBook book(kEverywhere);
  std::vector<AddressBook::Endpoint> many;
  for (int i = 0; i < 100; ++i) many.push_back(at("10.0.0." + std::to_string(i / 2)));
  book.set(0, many);
  CHECK(book.addresses_of(0).size() == kAddressesMax);
  CHECK(book.rank_of(at("10.0.0.15")) == uint16_t{0});
  CHECK(book.rank_of(at("10.0.0.16")) == std::nullopt);
}

TEST_CASE("IPv4 within IPv6 is IPv4, and comes back") {
  CHECK(plain(at("::ffff:10.0.0.1")) == at("10.0.0.1"));
  CHECK(plain(at("10.0.0.1")) == at("10.0.0.1"));
  CHECK(plain(at("::1")) == at("::1"));
  CHECK(mapped(at("10.0.0.1")) == at("::ffff:10.0.0.1"));
  CHECK(mapped(at("::1")) == at("::1"));
}

TEST_CASE("whatever is found, each address is one node's that has it, and each node's that nobody else has") {
  Random random(test_seed(5));
  AddressBook book(kEverywhere);
  constexpr uint16_t kRanks = 4, kAddresses = 6;
  std::vector<std::vector<AddressBook::Endpoint>> has(kRanks);
  for (int step = 0; step < 5'000; ++step) {
    const auto rank = static_cast<uint16_t>(random.below(kRanks));
    if (random.chance(0.2)) {
      book.doubt(rank);
    } else {
      has[rank].clear();
      for (uint64_t n = random.below(4); n > 0; --n)
        has[rank].push_back(at("10.0.0." + std::to_string(random.below(kAddresses))));
      book.set(rank, has[rank]);
    }
    for (uint16_t i = 0; i < kAddresses; ++i) {
      const auto address = at("10.0.0." + std::to_string(i));
      const auto owner = book.rank_of(address);
      size_t wanted_by = 0, held_by = 0;
      for (uint16_t r = 0; r < kRanks; ++r) {
        wanted_by += std::ranges::find(has[r], address) != has[r].end() ? 1 : 0;
        const auto& held = book.addresses_of(r);
        const bool holds = std::ranges::find(held, address) != held.end();
        held_by += holds ? 1 : 0;
        REQUIRE(holds == (owner == r));
      }
      REQUIRE(held_by == (wanted_by > 0 ? 1 : 0));
      if (owner) REQUIRE(std::ranges::find(has[*owner], address) != has[*owner].end());
    }
    const auto to = book.next(rank);
    REQUIRE(to.has_value() == !book.addresses_of(rank).empty());
    if (to && random.chance(0.3)) book.heard(rank, *to);
    if (random.chance(0.1)) book.silent(rank);
  }
}
