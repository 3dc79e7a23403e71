#include "client/leases.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/fail.h"

namespace tally::client {
namespace {

// A key that is asked about by so many calls in a tick is worth a portion.
constexpr uint32_t kHot = 4;
// A portion is for so many ticks; what would last for more than kTooMuch of them goes back.
constexpr uint64_t kTicksAhead = 2, kTooMuch = 4;
// A key that was not asked about for so many ticks is looked at no more until it is.
constexpr uint32_t kIdleTicks = 100;

constexpr uint32_t within(uint64_t n) {
  return static_cast<uint32_t>(std::min<uint64_t>(n, std::numeric_limits<uint32_t>::max() / 2));
}
constexpr uint64_t word_of(uint32_t number, uint32_t left) { return uint64_t{number} << 32 | left; }

}  // namespace

Leases::Leases(size_t keys) : mask_(keys - 1), keys_(keys) {
  CHECK_THAT(keys >= kProbes && (keys & mask_) == 0);
  const size_t bytes = (keys + 1) * sizeof(Entry);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // Without this a child would spend what its parent spends, too.
  if (::madvise(memory, bytes, MADV_WIPEONFORK) != 0) {
    ::munmap(memory, bytes);
    throw std::bad_alloc();
  }
  entries_ = static_cast<Entry*>(memory);
  for (size_t i = 0; i <= keys; ++i) new (&entries_[i]) Entry;
  marker_ = &entries_[keys];
  marker_->hi.store(1, std::memory_order_relaxed);
}

Leases::~Leases() { ::munmap(entries_, (keys_.size() + 1) * sizeof(Entry)); }

uint32_t Leases::next_number() { return ++number_ != 0 ? number_ : ++number_; }

// The key's place, which it is given where one is free, or holds nothing and is not asked about.
size_t Leases::place_of(KeyHash hash) {
  size_t free = kNowhere;
  for (size_t i = 0; i < kProbes; ++i) {
    const size_t place = (hash.lo + i) & mask_;
    const bool used = entries_[place].hi.load(std::memory_order_relaxed) != 0;
    if (used && keys_[place].hash == hash) return place;
    const bool wanted =
        used && (keys_[place].asking || keys_[place].demand != 0 || entries_[place].left() != 0);
    if (!wanted && (free == kNowhere || !used)) free = place;
  }
  if (free == kNowhere || hash.hi == 0) return kNowhere;
  empty(free);
  keys_[free].hash = hash;
  entries_[free].lo.store(hash.lo, std::memory_order_relaxed);
  entries_[free].hi.store(hash.hi, std::memory_order_release);
  return free;
}

void Leases::empty(size_t place) {
  Entry& entry = entries_[place];
  entry.hi.store(0, std::memory_order_release);
  for (int cell = 0; cell < 2; ++cell) take_out(place, cell, std::numeric_limits<uint32_t>::max());
  for (Cell& cell : entry.cells) cell.word.store(word_of(next_number(), 0), std::memory_order_release);
  entry.denied_until.store(0, std::memory_order_relaxed);
  entry.said.store(0, std::memory_order_relaxed);
  entry.ended.store(0, std::memory_order_relaxed);
  const bool active = keys_[place].active;  // and stays in the list
  keys_[place] = Key{};
  keys_[place].active = active;
}

uint32_t Leases::take_out(size_t place, int cell, uint32_t most) {
  std::atomic<uint64_t>& word = entries_[place].cells[cell].word;
  uint64_t seen = word.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t out = std::min(most, left_in(seen));
    if (out == 0 ||
        word.compare_exchange_weak(seen, seen - out, std::memory_order_acq_rel, std::memory_order_acquire))
      return out;
  }
}

Leases::Asking Leases::ask(std::string_view rule, std::string_view key, KeyHash hash, uint32_t cost) {
  const size_t place = place_of(hash);
  if (place == kNowhere) return {0, place};
  Key& k = keys_[place];
  if (k.key.empty()) {
    k.rule = rule;
    k.key = key;
  }
  if (!std::exchange(k.active, true)) active_.push_back(place);
  k.asked = within(uint64_t{k.asked} + cost);
  ++k.calls;
  if (k.asking) return {0, kNowhere};
  const uint64_t spent = spent_since(place, entries_[place].ended.load(std::memory_order_relaxed));
  if (k.calls < kHot && spent == 0 && !k.hot) return {0, place};
  k.asking = true;
  return {within(std::max<uint64_t>(k.asked + spent, k.demand) * kTicksAhead), place};
}

void Leases::unanswered(const Asking& asking, KeyHash hash) {
  if (asking.most != 0 && asking.place != kNowhere && keys_[asking.place].hash == hash)
    keys_[asking.place].asking = false;
}

