#include "cluster/mail.h"

namespace tally {

Mail::Mail(const Roster& roster, const Peers& peers, uint64_t incarnation, const IdKey& key, size_t around)
    : roster_(roster),
      peers_(peers),
      self_(peers.self()),
      incarnation_(incarnation),
      key_(key),
      around_(around),
      spoken_(roster.count(), Which::current),
      queued_(roster.count()) {
  // The list before until a node says that it knows the new one, where both are in it.
  for (uint16_t rank = 0; rank < roster.count(); ++rank)
    if (roster.lists(Which::previous, rank) && roster.lists(Which::previous, self_)) spoken_[rank] = Which::previous;
}

// Guests come later than this.
void Mail::make_room(uint16_t rank) {
  if (rank < queued_.size()) return;
  spoken_.resize(rank + size_t{1}, Which::current);
  queued_.resize(rank + size_t{1});
}

void Mail::speak(uint16_t to, Which which) {
  make_room(to);
  spoken_[to] = which;
}

void Mail::send(uint16_t to, Entry entry) {
  if (to == self_) {
    local_.push_back(std::move(entry));
    return;
  }
  make_room(to);
  if (queued_[to].empty()) busy_.push_back(to);
  queued_[to].push_back(std::move(entry));
}

bool Mail::pop_local(Entry& out) {
  if (local_.empty()) return false;
  out = std::move(local_.front());
  local_.pop_front();
  return true;
}

Header Mail::header_to(uint16_t rank) const {
  Header header;
  header.sender = peers_.id(self_);
  header.receiver = peers_.id(rank);
  header.incarnation = incarnation_;
  header.roster_version = roster_.version_of(spoken_[rank]);
  header.roster_hash = roster_.hash_of(spoken_[rank]);
  return header;
}

void Mail::answer_source(Peers& peers, uint16_t rank, const Entry& entry, Now now) {
  Header header = header_to(rank);
  header.sequence = ++peers[rank].sequence_out;
  header.sent_mono_ns = static_cast<uint64_t>(nanos(now.mono));
  header.sent_wall_ns = nanos(now.wall);
  DatagramWriter writer(header, key_, kDatagramMax - around_);
  CHECK_THAT(writer.add(entry));
  out_.push_back({self_, true, writer.finish()});
  ++datagrams_;
  ++entries_[entry.index()];
}

Bytes Mail::alone(Peers& peers, uint16_t rank, const Entry& entry, Now now) {
  make_room(rank);
  Header header = header_to(rank);
  peers.stamp(rank, header, now);
  DatagramWriter writer(header, key_, kDatagramMax - around_);
  CHECK_THAT(writer.add(entry));
  Bytes bytes = writer.finish();
  peers[rank].bytes_out += bytes.size() + around_;
  ++datagrams_;
  ++entries_[entry.index()];
  return bytes;
}

void Mail::flush(Peers& peers, Now now) {
  for (const uint16_t rank : busy_) {
    auto& entries = queued_[rank];
    size_t next = 0;
    while (next < entries.size()) {
      Header header = header_to(rank);
      peers.stamp(rank, header, now);
      DatagramWriter writer(header, key_, kDatagramMax - around_);
      while (next < entries.size() && writer.add(entries[next])) ++entries_[entries[next++].index()];
      CHECK_THAT(!writer.empty());  // every entry of ours fits an empty datagram
      out_.push_back({rank, false, writer.finish()});
      peers[rank].bytes_out += out_.back().bytes.size() + around_;
      ++datagrams_;
    }
    entries.clear();
  }
  busy_.clear();
}

}  // namespace tally
