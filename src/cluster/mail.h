// What a node has to say, until it goes out: entries by receiver, packed into datagrams; entries to itself stay inside.
//
// Thread rule: the cluster thread's.
#pragma once

#include <cstdint>
#include <deque>
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
  void send(uint16_t to, Entry entry);
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
  Header header_to(uint16_t rank) const;
  void make_room(uint16_t rank);

  const Roster& roster_;
  const Peers& peers_;
  const uint16_t self_;
  const uint64_t incarnation_;
  const IdKey key_;
  const size_t around_;
  std::vector<Which> spoken_;               // by rank: the list that its headers name
  std::vector<std::vector<Entry>> queued_;  // by rank
  std::vector<uint16_t> busy_;              // ranks with something queued
  std::deque<Entry> local_;
  std::vector<Outgoing> out_;
  uint64_t datagrams_ = 0;
  uint64_t entries_[kEntryKinds]{};
};

}  // namespace tally
