#include "cluster/mail.h"

#include <algorithm>
#include <optional>
#include <span>

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

// Datagrams to one receiver, one after the other.
class Mail::Packer {
 public:
  Packer(Mail& mail, Peers& peers, uint16_t rank, Now now) : mail_(mail), peers_(peers), rank_(rank), now_(now) {}

  template <typename T>
  void add(const T& entry) {
    if (!writer_) begin();
    if (!writer_->add(entry)) {
      end();
      begin();
      CHECK_THAT(writer_->add(entry));  // every entry of ours fits an empty datagram
    }
  }
  template <typename T>
  void add_all(std::vector<T>& entries) {
    constexpr size_t kAtATime = 1024;  // so many stay in the cache from being ordered to being packed
    for (size_t first = 0; first < entries.size(); first += kAtATime) {
      const auto some = std::span(entries).subspan(first, std::min(kAtATime, entries.size() - first));
      bring_together(some);
      for (const T& entry : some) add(entry);
    }
    mail_.entries_[Entry(std::in_place_type<T>).index()] += entries.size();
    entries.clear();
  }
  void end() {
    if (!writer_) return;
    mail_.out_.push_back({rank_, false, writer_->finish()});
    writer_.reset();
    peers_[rank_].bytes_out += mail_.out_.back().bytes.size() + mail_.around_;
    ++mail_.datagrams_;
  }

 private:
  void begin() {
    Header header = mail_.header_to(rank_);
    peers_.stamp(rank_, header, now_);
    writer_.emplace(header, mail_.key_, kDatagramMax - mail_.around_);
  }

  Mail& mail_;
  Peers& peers_;
  const uint16_t rank_;
  const Now now_;
  std::optional<DatagramWriter> writer_;
};

void Mail::flush(Peers& peers, Now now) {
  for (const uint16_t rank : busy_) {
    Queue& queue = queued_[rank];
    Packer packer(*this, peers, rank, now);
    for (const Entry& entry : queue.others) {
      packer.add(entry);
      ++entries_[entry.index()];
    }
    queue.others.clear();
    std::apply([&](auto&... of) { (packer.add_all(of), ...); }, queue.listed);
    packer.end();
  }
  busy_.clear();
}

}  // namespace tally
