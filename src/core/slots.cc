// How a key comes and goes without a lock.
//
// A slot's key word carries its state and its generation (which life of the slot this is):
//
//   FREE -> RESERVED -> LIVE -> DYING -> RESERVED (the next generation, for another key, or for none)
//               '-> FREE
//
// Never two living slots for one key. Both of a key's buckets could be given a slot for it by two threads at
// once, so an insertion is committed in one place: the commit word of the key's home bucket, which names the
// last insertion (slot, generation) of a key with that home. To insert: read the commit word; make sure that
// the insertion it names is LIVE (its owner may be asleep: anyone may publish it); look for the key; reserve
// a slot and fill it; swap the commit word. If the swap fails another key with this home came in between:
// release the slot and look again. Names are never used twice, so the word is its own version number. (A
// version counter with a "pending" mark that is cleared afterwards was rejected: a sleeping helper could
// publish the slot's next, uncommitted life.)
//
// Eviction: LIVE -> DYING, drain the counts into the sketch, DYING -> RESERVED. A DYING slot still shows its
// key, so whoever wants to insert that key again drains it too before it reads the sketch: no key's return
// overtakes its counts. A taker reads the key word again after its compare-and-swap: if the life is the same,
// its cost was in the cells before the drain read them; if not, it starts over, and what it wrote into
// another key's cell only denies. (Sequential consistency is needed there: the taker writes a cell, then
// reads the key word; the evictor writes the key word, then reads the cells.) What lowers a count must not
// hit another key: it pins the slot first.
#include "core/slots.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <new>

#include "core/slots_find.h"
#include "core/slots_layout.h"
#include "core/windows.h"

