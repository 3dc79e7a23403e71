// Who is there: what this node knows of every other one from the datagrams that arrive. Ranks are the roster's; behind them stand
// the guests, nodes that are in no list: they come and go, and their ranks are given again.
//
// Thread rule: the cluster thread's. Liveness only chooses whom to ask; the bound never depends on it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "cluster/loss.h"
#include "cluster/replay_window.h"
#include "cluster/roster.h"
#include "cluster/wire.h"

namespace tally {

// When a peer counts as up: heard (from itself or by gossip) within max(1 s, 5 sync intervals).
Duration up_within(Duration sync_interval);

struct Peer {
  NodeId id = 0;
  // The newest life heard of it; `incarnation` 0: never heard.
  uint64_t incarnation = 0;
  uint64_t remembered = 0;  // the highest incarnation ever heard, directly or by gossip
  uint64_t before = 0;      // the highest but that one; 0: none known
  uint64_t sequence_in = 0, sequence_out = 0;
  ReplayWindow taken;       // of this life: the numbers that were heard
  MonoTime life_heard{};    // the first datagram of this life
  MonoTime heard{};         // itself, directly
  MonoTime heard_of{};      // directly or by gossip
  MonoTime asked{};           // the first question since it was heard last; epoch: none
  uint32_t questions = 0;     // since then
  MonoTime unheard{};         // the first question since a word of its last echoed one of ours; epoch: none
  uint32_t unheard_questions = 0;
  MonoTime probed{};          // the first probe since it was heard last; epoch: none
  MonoTime probed_last{};
  uint32_t probes = 0;
  MonoTime asked_by_other{};  // the same of another node, by gossip
  uint64_t echo_mono_ns = 0;  // its newest sent_mono_ns, to be echoed
  MonoTime echo_at{};
  Duration round_trip{0};   // smoothed (Jacobson 1988: 7/8 old + 1/8 new), near the median of the latest; 0: not measured
  std::array<Duration, 5> round_trips{};  // the latest samples, in no order; 0: none yet
  uint8_t next_round_trip = 0;            // where the next one goes
  MonoTime measured{};                    // the newest one; epoch: never
  Duration clock_skew{0};   // its wall clock less ours, at half the round trip
  uint64_t rules = 0;       // fingerprint of its rules, 0: not told
  bool answered_hello = false;
  bool roster_mismatch = false;
  uint32_t roster_version = 0;  // of the list that its newest datagram named
  LossMeter loss;
  uint64_t bytes_in = 0, bytes_out = 0;

  // What this node knows of other lives of it: the highest, 0 where it knows of none.
  uint64_t other_life() const { return remembered != incarnation ? remembered : before; }
};

// Where an entry comes from: a node, one life of it, and which of its datagrams to this node (0 to oneself).
struct Origin {
  uint16_t rank = 0;
  uint64_t incarnation = 0;
  uint64_t sequence = 0;
  MonoTime sent_after{};  // this node's clock when it sent what the sender had heard last of it; epoch: nobody knows
  // Whether what `other` carried was said after this. Of two nodes nobody knows: then what comes last counts.
  bool before(const Origin& other) const {
    return rank != other.rank || std::tie(incarnation, sequence) <= std::tie(other.incarnation, other.sequence);
  }
};

class Peers {
 public:
  // `guest`: this node is in no list, and has that name; its rank is the first behind the roster's.
  Peers(const Roster& roster, uint16_t self, std::optional<NodeId> guest, Duration sync_interval);
  void use(Duration sync_interval);  // this node's

  enum class Heard : uint8_t { fine, replayed, older_life, clone };
  // Takes in a header from `rank`. older_life: a newer incarnation of that name was heard before; clone: and yet this one
  // echoes what this node sent after that, so both are alive. No other clock is asked: what a dead life still had under
  // way, or somebody says again, echoes nothing so new, whatever its wall clock showed. (Only where this host has booted
  // since, and its monotonic clock begun anew, may an echo of before pass for one.)
  Heard hear(uint16_t rank, const Header& header, Now now);
  // Whether this very datagram was taken in by hear() before, or is so old that nobody can tell.
  bool replayed(uint16_t rank, const Header& header) const {
    return header.incarnation == peers_[rank].incarnation && peers_[rank].taken.has(header.sequence);
  }
  NodeId id(uint16_t rank) const { return peers_[rank].id; }
  bool is_guest(uint16_t rank) const { return rank >= listed_; }
  std::optional<uint16_t> guest(NodeId id) const;
  // A rank for a guest that has none, of `at_most` in all; that of one that was not heard for a minute is given again. nullopt: all
  // are taken.
  std::optional<uint16_t> welcome(NodeId id, size_t at_most, MonoTime now);
  std::vector<uint16_t> guests_up(MonoTime now) const;
  // Gossip: somebody heard `rank` at `at`, and has waited for its answer since `asked` (epoch: has not).
  void hear_of(uint16_t rank, uint64_t incarnation, MonoTime at, MonoTime asked = {});

  // When, at the earliest, a datagram was sent, by this node's clock: see Origin.
  static MonoTime sent_after(const Header& header, MonoTime now);
  // Fills in what a header to `rank` carries of times and sequence.
  void stamp(uint16_t rank, Header& header, Now now);

  bool up(uint16_t rank, MonoTime now) const;
  // A question that wants an answer goes to `rank`.
  void asked(uint16_t rank, MonoTime now);
  // How long an answer may take before somebody else is asked.
  Duration patience(uint16_t rank) const;
  // It has answered none of several questions for longer than that, here, or at another node and nobody heard it since; or it is
  // heard, but for some times as long has not heard this node:
  // whoever has a choice passes it over. Never only because nobody spoke of it: in a large fleet that says nothing.
  bool silent(uint16_t rank, MonoTime now) const;
  bool asked_in_vain(uint16_t rank) const;  // several times; how long ago is another question
  // Before anything is taken from a node it is asked from here, several times; any sign of life ends it.
  bool heard_just_now(uint16_t rank, MonoTime now) const;
  bool probe_due(uint16_t rank, MonoTime now);  // the caller sends one if so
  bool probing(uint16_t rank) const { return peers_[rank].probes > 1; }  // the first may not have been answered yet
  bool probes_failed(uint16_t rank, MonoTime now) const;
  // Round trip to `rank`: 0 to oneself, the measured one, else `kRoundTripAssumed`.
  Duration round_trip(uint16_t rank) const;
  // The same, and `kRoundTripAssumed` where it was measured too long ago to refuse anything for it: whoever asks measures it anew.
  Duration round_trip_lately(uint16_t rank, MonoTime now) const;
  // The nearest of the others of a group: the round trip that a mark costs. 0 for a group of one.
  Duration group_round_trip(const Group& group) const;
  // Whether a majority of the group, this node included, was heard, by anybody, within `within`.
  bool majority_heard(const Group& group, MonoTime now, Duration within) const;

  Peer& operator[](uint16_t rank) { return peers_[rank]; }
  const Peer& operator[](uint16_t rank) const { return peers_[rank]; }
  size_t count() const { return peers_.size(); }
  uint16_t self() const { return self_; }

  static constexpr Duration kRoundTripAssumed = std::chrono::milliseconds(1);

 private:
  std::vector<Peer> peers_;
  std::unordered_map<NodeId, uint16_t> guests_;  // the others
  const size_t listed_;
  const uint16_t self_;
  Duration up_within_;
};

}  // namespace tally
