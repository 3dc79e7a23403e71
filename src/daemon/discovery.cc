#include "daemon/discovery.h"

#include <algorithm>
#include <asio/post.hpp>
#include <string_view>
#include <utility>

#include "config/peer_entry.h"

namespace tally {
namespace {

using Endpoint = AddressBook::Endpoint;
using Why = AddressBook::Why;

std::string_view reason_text(Why why) {
  switch (why) {
    case Why::family:
      return "an address of a peer is not used: cluster.bind is of another family; \"[::]:PORT\" reaches "
             "both";
    case Why::not_loopback:
      return "an address of a peer is not used: it is not on loopback, and there is no cluster.secret_file";
    case Why::unusable:
      return "an address of a peer is not used: it is no address of a host";
    case Why::taken:
      break;
  }
  return "an address of a peer is not used: it is another peer's; each entry must mean a node of its own";
}

auto sorted(std::vector<AddressBook::Skipped> skipped) {
  std::ranges::sort(skipped, {}, [](const AddressBook::Skipped& one) { return one.address; });
  return skipped;
}

}  // namespace

Result<std::unique_ptr<Discovery>> Discovery::begin(Parts parts, const Roster& roster, std::optional<uint16_t> self) {
  std::unique_ptr<Discovery> discovery(new Discovery(parts));
  std::vector<Resolver::Wanted> names;
  for (uint16_t rank = 0; rank < roster.count(); ++rank)
    discovery->peers_.push_back({.entry = roster.entry(rank), .skipped = {}});
  for (uint16_t rank = 0; rank < roster.count(); ++rank) {
    if (roster.entry(rank) == kBooksEntry) continue;
    const auto entry = parse_peer(roster.entry(rank));
    if (!entry) return Failure{"cluster.peers: " + entry.error()};
    discovery->peers_[rank].looked_up = entry.value().looked_up();
    if (entry.value().looked_up())
      names.push_back({rank, entry.value()});
    else if (const auto placed = discovery->place(rank, entry.value()); !placed)
      return Failure{placed.error()};
  }
  if (names.empty()) return discovery;
  discovery->resolver_ = std::make_unique<Resolver>(
      std::move(names), [found = discovery.get()](uint16_t rank, LookupResult result) {
        asio::post(found->parts_.io, [found, rank, result = std::move(result)]() mutable {
          found->take(rank, std::move(result));
        });
      });
  if (self) discovery->resolver_->silent(*self, false);  // nobody waits for it to speak
  return discovery;
}

Result<bool> Discovery::place(uint16_t rank, const PeerEntry& entry) {
  const std::string& text = peers_[rank].entry;
  asio::error_code error;
  const auto address = asio::ip::make_address(entry.host, error);
  if (error) return Failure{"cluster.peers: " + text + ": " + error.message()};
  const auto skipped = parts_.book.set(rank, {Endpoint(address, entry.port)});
  for (const AddressBook::Skipped& one : skipped) {
    if (one.why == Why::not_loopback)
      return Failure{text + " is not a loopback address, and there is no cluster.secret_file"};
    if (one.why == Why::taken) return Failure{"cluster.peers: two entries mean the same address as " + text};
  }
  say_skipped(peers_[rank], skipped);
  return true;
}

void Discovery::heard(uint16_t rank, bool lately) {
  if (!lately) parts_.book.silent(rank);
  if (resolver_) resolver_->silent(rank, !lately);
}

void Discovery::take(uint16_t rank, LookupResult result) {
  Peer& peer = peers_[rank];
  if (result.addresses.empty()) {
    ++lookups_.failed;
    parts_.book.doubt(rank);
    return say_failed(peer, result.error);
  }
  ++lookups_.found;
  const std::vector<Endpoint> before = parts_.book.addresses_of(rank);
  std::vector<Endpoint> now = std::move(result.addresses);
  if (!result.complete)
    now.insert(now.end(), before.begin(), before.end());  // nobody said that they are not there any more
  say_skipped(peer, parts_.book.set(rank, now));
  say_found(peer, before, parts_.book.addresses_of(rank));
}

void Discovery::say_found(Peer& peer, std::vector<Endpoint> before, std::vector<Endpoint> now) {
  const bool again = std::exchange(peer.failing, false);
  std::ranges::sort(before);
  std::ranges::sort(now);
  if (now.empty()) return;  // why was said for each
  if (!std::exchange(peer.was_found, true))
    parts_.log.info("peer is found", {{"peer", peer.entry}, {"at", text_of(now)}});
  else if (before != now)
    parts_.log.info("peer has moved",
                    {{"peer", peer.entry}, {"from", text_of(before)}, {"to", text_of(now)}});
  else if (again)
    parts_.log.info("peer is found again", {{"peer", peer.entry}, {"at", text_of(now)}});
}

void Discovery::say_skipped(Peer& peer, std::vector<AddressBook::Skipped> skipped) {
  skipped = sorted(std::move(skipped));
  if (skipped == peer.skipped) return;
  for (const AddressBook::Skipped& one : skipped) {
    if (std::ranges::find(peer.skipped, one) != peer.skipped.end()) continue;
    const std::string address = text_of(one.address);
    if (one.why == Why::taken)
      parts_.log.warning(reason_text(one.why),
                         {{"peer", peer.entry}, {"address", address}, {"of", peers_[one.by].entry}});
    else
      parts_.log.warning(reason_text(one.why), {{"peer", peer.entry}, {"address", address}});
  }
  peer.skipped = std::move(skipped);
}

void Discovery::say_failed(Peer& peer, const std::string& error) {
  if (std::exchange(peer.failing, true)) return;
  const auto again_s = kLookAgainSoon.count();
  if (peer.was_found)
    parts_.log.warning("peer's name is not found any more: its last addresses go on being used",
                       {{"peer", peer.entry}, {"error", error}, {"again_s", again_s}});
  else
    parts_.log.warning(
        "peer's name is not found: see that it is written as the name server knows it, and that "
        "/etc/resolv.conf names one that answers",
        {{"peer", peer.entry}, {"error", error}, {"again_s", again_s}});
}

}  // namespace tally