namespace tally {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t buckets_for(size_t keys) {
  // A load of 11/12: with two choices of 32 places less than one key in ten million finds both full (in 16
  // places: one in 11,000 at a load of 0.9 already).
  const size_t slots = keys + keys / 11 + 1;
  return std::max<size_t>(2, (slots + kWays - 1) / kWays);
}

size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

SlotTable::SlotTable(size_t keys, uint64_t seed, bool with_knowledge)
    : seed_(seed), buckets_(buckets_for(keys)) {
  if (keys > (size_t{1} << 31)) throw std::bad_alloc();  // a slot's index is 32 bits
  const size_t slots_n = capacity(), words_n = buckets_ * (kTagWords + 1) + Sketch::words_for(slots_n);
  const size_t known_bytes = with_knowledge ? slots_n * sizeof(Known) : 0;
  const size_t bytes = slots_n * sizeof(Slot) + known_bytes + words_n * sizeof(Word);
  mapping_bytes_ =
      rounded(bytes, bytes >= kHugePage ? kHugePage : 4096) + (bytes >= kHugePage ? kHugePage : 0);
  mapping_ = ::mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  void* at = mapping_;
  if (bytes >= kHugePage) {
    size_t space = mapping_bytes_;
    std::align(kHugePage, bytes, at, space);
    ::madvise(at, bytes, MADV_HUGEPAGE);  // a wish: fewer TLB misses; the table works without
  }
  // Constructing the words writes every page, which is the pre-faulting.
  slots_ = static_cast<Slot*>(at);
  std::uninitialized_value_construct_n(slots_, slots_n);
  at = slots_ + slots_n;
  if (with_knowledge) {
    known_ = static_cast<Known*>(at);
    std::uninitialized_value_construct_n(known_, slots_n);
    at = known_ + slots_n;
  }
  tags_ = static_cast<Word*>(at);
  std::uninitialized_value_construct_n(tags_, words_n);
  commits_ = tags_ + buckets_ * kTagWords;
  sketch_.emplace(commits_ + buckets_, slots_n);
}

SlotTable::~SlotTable() { ::munmap(mapping_, mapping_bytes_); }

Held SlotTable::insert(KeyHash hash, const Limit& limit, const Now& now) {
  const Homes homes = homes_of(hash);
  Word& commit = commits_[homes.a];
  // One load of the key word tells living from dying: with two, the key could slip from one to the other in
  // between.
  const auto living_or_drained = [&](Held held) {
    if ((held.key & kStateBits) == kDying) drain(held, now);
    return (held.key & kStateBits) == kLive;
  };
  for (int i = 0; i < kInsertTries; ++i) {
    uint64_t last = commit.load();
    publish(last);
    if (const Held held = find_where(hash, living_or_drained)) return held;
    const Held reserved = reserve(homes, hash, now);
    if (!reserved) continue;
    fill(reserved, hash, limit, now);
    const uint64_t mine = uint64_t{index_of(reserved)} << 32 | generation_of(reserved.key);
    if (commit.compare_exchange_strong(last, mine)) {
      publish(mine);
      return {reserved.slot, (reserved.key & ~kStateBits) | kLive};
    }
    release(reserved);
  }
  return {};
}

void SlotTable::publish(uint64_t committed) {
  const auto generation = static_cast<uint32_t>(committed);
  if (generation == 0) return;  // nothing was ever committed here
  Word& word = slots_[committed >> 32].key;
  uint64_t key = word.load();
  if (generation_of(key) != generation || (key & kStateBits) != kReserved) return;
  word.compare_exchange_strong(key, (key & ~kStateBits) | kLive);
}

Held SlotTable::reserve(Homes homes, KeyHash hash, const Now& now) {
  size_t first = homes.a, second = homes.b;
  if (std::popcount(ways_with(tags_of(second), 0)) > std::popcount(ways_with(tags_of(first), 0)))
    std::swap(first, second);
  if (const Held held = reserve_free(first, hash)) return held;
  if (const Held held = reserve_free(second, hash)) return held;
  return reserve_by_eviction(homes, hash, now);
}

Held SlotTable::reserve_free(size_t bucket, KeyHash hash) {
  for (uint64_t free = ways_with(tags_of(bucket), 0); free != 0; free &= free - 1) {
    const size_t index = bucket * kWays + static_cast<size_t>(std::countr_zero(free));
    Slot& slot = slots_[index];
    uint64_t key = slot.key.load();
    if ((key & kStateBits) != kFree) continue;
    const uint64_t next = next_life(key, hash);
    if (!slot.key.compare_exchange_strong(key, next)) continue;
    occupied_.fetch_add(1, std::memory_order_relaxed);  // a figure for people
    const Held held{&slot, next};
    set_tag(index_of(held), tag_of(hash));
    return held;
  }
  return {};
}

Held SlotTable::reserve_by_eviction(Homes homes, KeyHash hash, const Now& now) {
  for (int i = 0; i < kEvictTries; ++i) {
    Held victim = least_wanted(homes, now);
    if (!victim) return {};
    if ((victim.key & kStateBits) == kLive) {
      const uint64_t dying = (victim.key & ~kStateBits) | kDying;
      if (!victim.slot->key.compare_exchange_strong(victim.key, dying)) continue;
      victim.key = dying;
    }
    const bool idle = drain(victim, now);
    // Whoever pins after this load sees that the slot is dying and lets go.
    if (pins_of(victim.slot->life.load()) != 0) continue;
    const uint64_t next = next_life(victim.key, hash);
    if (!victim.slot->key.compare_exchange_strong(victim.key, next)) continue;
    (idle ? evicted_idle_ : evicted_live_).fetch_add(1, std::memory_order_relaxed);  // a figure for people
    set_tag(index_of(victim), tag_of(hash));
    return {victim.slot, next};
  }
  return {};
}

// An idle slot, in the bucket that has more of them (two choices keep the living evenly spread); else one
// that is already dying (its evictor sleeps); else the one with the least count, those that the cluster
// thread knows last.
Held SlotTable::least_wanted(Homes homes, const Now& now) const {
  struct {
    Held held;
    uint64_t weight = UINT64_MAX;
    size_t idle = 0;
  } best[2];
  const size_t buckets[2] = {homes.a, homes.b};
  for (size_t i = 0; i < 2; ++i) {
    for (size_t way = 0; way < kWays; ++way) {
      const size_t index = buckets[i] * kWays + way;
      Slot& slot = slots_[index];
      const uint64_t key = slot.key.load(), state = key & kStateBits;
      if ((state != kLive && state != kDying) || pins_of(slot.life.load()) != 0) continue;
      const uint64_t weight = state == kDying ? kWeightDying : weight_of(slot, now);
      best[i].idle += weight == kWeightIdle;
      if (best[i].held && weight >= best[i].weight) continue;
      best[i].held = {&slot, key};
      best[i].weight = weight;
    }
  }
  const bool second =
      best[1].idle != best[0].idle ? best[1].idle > best[0].idle : best[1].weight < best[0].weight;
  return best[second ? 1 : 0].held;
}

// Requires that the slot is dying. True where there was nothing to remember. More than one thread may do this
// for one life.
bool SlotTable::drain(Held dying, const Now& now) {
  sketch_->saw(now);
  const Slot& slot = *dying.slot;
  const uint64_t life = slot.life.load(), hash = slot.hash.load();
  if (is_idle(slot, life, now)) return true;
  if (is_bucket(life)) {
    sketch_->raise_arrival(hash, arrival_of(slot.count[0].load()));
    return false;
  }
  for (const Word& word : slot.count) {
    const Cell cell = Cell::of(word.load());
    if (cell.value != 0) sketch_->raise_count(hash, cell.tag, cell.value, expiry_tick(life, now.wall));
  }
  return false;
}

// As an eviction for no key, and without the sketch: there is nothing that a key's return could overtake.
void SlotTable::forget_all() {
  for (size_t index = 0; index < capacity(); ++index) {
    Slot& slot = slots_[index];
    uint64_t key = slot.key.load();
    while ((key & kStateBits) == kLive || (key & kStateBits) == kDying) {
      const uint64_t dying = (key & ~kStateBits) | kDying;
      if (key != dying && !slot.key.compare_exchange_strong(key, dying)) continue;
      key = dying;
      if (pins_of(slot.life.load()) != 0) continue;  // for some instructions of a worker
      const uint64_t next = next_life(dying, KeyHash{});
      if (!slot.key.compare_exchange_strong(key, next)) continue;
      release({&slot, next});
      break;
    }
  }
}

// Only the owner of the reservation writes here. relaxed: the words are published with the key word, and
// stale exchanges that hit them before are as harmless as those that come after.
void SlotTable::fill(Held reserved, KeyHash hash, const Limit& limit, const Now& now) {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  const bool bucket = limit.algorithm == Algorithm::token_bucket;
  const int64_t window = bucket ? 0 : window_at(now.wall, limit.window);
  const uint32_t generation = generation_of(reserved.key);
  Slot& slot = *reserved.slot;
  slot.hash.store(hash.hi, kRelaxed);
  slot.count[0].store(bucket ? arrival_word(sketch_->arrival(hash.hi)) : fresh_count(0, window), kRelaxed);
  slot.count[1].store(bucket ? LeaseCell{}.word() : fresh_count(1, window), kRelaxed);
  slot.ceiling[0].store(fresh_ceiling(bucket, 0, generation), kRelaxed);
  slot.ceiling[1].store(fresh_ceiling(bucket, 1, generation), kRelaxed);
  slot.life.store(fresh_life(limit, window, generation), kRelaxed);
  slot.ask_at.store(UINT64_MAX, kRelaxed);
}

void SlotTable::release(Held reserved) {
  set_tag(index_of(reserved), 0);
  occupied_.fetch_sub(1, std::memory_order_relaxed);  // a figure for people
  reserved.slot->key.store(reserved.key & ~(kStateBits | kHashBits));
}

}  // namespace tally
