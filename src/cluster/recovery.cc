#include "cluster/recovery.h"

#include <algorithm>

#include "cluster/registers.h"
#include "core/windows.h"

namespace tally {

namespace {

constexpr size_t kAtATime = 400;     // entries told in answer to one question: some 20 datagrams
constexpr size_t kEntriesMax = 1u << 24;  // more are told by nobody
constexpr Duration kAskAgain = std::chrono::milliseconds(100);
constexpr Duration kAskAgainMost = std::chrono::seconds(2);
constexpr Duration kSnapshotKept = std::chrono::seconds(30);

}  // namespace

Recovery::Recovery(const Roster& roster, uint16_t self, uint64_t incarnation, const Standing& standing, const Succession& succession)
    : roster_(roster), self_(self), incarnation_(incarnation), standing_(standing), succession_(succession), sources_(roster.count()), snapshots_(roster.count()) {}

// ---- own registers ----------------------------------------------------------------------------------------------------------

void Recovery::ask(uint16_t rank, Mail& mail, Now now) {
  Source& source = sources_[rank];
  // Who does not answer, or tells what there is no room for, is asked more and more seldom.
  const bool again = source.asked != MonoTime{} && source.asked_from == source.first_missing;
  source.patience = again ? std::min(source.patience * 2, kAskAgainMost) : kAskAgain;
  source.asked = now.mono;
  source.asked_from = source.first_missing;
  mail.send(rank, ReadRegisters{incarnation_, source.first_missing});
}

void Recovery::tick(Mail& mail, Now now) {
  for (Snapshot& snapshot : snapshots_)
    if (snapshot.life != 0 && now.mono - snapshot.used > kSnapshotKept) snapshot = Snapshot{};
  if (!standing_.has_forgotten()) return;
  for (uint16_t rank = 0; rank < sources_.size(); ++rank)
    if (rank != self_ && !sources_[rank].complete && now.mono - sources_[rank].asked >= sources_[rank].patience) ask(rank, mail, now);
}

// A node that had to make its list anew tells it from the beginning. Numbers of lists are of one life of the teller: a host that was
// booted anew begins with lower ones.
Recovery::Source* Recovery::source_of(uint64_t life, uint64_t snapshot, uint16_t from, uint64_t teller) {
  Source& source = sources_[from];
  const auto told = std::pair(teller, snapshot), known = std::pair(source.teller, source.snapshot);
  if (life != incarnation_ || source.complete || told < known) return nullptr;
  if (told > known) {
    source = Source{};
    source.teller = teller;
    source.snapshot = snapshot;
  }
  return &source;
}

void Recovery::on_registered(const Registered& entry, uint16_t from, uint64_t teller, Registers& registers, Now now) {
  if (entry.index >= kEntriesMax) return;
  const Groups groups = roster_.groups(entry.key);
  // The teller may know of another list, in which both keep the key; this node has no vote there.
  const bool kept = groups.contains(self_) && groups.contains(from);
  Source* source = source_of(entry.life, entry.snapshot, from, teller);
  if (source == nullptr) return;
  if (entry.index >= source->seen.size()) source->seen.resize(entry.index + 1);
  if (source->seen[entry.index] || (kept && !registers.restore(entry, now))) return;  // where there is no room it stays missing
  source->seen[entry.index] = true;
  // What was over counts as absent by the clock by which it was, whichever end of the list arrives.
  if (entry.length <= Duration(0)) source->clock = std::max(source->clock, WallTime(Duration(entry.clock_ns)));
  while (source->first_missing < source->seen.size() && source->seen[source->first_missing]) ++source->first_missing;
  source->complete = source->counted && source->first_missing == source->seen.size();
}

void Recovery::on_end(const RegistersEnd& end, uint16_t from, uint64_t teller, Mail& mail, Now now) {
  if (end.count > kEntriesMax) return;
  Source* source = source_of(end.life, end.snapshot, from, teller);
  if (source == nullptr || end.count < source->seen.size()) return;
  source->counted = true;
  source->seen.resize(end.count);
  source->votes_from = WallTime(Duration(end.votes_from_ns));
  source->clock = std::max(source->clock, WallTime(Duration(end.clock_ns)));
  source->remembers = end.remembers;
  source->complete = source->first_missing == source->seen.size();
  // The next ones, and one question for each part: else a network that duplicates makes questions of questions.
  if (!source->complete && source->first_missing >= source->asked_from + kAtATime) ask(from, mail, now);
}

bool Recovery::others_of_both(const WireId& key, const std::function<bool(const Source&)>& pass) const {
  const Groups groups = roster_.groups(key);
  for (const Group& group : {groups.current, groups.previous})
    for (size_t i = 0; i < group.size; ++i)
      if (group.rank[i] != self_ && !pass(sources_[group.rank[i]])) return false;
  return true;
}

bool Recovery::has_read(const WireId& key, int64_t window, Duration length) const {
  const auto kept = [&](const Source& source) {
    return source.complete && window_start(window, length) >= source.votes_from && window_at(source.clock, length) <= window + kWindowsKept;
  };
  // A group of one needs no marks and so has none: its registers say nothing.
  return group(key, window, length).size > 1 && (kept(last_life_) || others_of_both(key, kept));
}

bool Recovery::has_read_bucket(const WireId& key, Duration keep) const {
  const auto kept = [&](const Source& source) { return source.complete && source.remembers >= keep; };
  return group(key, 0, keep).size > 1 && (kept(last_life_) || others_of_both(key, kept));
}

bool Recovery::has_heard_all(const WireId& key, int64_t window, Duration length) const {
  return group(key, window, length).size > 1 && others_of_both(key, [](const Source& source) { return source.complete; });
}

bool Recovery::complete() const {
  if (!standing_.has_forgotten() || last_life_.complete) return true;
  for (uint16_t rank = 0; rank < sources_.size(); ++rank)
    if (rank != self_ && !succession_.gone(rank) && !sources_[rank].complete) return false;
  return true;
}

bool Recovery::read_all() const {
  for (uint16_t rank = 0; rank < sources_.size(); ++rank)
    if (rank != self_ && !sources_[rank].complete) return false;
  return true;
}

// ---- others' ----------------------------------------------------------------------------------------------------------------

void Recovery::on_read(const ReadRegisters& read, uint16_t from, const Registers& registers, Mail& mail, Now now) {
  if (standing_.is_clone() || !standing_.over()) return;  // it has nothing to say
  Snapshot& snapshot = snapshots_[from];
  if (snapshot.life != read.life) {
    snapshot.life = read.life;
    snapshot.number = static_cast<uint64_t>(nanos(now.mono));
    snapshot.keys = registers.keys([&](const WireId& key) { return roster_.groups(key).contains(from); });
    // Of the moment of the list: what leaves the sketch for the table later is not in it.
    snapshot.tells_from = registers.tells_from();
    snapshot.tells_buckets = registers.tells_buckets(now);
  }
  snapshot.used = now.mono;
  const size_t end = std::min<size_t>(snapshot.keys.size(), std::min<uint64_t>(read.from, kEntriesMax) + kAtATime);
  for (size_t i = std::min<size_t>(read.from, end); i < end; ++i) {
    Registered entry = registers.tell(snapshot.keys[i], now);
    entry.life = read.life;
    entry.snapshot = snapshot.number;
    entry.index = i;
    mail.send(from, entry);
  }
  RegistersEnd last = worth_of(snapshot.keys.size(), snapshot.tells_from, snapshot.tells_buckets, now);
  last.life = read.life;
  last.snapshot = snapshot.number;
  last.from = read.from;
  mail.send(from, last);
}

RegistersEnd Recovery::worth_of(size_t count, WallTime tells_from, bool tells_buckets, Now now) const {
  RegistersEnd worth;
  worth.count = count;
  worth.votes_from_ns = nanos(std::max({votes_from(), succession_.remembers_from(), tells_from}));
  worth.clock_ns = nanos(forgotten_by());
  worth.remembers = tells_buckets ? std::min(remembers(now), succession_.remembers_buckets(now)) : Duration(0);
  return worth;
}

// ---- from life to life ------------------------------------------------------------------------------------------------------

Memory Recovery::memory(const Registers& registers, Now now) const {
  Memory memory;
  memory.incarnation = incarnation_;
  for (const RegisterKey& key : registers.keys([](const WireId&) { return true; })) memory.registers.push_back(registers.tell(key, now));
  memory.worth = worth_of(memory.registers.size(), registers.tells_from(), registers.tells_buckets(now), now);
  return memory;
}

void Recovery::remember(const Memory& memory, Registers& registers, Now now) {
  for (const Registered& entry : memory.registers)
    if (!registers.restore(entry, now)) return;
  last_life_.teller = memory.incarnation;
  last_life_.votes_from = WallTime(Duration(memory.worth.votes_from_ns));
  last_life_.clock = WallTime(Duration(memory.worth.clock_ns));
  last_life_.remembers = memory.worth.remembers;
  last_life_.complete = true;
}

void Recovery::heard_of_life(uint64_t incarnation) {
  if (incarnation > last_life_.teller) last_life_.complete = false;
}

// What is over by it may be missing here: by this node's own clock, or as those from whom it was read anew had forgotten it.
WallTime Recovery::forgotten_by() const {
  WallTime clock = std::max(standing_.lives_clock(), last_life_.clock);
  for (const Source& source : sources_) clock = std::max(clock, source.clock);
  return clock;
}

// What this node remembers of itself, or has read anew from all the others.
WallTime Recovery::votes_from() const {
  if (standing_.has_forgotten() && last_life_.complete) return std::min(last_life_.votes_from, standing_.votes_from());
  if (!standing_.has_forgotten() || !read_all()) return standing_.votes_from();
  WallTime from = WallTime::min();
  for (uint16_t rank = 0; rank < sources_.size(); ++rank)
    if (rank != self_) from = std::max(from, sources_[rank].votes_from);
  return std::min(from, standing_.votes_from());
}

Duration Recovery::remembers(Now now) const {
  if (standing_.has_forgotten() && last_life_.complete) return std::max(last_life_.remembers, standing_.remembers(now));
  if (!standing_.has_forgotten() || !read_all()) return standing_.remembers(now);
  Duration least = Duration::max();
  for (uint16_t rank = 0; rank < sources_.size(); ++rank)
    if (rank != self_) least = std::min(least, sources_[rank].remembers);
  return std::max(least, standing_.remembers(now));
}

}  // namespace tally
