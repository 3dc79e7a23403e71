// How a later life of a node gets its votes back: it reads anew, from all others of a group, what they promised and accepted.
//
// Thread rule: the cluster thread's.
//
// Why that is enough: a majority of the group has a member other than this node, and an owner's or claimant's own register is the
// first to hold its mark or promise. So whatever a majority with this node's last life in it agreed on, another member that kept
// its memory knows; and answers to a question of this life are later than anything that the last one said. Why nothing less is:
// with one member's answer only, what this node's last life and the other one agreed on would be lost.
//
// Each other node is asked for all its entries of keys whose group this node is in, some hundred at a time, from the first that is
// missing; what did not come by then is absent. A group counts once all its others are read. A group of one has nobody to ask.
//
// What a full register keeps in its sketch has no keys, so it cannot be listed. The teller then vouches for no window that began
// before the last of which it has a sketch, and with buckets in one for none of them: there the reader's vote does not come back.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/time.h"
#include "cluster/mail.h"
#include "cluster/memory.h"
#include "cluster/register_key.h"
#include "cluster/roster.h"
#include "cluster/standing.h"
#include "cluster/succession.h"
#include "cluster/wire.h"

namespace tally {

class Registers;

class Recovery {
 public:
  Recovery(const Roster& roster, uint16_t self, uint64_t incarnation, const Standing& standing, const Succession& succession);

  // --- of this node's own registers ---
  // Those of its last life, which accepted nothing more afterwards. Where there is no room for one of them it is as if there were none.
  void remember(const Memory& memory, Registers& registers, Now now);
  // A peer has heard a life of this node that was later than that one.
  void heard_of_life(uint64_t incarnation);
  Memory memory(const Registers& registers, Now now) const;  // for the next life
  // Asks those that have not told all yet. Call at every sync interval; does nothing for a first life.
  void tick(Mail& mail, Now now);
  // `teller`: the incarnation of the life that tells.
  void on_registered(const Registered& entry, uint16_t from, uint64_t teller, Registers& registers, Now now);
  void on_end(const RegistersEnd& end, uint16_t from, uint64_t teller, Mail& mail, Now now);
  // Whether all others of the key's group were read, and had kept all of that window themselves. While a list of nodes replaces
  // another: of both groups, for it may be that the last life knew already that the other one rules there, and voted in it.
  bool has_read(const WireId& key, int64_t window, Duration length) const;
  bool has_read_bucket(const WireId& key, Duration keep) const;
  bool has_heard_all(const WireId& key, int64_t window, Duration length) const;  // all others of the group were read, whatever they remember
  uint64_t incarnation() const { return incarnation_; }
  size_t place_in_group(const WireId& key, int64_t window, Duration length) const { return group(key, window, length).place_of(self_); }
  bool complete() const;  // everybody was read who is not gone for good; also where nothing had to be

  // --- of others' ---
  void on_read(const ReadRegisters& read, uint16_t from, const Registers& registers, Mail& mail, Now now);

 private:
  struct Source {  // what one other node tells
    uint64_t teller = 0, snapshot = 0;  // of which of its lives and lists
    size_t asked_from = 0;              // of the newest question
    Duration patience{0};               // until the next
    std::vector<bool> seen;
    size_t first_missing = 0;
    bool counted = false;  // `seen` has as many places as there are entries
    bool complete = false;
    WallTime votes_from = WallTime::max();
    WallTime clock{};  // it forgets what is over by it
    Duration remembers{0};
    MonoTime asked{};
  };
  struct Snapshot {  // for one asker
    uint64_t life = 0, number = 0;
    std::vector<RegisterKey> keys;
    WallTime tells_from = WallTime::min();  // of windows that began before, and of buckets if not so, there is more than these
    bool tells_buckets = true;
    MonoTime used{};
  };
  void ask(uint16_t rank, Mail& mail, Now now);
  bool others_of_both(const WireId& key, const std::function<bool(const Source&)>& pass) const;
  // The group that keeps (key, window); window 0: a bucket.
  Group group(const WireId& key, int64_t window, Duration length) const {
    return succession_.group(roster_.groups(key), window, length);
  }
  bool read_all() const;
  RegistersEnd worth_of(size_t count, WallTime tells_from, bool tells_buckets, Now now) const;
  Source* source_of(uint64_t life, uint64_t snapshot, uint16_t from, uint64_t teller);
  WallTime forgotten_by() const;
  WallTime votes_from() const;
  Duration remembers(Now now) const;

  const Roster& roster_;
  const uint16_t self_;
  const uint64_t incarnation_;
  const Standing& standing_;
  const Succession& succession_;
  Source last_life_;                 // of which `teller` is the incarnation; complete: all that it knew is known
  std::vector<Source> sources_;      // by rank
  std::vector<Snapshot> snapshots_;  // by rank
};

}  // namespace tally
