// Who is where: the present addresses of each node, and whose address a datagram came from.
//
// Thread rule: the cluster thread's. Pure: it knows no socket, no clock and no resolver.
//
// An address is one node's at most. Where two names have the same one, a name that was found lately goes
// before one whose last lookup failed (its address may have been given to somebody else), and among equals
// the one that had it first keeps it. The other is given it as soon as it is free.
#pragma once

#include <asio/ip/udp.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tally {

inline constexpr size_t kAddressesMax = 16;  // of one node; the first ones are used

class AddressBook {
 public:
  using Endpoint = asio::ip::udp::endpoint;

  struct Reach {  // where the node's socket can send to, and may
    bool v4 = true;
    bool v6 = true;
    bool beyond_loopback = true;
  };
  enum class Why : uint8_t { family, not_loopback, unusable, taken };
  struct Skipped {
    Endpoint address;
    Why why = Why::family;
    uint16_t by = 0;  // taken: whose it is
    friend bool operator==(const Skipped&, const Skipped&) = default;
  };

  explicit AddressBook(Reach reach) : reach_(reach) {}

  // These are the addresses of `rank` now, in the order in which they are to be tried; those of before are
  // forgotten. A rank that was not known is from now on. Returns what of them is not used, and why.
  std::vector<Skipped> set(uint16_t rank, const std::vector<Endpoint>& addresses);
  // The last lookup failed: its addresses stay, until another name is found to have them.
  void doubt(uint16_t rank);

  // That rank, which has no entry, is now where a datagram came from. It has the address from whoever came
  // from there before, and gives it to any name that is found to have it.
  void come(uint16_t guest, const Endpoint& from);

  std::optional<uint16_t> rank_of(const Endpoint& address) const;
  void ranks_at(const asio::ip::address& host, std::vector<uint16_t>& out) const;  // whatever the port; plain
  const std::vector<Endpoint>& addresses_of(uint16_t rank) const;  // in use; empty: nobody knows where it is

  // Where the next datagram to `rank` goes: to where it was last heard from, and while it is silent to each
  // address in turn. nullopt: nobody knows where it is.
  std::optional<Endpoint> next(uint16_t rank);
  std::optional<Endpoint> at(uint16_t rank) const;  // the same, and the turn stays
  void heard(uint16_t rank, const Endpoint& from);
  void silent(uint16_t rank);

 private:
  struct Entry {
    std::vector<Endpoint> wanted;  // of its name
    std::vector<Endpoint> held;    // those of them that are its own, in the same order
    bool doubtful = false;
    bool guest = false;
    bool turning = true;
    size_t turn = 0;  // of `held`, the next or (not turning) the one that it was heard from
  };

  std::optional<Why> unfit(const Endpoint& address) const;
  Entry& entry(uint16_t rank);
  void settle(const Endpoint& address);
  void hold(uint16_t rank);

  const Reach reach_;
  std::vector<Entry> entries_;
  std::map<Endpoint, uint16_t> ranks_;
};

// An IPv4 address within IPv6 is the IPv4 address: kernels and records have it in either form.
AddressBook::Endpoint plain(const AddressBook::Endpoint& endpoint);
// For a socket of the family IPv6.
AddressBook::Endpoint mapped(const AddressBook::Endpoint& endpoint);

std::string text_of(const AddressBook::Endpoint& endpoint);  // "10.0.0.1:8381", "[::1]:8381"
std::string text_of(const std::vector<AddressBook::Endpoint>& endpoints);

}  // namespace tally
