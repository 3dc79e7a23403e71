#include "daemon/address_book.h"

#include <algorithm>
#include <utility>

namespace tally {
namespace {

using Endpoint = AddressBook::Endpoint;

bool contains(const std::vector<Endpoint>& list, const Endpoint& address) {
  return std::ranges::find(list, address) != list.end();
}

}  // namespace

std::optional<AddressBook::Why> AddressBook::unfit(const Endpoint& address) const {
  const auto& ip = address.address();
  if (ip.is_unspecified() || ip.is_multicast() || address.port() == 0) return Why::unusable;
  if (ip.is_v4() ? !reach_.v4 : !reach_.v6) return Why::family;
  if (!reach_.beyond_loopback && !ip.is_loopback()) return Why::not_loopback;
  return std::nullopt;
}

AddressBook::Entry& AddressBook::entry(uint16_t rank) {
  if (rank >= entries_.size()) entries_.resize(rank + size_t{1});
  return entries_[rank];
}

std::vector<AddressBook::Skipped> AddressBook::set(uint16_t rank, const std::vector<Endpoint>& addresses) {
  std::vector<Skipped> skipped;
  std::vector<Endpoint> wanted;
  for (const Endpoint& written : addresses) {
    const Endpoint address = plain(written);
    if (const auto why = unfit(address))
      skipped.push_back({address, *why});
    else if (!contains(wanted, address) && wanted.size() < kAddressesMax)
      wanted.push_back(address);
  }
  Entry& mine = entry(rank);
  if (std::exchange(mine.doubtful, false) || mine.wanted != wanted) {
    const std::vector<Endpoint> before = std::exchange(mine.wanted, wanted);
    for (const Endpoint& address : before) settle(address);
    for (const Endpoint& address : wanted) settle(address);
    hold(rank);
  }
  for (const Endpoint& address : wanted)
    if (const uint16_t owner = *rank_of(address); owner != rank)
      skipped.push_back({address, Why::taken, owner});
  return skipped;
}

void AddressBook::doubt(uint16_t rank) {
  Entry& mine = entry(rank);
  mine.doubtful = true;
  for (const Endpoint& address : std::vector<Endpoint>(mine.wanted)) settle(address);
}

void AddressBook::come(uint16_t guest, const Endpoint& from) {
  const std::optional<uint16_t> before = rank_of(from);
  if (before == guest) return;
  if (before && entries_[*before].guest) set(*before, {});
  set(guest, {from});
  entries_[guest].guest = true;
  doubt(guest);
}

// Whose the address is, of all that want it.
void AddressBook::settle(const Endpoint& address) {
  const std::optional<uint16_t> holder = rank_of(address);
  std::optional<uint16_t> best;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!contains(entries_[i].wanted, address)) continue;
    const auto rank = static_cast<uint16_t>(i);
    const bool firmer = best && entries_[*best].doubtful && !entries_[i].doubtful;
    const bool as_firm = best && entries_[*best].doubtful == entries_[i].doubtful;
    if (!best || firmer || (as_firm && holder == rank)) best = rank;
  }
  if (best == holder) return;
  if (best)
    ranks_.insert_or_assign(address, *best);
  else
    ranks_.erase(address);
  if (holder) hold(*holder);
  if (best) hold(*best);
}

// Works out what `rank` holds, and goes on sending to the same address where that is still among it.
void AddressBook::hold(uint16_t rank) {
  Entry& mine = entries_[rank];
  std::vector<Endpoint> held;
  for (const Endpoint& address : mine.wanted)
    if (rank_of(address) == rank) held.push_back(address);
  if (held == mine.held) return;
  const auto at = mine.held.empty() ? held.end() : std::ranges::find(held, mine.held[mine.turn]);
  mine.turning = mine.turning || at == held.end();
  mine.turn = at == held.end() ? 0 : static_cast<size_t>(at - held.begin());
  mine.held = std::move(held);
}

std::optional<uint16_t> AddressBook::rank_of(const Endpoint& address) const {
  const auto found = ranks_.find(address);
  return found == ranks_.end() ? std::nullopt : std::optional(found->second);
}

void AddressBook::ranks_at(const asio::ip::address& host, std::vector<uint16_t>& out) const {
  out.clear();
  for (auto at = ranks_.lower_bound({host, 0}); at != ranks_.end() && at->first.address() == host; ++at)
    out.push_back(at->second);
}

const std::vector<Endpoint>& AddressBook::addresses_of(uint16_t rank) const {
  static const std::vector<Endpoint> kNone;
  return rank < entries_.size() ? entries_[rank].held : kNone;
}

std::optional<Endpoint> AddressBook::at(uint16_t rank) const {
  if (rank >= entries_.size() || entries_[rank].held.empty()) return std::nullopt;
  return entries_[rank].held[entries_[rank].turn];
}

std::optional<Endpoint> AddressBook::next(uint16_t rank) {
  const auto at = this->at(rank);
  if (at && entries_[rank].turning) entries_[rank].turn = (entries_[rank].turn + 1) % entries_[rank].held.size();
  return at;
}

void AddressBook::heard(uint16_t rank, const Endpoint& from) {
  if (rank >= entries_.size()) return;
  Entry& mine = entries_[rank];
  const auto at = std::ranges::find(mine.held, from);
  if (at == mine.held.end()) return;
  mine.turn = static_cast<size_t>(at - mine.held.begin());
  mine.turning = false;
}

void AddressBook::silent(uint16_t rank) { entry(rank).turning = true; }

Endpoint plain(const Endpoint& endpoint) {
  const auto& ip = endpoint.address();
  if (!ip.is_v6() || !ip.to_v6().is_v4_mapped()) return endpoint;
  return {asio::ip::make_address_v4(asio::ip::v4_mapped, ip.to_v6()), endpoint.port()};
}

Endpoint mapped(const Endpoint& endpoint) {
  const auto& ip = endpoint.address();
  if (ip.is_v6()) return endpoint;
  return {asio::ip::make_address_v6(asio::ip::v4_mapped, ip.to_v4()), endpoint.port()};
}

std::string text_of(const Endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(endpoint.port());
}

std::string text_of(const std::vector<Endpoint>& endpoints) {
  std::string text;
  for (const Endpoint& endpoint : endpoints) text += (text.empty() ? "" : ",") + text_of(endpoint);
  return text;
}

}  // namespace tally
