// What daemons say to each other: structs <-> bytes.
//
// Thread rule: pure functions. Decoding is total: any bytes give a datagram or the reason why not.
//
// A datagram is at most kDatagramMax bytes: a header, entries (type, length, fields; varints), and an 8-byte keyed hash of
// all before it. Reports, grants, marks and acceptances come in lists: what all of one say is said once. Entries of an unknown
// type and fields behind the known ones are skipped, so a newer node can say more.
// Every number in an entry is cumulative or absolute, so that loss, duplication and reordering change nothing.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/hash.h"
#include "base/time.h"
#include "core/order_table.h"
#include "core/rules.h"

namespace tally {

inline constexpr size_t kDatagramMax = 1400;
inline constexpr uint8_t kWireVersion = 1;

inline constexpr size_t kGroupMax = 3;  // members of a key's group
using Lives = std::array<uint64_t, kGroupMax>;  // an incarnation of each member, by place in the group; 0 behind the last

using NodeId = uint64_t;  // keyed_hash of the node's entry ("host:port") as written in the roster
using Bytes = std::vector<uint8_t>;

// Orders the owners of a (key, window). Counter 0 is the natural owner's, which needs no claim.
struct Ballot {
  uint32_t counter = 0;
  NodeId node = 0;
  friend auto operator<=>(const Ballot&, const Ballot&) = default;
};

// The terms of a limit as a node knows them.
struct Terms {
  Algorithm algorithm = Algorithm::sliding_window;
  uint32_t limit = 0;
  Overcount max_overcount;
  Duration window{0};    // windows
  Duration emission{0};  // buckets
  friend bool operator==(const Terms&, const Terms&) = default;
};

// In all entries amounts are costs for windows, nanoseconds of emission for buckets; `window` is the window's number, 0 for a
// bucket.

// lessee -> owner
struct Report {
  WireId key;
  uint32_t rule = 0;  // low 32 bits of the rule's seed
  Terms terms;
  int64_t window = 0;
  Ballot ballot;            // the highest that the lessee has heard for (key, window)
  bool has_ballot = false;  // false: heard none yet, so the floor has not been charged
  uint32_t line = 0;        // the line's number within (sender, incarnation)
  uint32_t floor = 0;
  uint64_t used = 0;
  uint64_t returned = 0;  // under `ballot`
  uint64_t refunded = 0;
  uint64_t given = 0;  // refunds of what others admitted, under `ballot`
  uint64_t ceiling = 0;
  uint64_t granted_heard = 0;  // under `ballot`
  uint64_t wanted = 0;         // an absolute ceiling
  uint64_t waiting_min = 0;    // smallest cost that waits; 0: none waits
  uint64_t waiting = 0;        // all that waits
  uint64_t demand_milli = 0;   // thousandths of cost per second; below 2^63
  uint64_t reset = 0;          // the highest reset number heard of the key
  uint64_t stamp = 0;          // the lessee's own monotonic clock at sending, ns; echoed
  uint64_t lease = 0;          // buckets: the number of the running lease, 0: none
  bool final = false;          // the lessee's clock has left the window: `used` will not grow
  bool second_choice = false;  // the natural owner did not answer
  bool insists = false;        // whoever was named as the owner does not answer the lessee either
  Ballot highest;              // that refusals told of
  friend bool operator==(const Report&, const Report&) = default;
};

// owner -> lessee
struct Grant {
  WireId key;
  int64_t window = 0;
  Ballot ballot;
  uint32_t line = 0;
  uint64_t incarnation = 0;  // the lessee's, of the line: another life of it must not take this grant
  uint64_t granted = 0;    // cumulative under `ballot` (buckets: in this lease)
  uint64_t used_fleet = 0;
  uint8_t pool = 0;        // what is left of the allowance, in 1/255
  uint16_t demand_share = 0;  // the line's part of the recent demand, in 1/65535: what `share` goes by when isolated
  bool exhausted = false;  // used up, not only granted out
  bool stop = false;       // unbounded: take what is left, as a return
  bool backed = false;     // the owner holds a majority
  Duration ask_again{0};   // not before; 0: at will
  uint64_t reset = 0;
  uint64_t stamp = 0;       // of the report that it answers; 0: unasked
  uint64_t lease = 0;       // buckets
  Duration lease_for{0};    // buckets: from the stamp
  Duration tat_ahead{0};    // buckets: the owner's TAT - now
  bool refused = false;     // the sender has no books of the key: `ballot` is the highest that it knows of, and but for ask_again
  NodeId ask = 0;           // and who has them as far as it knows (0: nobody else) nothing here says anything
  friend bool operator==(const Grant&, const Grant&) = default;
};

// owner -> member of the key's group: the most that owners up to this ballot may ever have outstanding. Or, as a claim, only:
// promise to refuse every lower ballot, and tell the largest mark that you accepted.
struct Mark {
  WireId key;
  int64_t window = 0;
  Ballot ballot;
  uint64_t mark = 0;      // windows: a cost; buckets: time remaining, ns
  Duration length{0};     // windows: W; buckets: V, how long the register must be kept when idle
  bool sliding = false;   // tell what you have of window - 1
  uint64_t number = 0;    // buckets: the owner's own number for this mark; claims: the claimant's incarnation; echoed
  bool claim = false;     // `mark` is 0
  // A claim where nobody has memory: of whom it is made. All 0: an ordinary claim.
  Lives lives{};
  bool anew() const { return lives[0] != 0; }
  friend bool operator==(const Mark&, const Mark&) = default;
};

// member -> owner
struct Accepted {
  WireId key;
  int64_t window = 0;
  Ballot ballot;          // of the mark that was accepted; where refused, the promised one
  bool refused = false;
  uint64_t mark = 0;      // the largest accepted (buckets: in answer to a claim; else as in the Mark)
  uint64_t number = 0;    // buckets: as in the Mark
  bool previous_told = false;  // this member's clock has left window - 1, and it accepts nothing more there
  Ballot previous_ballot;
  uint64_t previous_mark = 0;
  bool claim = false;  // a promise
  // The incarnation of a member that has no memory of the window, and has read that nobody can give it back. No promise; but with
  // `lives`, those with which it has begun anew, it is one, of a member that has accepted no mark since.
  uint64_t forgotten_by = 0;
  Lives lives{};
  bool fresh() const { return lives[0] != 0; }
  bool taken() const { return !refused && (forgotten_by == 0 || fresh()); }  // the mark was accepted, or the claim promised
  friend bool operator==(const Accepted&, const Accepted&) = default;
};

// gossip: what one node knows of another
struct Member {
  NodeId node = 0;
  uint64_t incarnation = 0;
  uint64_t heard_ms_ago = 0;
  uint64_t asked_ms_ago = 0;  // the first question of the teller's that it has not answered; 0: none
  friend bool operator==(const Member&, const Member&) = default;
};

// A start: "who am I to you?", and the answer.
struct Hello {
  bool answer = false;
  uint64_t remembered = 0;  // answer: the highest incarnation of the asker that this node heard before; 0: none
  uint64_t rules = 0;       // fingerprint of the sender's rules
  uint64_t life = 0;        // answer: of which of the asker's lives. What was answered to an earlier one says nothing of this one
  friend bool operator==(const Hello&, const Hello&) = default;
};

// gossip: a reset, or the newest known
struct Reset {
  WireId key;
  uint64_t number = 0;
  friend bool operator==(const Reset&, const Reset&) = default;
};

// "There is another living incarnation of your name, and it was there first." Said of one life; what other lives of the
// name hear of it is none of theirs.
struct Clone {
  uint64_t incumbent = 0;
  uint64_t told = 0;       // the incarnation that is the clone
  bool elsewhere = false;  // it spoke from an address that is not its name's: this goes there, as an answer
  friend bool operator==(const Clone&, const Clone&) = default;
};

// A later life asks a member for its registers of keys that both keep, from the `from`th of its list on.
struct ReadRegisters {
  uint64_t life = 0;  // the asker's incarnation; echoed
  uint64_t from = 0;
  friend bool operator==(const ReadRegisters&, const ReadRegisters&) = default;
};

// One of them: as in Mark and Accepted.
struct Registered {
  uint64_t life = 0;
  uint64_t snapshot = 0;  // number of the list
  uint64_t index = 0;     // place in it
  WireId key;
  int64_t window = 0;
  Duration length{0};    // 0: over meanwhile, nothing to keep
  int64_t clock_ns = 0;  // by that wall clock of the teller's
  Ballot promised;
  uint64_t promised_life = 0;
  Ballot mark_ballot;
  uint64_t mark = 0;
  friend bool operator==(const Registered&, const Registered&) = default;
};

// What goes with them: how many there are in all, and what the teller's "absent" is worth.
struct RegistersEnd {
  uint64_t life = 0;
  uint64_t snapshot = 0;
  uint64_t from = 0;  // of the question
  uint64_t count = 0;
  int64_t votes_from_ns = 0;  // it has kept and lists all of windows that begin at this wall time or later
  int64_t clock_ns = 0;       // but for those that are over by this clock
  Duration remembers{0};      // buckets: all of this long; 0: it does not list all
  friend bool operator==(const RegistersEnd&, const RegistersEnd&) = default;
};

inline constexpr NodeId kAllNodes = 0;
// gossip while a list of nodes replaces another: from when on a node has no part under the one before (succession.h).
struct Moved {
  NodeId node = kAllNodes;
  uint32_t version = 0;      // of the list that replaces, and its hash
  uint64_t hash = 0;
  int64_t leaves_ns = 0;     // wall time; INT64_MAX: not yet, or nobody knows
  bool left_buckets = false;
  friend bool operator==(const Moved&, const Moved&) = default;
};

// gossip: what an operator has ordered of one key of a rule, until when, and in whose place it stands (orders.h).
struct KeyOrder {
  std::string rule;  // 1 to kOrderRuleMax bytes
  std::string key;   // 1 to kOrderKeyMax
  OrderKind kind = OrderKind::lifted;
  uint32_t limit = 0;    // of a limit: 1 to kLimitMax
  int64_t until_ns = 0;  // wall time
  int64_t keep_ns = 0;   // wall time until which an order that this one has replaced may still come: it is known so long
  uint64_t set_ns = 0;   // the setter's wall clock, above all that it knew of the key; of two orders the later holds
  NodeId setter = 0;     // and of two of one time the one of the larger id
  friend bool operator==(const KeyOrder&, const KeyOrder&) = default;
};
inline constexpr size_t kOrderRuleMax = 64;

// gossip: all orders that the sender knows of, as one number. Who knows others tells them.
struct OrdersDigest {
  uint64_t digest = 0;
  bool answer = false;  // of one that differed: not to be answered
  friend bool operator==(const OrdersDigest&, const OrdersDigest&) = default;
};

using Entry = std::variant<Report, Grant, Mark, Accepted, Member, Hello, Reset, Clone, ReadRegisters, Registered, RegistersEnd, Moved, KeyOrder, OrdersDigest>;
template <typename T>
concept Listed = std::same_as<T, Report> || std::same_as<T, Grant> || std::same_as<T, Mark> || std::same_as<T, Accepted>;
inline constexpr size_t kEntryKinds = std::variant_size_v<Entry>;
std::string_view entry_kind_name(size_t index);  // "report", "grant", ... for metrics

struct Header {
  NodeId sender = 0;
  NodeId receiver = 0;
  uint64_t incarnation = 0;
  uint32_t roster_version = 0;
  uint64_t roster_hash = 0;
  uint64_t sequence = 0;       // per receiver, from 1
  uint64_t sent_mono_ns = 0;   // sender's monotonic clock
  int64_t sent_wall_ns = 0;    // sender's wall clock
  uint64_t echo_mono_ns = 0;   // the newest sent_mono_ns that the sender had of the receiver; 0: none
  uint64_t echo_held_ns = 0;   // for how long it held it
  friend bool operator==(const Header&, const Header&) = default;
};

struct Datagram {
  Header header;
  std::vector<Entry> entries;
  friend bool operator==(const Datagram&, const Datagram&) = default;
};

// Brings those of one window and rule together, as they can be in one list, if that makes it shorter. Otherwise they stay in order.
template <typename T>
void bring_together(std::span<T> entries);
extern template void bring_together(std::span<Report>);
extern template void bring_together(std::span<Grant>);
extern template void bring_together(std::span<Mark>);
extern template void bring_together(std::span<Accepted>);

// Packs entries to one receiver into as few datagrams as hold them. One buffer, filled in place. A negative Duration is
// written as 0. Entries that follow each other and can be in one list are: the more of them, the shorter.
class DatagramWriter {
 public:
  // `bytes_max`: of the whole datagram, at most kDatagramMax; less where something is laid around it (cluster/seal.h).
  DatagramWriter(const Header& header, const IdKey& key, size_t bytes_max = kDatagramMax);
  // False where the entry does not fit any more: take finish()'s bytes and start a new writer.
  bool add(const Entry& entry);
  bool add(const Report& report) { return add_to_list(report); }
  bool add(const Grant& grant) { return add_to_list(grant); }
  bool add(const Mark& mark) { return add_to_list(mark); }
  bool add(const Accepted& accepted) { return add_to_list(accepted); }
  bool empty() const;  // no entries yet
  Bytes finish();      // header, entries, hash; once: nothing may be asked of the writer afterwards

 private:
  bool fits(size_t more) const;
  void append(std::span<const uint8_t> bytes);
  void append_number(uint64_t n);
  template <typename T>
  bool add_to_list(const T& e);
  // `each`: what an entry of the list says by itself.
  template <typename T>
  bool begin_list(const T& e, std::span<const uint8_t> each);
  bool lengthen(std::span<const uint8_t> each);

  Header header_;  // entries are written relative to it
  Bytes bytes_;
  size_t header_bytes_ = 0;
  size_t bytes_max_;
  IdKey key_;
  Entry list_;          // the first of the list that was written last
  size_t list_at_ = 0;  // where that begins, behind its length; 0: it is over
};

enum class DecodeError : uint8_t { none, too_short, too_long, bad_magic, version, forged, malformed };
std::string_view decode_error_name(DecodeError error);  // "too_short", ... for metrics

// Reads a datagram; on anything but none `out` is unspecified. An entry with a number that its struct, core/rules.h or
// Duration cannot hold makes the datagram malformed.
DecodeError decode(std::span<const uint8_t> bytes, const IdKey& key, Datagram& out);

}  // namespace tally