void Leases::answered(const Asking& asking, KeyHash hash, const Reply& reply, MonoTime sent, Duration every) {
  if (asking.place == kNowhere || !(keys_[asking.place].hash == hash))
    return;  // pushed out: what came is lost
  unanswered(asking, hash);
  Entry& entry = entries_[asking.place];
  entry.said.store(word_of(reply.limit, reply.remaining), std::memory_order_relaxed);
  entry.reset_at.store(nanos(sent + reply.reset_after), std::memory_order_relaxed);
  // Nothing is left, and it was said for how long: believed for a tick, so that a reset is soon seen.
  if (reply.limited && reply.remaining == 0 && reply.retry_after > Duration(0)) {
    entry.retry_at.store(nanos(sent + reply.retry_after), std::memory_order_relaxed);
    entry.denied_until.store(nanos(sent + std::min(reply.retry_after, every)), std::memory_order_relaxed);
  }
  if (reply.amount != 0) put_in(asking.place, reply, sent);
}

// Portions of one window are one; each of a bucket ends by itself, and the one that has less left goes.
void Leases::put_in(size_t place, const Reply& reply, MonoTime sent) {
  Entry& entry = entries_[place];
  Key& key = keys_[place];
  received_ += reply.amount;
  key.granted += reply.amount;
  const int64_t end = nanos(sent + reply.lasts);
  const auto left = [&](int cell) { return left_in(entry.cells[cell].word.load(std::memory_order_relaxed)); };
  for (int cell = 0; cell < 2; ++cell) {
    if (reply.account == 0 || key.account[cell] != reply.account) continue;
    if (left(cell) > std::numeric_limits<uint32_t>::max() - reply.amount)
      return;  // lost: more than anybody spends
    // It keeps its end, which is the same but for the time that a question takes.
    entry.cells[cell].word.fetch_add(reply.amount, std::memory_order_acq_rel);
    return;
  }
  const int cell = left(0) <= left(1) ? 0 : 1;
  entry.ended.fetch_add(take_out(place, cell, std::numeric_limits<uint32_t>::max()),
                        std::memory_order_relaxed);
  entry.cells[cell].word.store(word_of(next_number(), 0), std::memory_order_release);
  entry.cells[cell].end.store(end, std::memory_order_relaxed);
  key.account[cell] = reply.account;
  entry.cells[cell].word.store(word_of(next_number(), reply.amount), std::memory_order_release);
}

// Since the last tick. `ended`: what was lost.
uint64_t Leases::spent_since(size_t place, uint64_t ended) const {
  const uint64_t had = keys_[place].left_before + keys_[place].granted;
  return had - std::min(entries_[place].left() + ended, had);
}

// A tick is over. Whether the key was asked about, or spent, in it.
bool Leases::count_spent(size_t place) {
  Key& key = keys_[place];
  const uint64_t spent = spent_since(place, entries_[place].ended.exchange(0, std::memory_order_relaxed));
  spent_ += spent;
  const uint64_t now = spent + key.asked;
  key.demand = within(std::max(now, (uint64_t{key.demand} * 3 + now) / 4));
  key.hot = key.calls >= kHot || spent != 0 || (key.hot && key.demand != 0);
  key.idle = now != 0 ? 0 : key.idle + 1;
  key.granted = key.asked = key.calls = 0;
  key.left_before = entries_[place].left();
  return now != 0;
}

// Of what can be put back, all but `leave`.
void Leases::put_back(size_t place, uint32_t leave, std::vector<Order>& orders) {
  Key& key = keys_[place];
  for (int cell = 0; cell < 2; ++cell) {
    const uint32_t left = entries_[place].left();
    if (key.account[cell] == 0 || left <= leave) continue;
    const uint32_t out = take_out(place, cell, left - leave);
    key.left_before -= std::min<uint64_t>(out, key.left_before);
    if (out != 0) orders.push_back({{}, key.hash, key.rule, key.key, out, key.account[cell]});
  }
}

std::vector<Leases::Order> Leases::tick(MonoTime now) {
  std::vector<Order> orders;
  for (const size_t place : active_) {
    Key& key = keys_[place];
    drop_ended(entries_[place], nanos(now));
    const bool in_use = count_spent(place);
    const uint64_t left = entries_[place].left();
    const uint64_t wanted = uint64_t{key.demand} * kTicksAhead;
    if (left > std::max<uint64_t>(uint64_t{key.demand} * kTooMuch, kHot) || key.demand == 0) {
      put_back(place, within(wanted), orders);
    } else if (key.hot && in_use && left * 2 < wanted && !key.asking &&
               entries_[place].denied_until.load(std::memory_order_relaxed) <= nanos(now)) {
      key.asking = true;
      orders.push_back({{within(wanted - left), place}, key.hash, key.rule, key.key, 0, 0});
    }
  }
  std::erase_if(active_, [&](size_t place) {
    if (keys_[place].idle < kIdleTicks || keys_[place].asking) return false;
    keys_[place].active = false;
    return true;
  });
  return orders;
}

std::vector<Leases::Order> Leases::leave() {
  std::vector<Order> orders;
  for (const size_t place : active_) put_back(place, 0, orders);
  return orders;
}

}  // namespace tally::client
