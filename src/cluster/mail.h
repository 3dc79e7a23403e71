// What a node has to say, until it goes out: entries by receiver, packed into datagrams; entries to itself stay inside.
// Those to one receiver do not go out in the order in which they came: no entry hangs on another.
//
// Thread rule: the cluster thread's.
#pragma once

#include <concepts>
#include <cstdint>
#include <deque>
#include <tuple>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "cluster/peers.h"
#include "cluster/roster.h"
#include "cluster/wire.h"

namespace tally {

struct Outgoing {
  uint16_t to = 0;       // rank
  bool to_source = false;  // instead: to where the datagram just received came from, whoever that is
  Bytes bytes;
};

class Mail {
 public:
  // `around`: bytes that are laid around each datagram before it goes out.
  Mail(const Roster& roster, const Peers& peers, uint64_t incarnation, const IdKey& key, size_t around = 0);

  // Queues an entry. To oneself: see pop_local.
  template <typename T>
    requires(!std::same_as<T, Entry>)
  void send(uint16_t to, const T& entry) {
    if (to == self_) {
      local_.emplace_back(entry);
      return;
    }
    make_room(to);
    Queue& queue = queued_[to];
    if (queue.empty()) busy_.push_back(to);
    if constexpr (Listed<T>)
      std::get<std::vector<T>>(queue.listed).push_back(entry);
    else
      queue.others.emplace_back(entry);
  }
  // From now on that node is spoken to as one that goes by that list.
  void speak(uint16_t to, Which which);
  // A datagram of its own to wherever the one just received came from. It is numbered with those to `rank`: a number that is used
  // twice would make one of the two a replay.
  void answer_source(Peers& peers, uint16_t rank, const Entry& entry, Now now);
  // A datagram with that entry alone, for the caller to send.
  Bytes alone(Peers& peers, uint16_t rank, const Entry& entry, Now now);
  bool pop_local(Entry& out);
  // Packs all that is queued for others.
  void flush(Peers& peers, Now now);
  std::vector<Outgoing> take() { return std::exchange(out_, {}); }

  uint64_t datagrams() const { return datagrams_; }
  const uint64_t* entries() const { return entries_; }  // by kind, kEntryKinds of them

 private:
  struct Queue {
    // By kind, as each comes in lists of its own (wire.h).
    std::tuple<std::vector<Report>, std::vector<Grant>, std::vector<Mark>, std::vector<Accepted>> listed;
    std::vector<Entry> others;
    bool empty() const {
      return others.empty() && std::apply([](const auto&... of) { return (of.empty() && ...); }, listed);
    }
  };
  class Packer;
  Header header_to(uint16_t rank) const;
  void make_room(uint16_t rank);

  const Roster& roster_;
  const Peers& peers_;
  const uint16_t self_;
  const uint64_t incarnation_;
  const IdKey key_;
  const size_t around_;
  std::vector<Which> spoken_;               // by rank: the list that its headers name
  std::vector<Queue> queued_;               // by rank
  std::vector<uint16_t> busy_;              // ranks with something queued
  std::deque<Entry> local_;
  std::vector<Outgoing> out_;
  uint64_t datagrams_ = 0;
  uint64_t entries_[kEntryKinds]{};
};

}  // namespace tally
