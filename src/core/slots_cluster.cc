// What the cluster thread does to slots, and the small marks that workers leave for it.
//
// A ceiling is raised by a compare-and-swap whose expected word was read before the life was checked: it
// belongs to that life, and no other life ever has the same (slots_layout.h, fresh_ceiling), so it can not
// land on another key. Only this one thread raises ceilings. Counts are only ever raised here, and a stray
// raise denies.
#include <algorithm>

#include "core/slots.h"
#include "core/slots_find.h"
#include "core/slots_layout.h"

namespace tally {

namespace {

// A store takes several times as long as a load, and most of what is told is as it was.
void store_if_other(Word& word, uint64_t value) {
  if (word.load() != value) word.store(value);
}

}  // namespace

Held SlotTable::hold(SlotRef ref) const {
  if (ref.index >= capacity() || ref.generation == 0) return {};
  Slot& slot = slots_[ref.index];
  const uint64_t key = slot.key.load();
  if (generation_of(key) != ref.generation || (key & kStateBits) != kLive) return {};
  return {&slot, key};
}

std::optional<SlotRef> SlotTable::ref_of(KeyHash hash) const {
  const Held held = find(hash);
  return held ? std::optional(ref_of(held)) : std::nullopt;
}

void SlotTable::prefetch(SlotRef ref) const {
  if (ref.index >= capacity()) return;
  __builtin_prefetch(&slots_[ref.index], 1);
  if (known_ != nullptr) __builtin_prefetch(&known_[ref.index], 1);
}

bool SlotTable::living(SlotRef ref) const { return static_cast<bool>(hold(ref)); }

std::optional<uint32_t> SlotTable::count(SlotRef ref, uint32_t window) const {
  const Held held = hold(ref);
  if (!held) return std::nullopt;
  const Cell cell = Cell::of(held.slot->count[window & 1].load());
  if (!held.still() || ahead(cell.tag, window & 1, window) != 0) return std::nullopt;
  return cell.tag == window ? cell.value : 0;
}

std::optional<uint32_t> SlotTable::ceiling(SlotRef ref, uint32_t window) const {
  const Held held = hold(ref);
  if (!held) return std::nullopt;
  const Cell cell = Cell::of(held.slot->ceiling[window & 1].load());
  if (!held.still() || cell.tag != window) return std::nullopt;
  return cell.value;
}

bool SlotTable::raise_ceiling(SlotRef ref, uint32_t window, uint32_t ceiling) {
  const Held held = hold(ref);
  if (!held) return false;
  Word& word = held.slot->ceiling[window & 1];
  for (uint64_t was = word.load(); held.still();) {
    const Cell cell = Cell::of(was);
    const bool later = ahead(cell.tag, window & 1, window) != 0;
    if (later || (cell.tag == window && cell.value >= ceiling)) return true;
    if (word.compare_exchange_strong(was, Cell{window, ceiling}.word())) return held.still();
  }
  return false;
}

uint32_t SlotTable::take_back(SlotRef ref, uint32_t window, uint32_t ceiling, uint32_t leave, WallTime end) {
  const Held held = hold(ref);
  if (!held || ceiling <= leave) return 0;
  const uint32_t target = ceiling - leave;
  Word& word = held.slot->count[window & 1];
  for (uint64_t was = word.load();;) {
    const Cell cell = Cell::of(was);
    if (ahead(cell.tag, window & 1, window) != 0) return 0;
    if (cell.tag != window) {  // the first count of the window, as in Limiter::view and Limiter::begin_window
      if (!pin(held)) return 0;
      keep_for(held, window);
      uint32_t count = sketch_->count(held.slot->hash.load(), window);
      if (sketch_->forgets() && sketch_->newest_wall() >= end) count = std::max(count, target);
      if (word.compare_exchange_strong(was, Cell{window, count}.word())) was = Cell{window, count}.word();
      unpin(held);
      continue;
    }
    if (cell.value >= target) return 0;
    if (word.compare_exchange_strong(was, Cell{window, target}.word()))
      return held.still() ? target - cell.value : 0;
  }
}

// The expiry is the end of the latest window in the count cells, or later.
void SlotTable::keep_for(Held held, uint32_t window) {
  const uint64_t life = held.slot->life.load();
  const uint32_t a = Cell::of(held.slot->count[0].load()).tag, b = Cell::of(held.slot->count[1].load()).tag;
  const uint32_t latest = static_cast<int32_t>(a - b) > 0 ? a : b;
  const int64_t ticks = (int64_t{1} << std::max(log2_of(life) - kTickShift, 0)) + 1;
  const int64_t further =
      std::clamp<int64_t>(static_cast<int32_t>(window - latest), 0, kWindowMax / kWindowMin);
  const int64_t most = int64_t{1} << (kExpiryWidth - 2);
  keep_until(held, static_cast<int64_t>(life & kExpiryBits) + std::min(further * ticks, most));
}

std::optional<SlotTable::Lease> SlotTable::lease(SlotRef ref) const {
  const Held held = hold(ref);
  if (!held) return std::nullopt;
  const LeaseCell ceiling = LeaseCell::of(held.slot->ceiling[0].load());
  const uint64_t end = held.slot->ceiling[1].load();
  const LeaseCell count = LeaseCell::of(held.slot->count[1].load());
  if (!held.still()) return std::nullopt;
  if (is_fresh_end(end) || count.tag != ceiling.tag) return Lease{0, 0, 0, MonoTime::min()};
  return Lease{count.tag, count.amount, ceiling.amount, arrival_of(end)};
}

// A worker reads ceiling, end, count, in this order, and then swaps the count. So from the first write on no
// token of the old lease can be spent, and none of the new one before the last.
std::optional<int64_t> SlotTable::open_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end) {
  const Held held = hold(ref);
  if (!held) return std::nullopt;
  const uint64_t amount = LeaseCell{tag, std::clamp<int64_t>(ceiling, 0, LeaseCell::kAmountMax)}.word();
  Slot& slot = *held.slot;
  // Read while the life is known to be ours: the exchanges below can not land on another.
  uint64_t old_end = slot.ceiling[1].load(), old_ceiling = slot.ceiling[0].load();
  uint64_t count = slot.count[1].load();
  do {
    if (!held.still()) return std::nullopt;
  } while (!slot.count[1].compare_exchange_strong(count, LeaseCell{tag, 0}.word()));
  slot.ceiling[1].compare_exchange_strong(old_end, static_cast<uint64_t>(nanos(end)));
  slot.ceiling[0].compare_exchange_strong(old_ceiling, amount);
  if (!held.still()) return std::nullopt;
  return LeaseCell::of(count).amount;
}

bool SlotTable::raise_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end) {
  const Held held = hold(ref);
  if (!held) return false;
  Slot& slot = *held.slot;
  uint64_t old_end = slot.ceiling[1].load(), old_ceiling = slot.ceiling[0].load();
  const LeaseCell had = LeaseCell::of(old_ceiling), count = LeaseCell::of(slot.count[1].load());
  if (!held.still() || is_fresh_end(old_end) || had.tag != tag || count.tag != tag) return false;
  const int64_t amount = std::clamp<int64_t>(ceiling, had.amount, LeaseCell::kAmountMax);
  const MonoTime later = std::max(arrival_of(old_end), end);
  slot.ceiling[1].compare_exchange_strong(old_end, static_cast<uint64_t>(nanos(later)));
  slot.ceiling[0].compare_exchange_strong(old_ceiling, LeaseCell{tag, amount}.word());
  return held.still();
}

int64_t SlotTable::take_back_lease(SlotRef ref, uint8_t tag, int64_t leave) {
  const Held held = hold(ref);
  if (!held) return 0;
  Slot& slot = *held.slot;
  const LeaseCell ceiling = LeaseCell::of(slot.ceiling[0].load());
  const bool fresh = is_fresh_end(slot.ceiling[1].load());
  uint64_t was = slot.count[1].load();
  if (!held.still() || fresh || ceiling.tag != tag) return 0;
  const int64_t target = ceiling.amount - std::clamp<int64_t>(leave, 0, ceiling.amount);
  for (;;) {
    const LeaseCell count = LeaseCell::of(was);
    if (count.tag != tag || count.amount >= target) return 0;
    if (slot.count[1].compare_exchange_strong(was, LeaseCell{tag, target}.word()))
      return held.still() ? target - count.amount : 0;
  }
}

// The words are not read as one: the life comes first and last, and what a reader sees between two equal ones
// was written for that key.
bool SlotTable::set_knowledge(SlotRef ref, const Knowledge& knowledge) {
  const Held held = hold(ref);
  if (!held || known_ == nullptr) return false;
  Known& known = known_[ref.index];
  if (static_cast<uint32_t>(known.life.load()) != ref.generation) known.life.store(0);
  known.used.store(uint64_t{knowledge.window} << 32 | static_cast<uint32_t>(knowledge.elsewhere));
  store_if_other(known.tat, arrival_word(knowledge.tat));
  store_if_other(known.exhausted, arrival_word(knowledge.exhausted_until));
  known.life.store(uint64_t{knowledge.heard} << 33 | uint64_t{knowledge.isolated} << 32 | ref.generation);
  return held.still();
}

Knowledge SlotTable::knowledge(Held held) const {
  Knowledge knowledge;
  if (known_ == nullptr) return knowledge;
  const Known& known = known_[index_of(held)];
  const uint64_t life = known.life.load();
  if (static_cast<uint32_t>(life) != generation_of(held.key)) return knowledge;
  const Cell used = Cell::of(known.used.load());
  knowledge.window = used.tag;
  knowledge.elsewhere = static_cast<int32_t>(used.value);
  knowledge.tat = arrival_of(known.tat.load());
  knowledge.exhausted_until = arrival_of(known.exhausted.load());
  knowledge.isolated = (life >> 32 & 1) != 0;
  knowledge.heard = static_cast<uint32_t>(life >> 33);
  if (static_cast<uint32_t>(known.life.load()) != generation_of(held.key)) knowledge = {};
  return knowledge;
}

bool SlotTable::set_ask_at(SlotRef ref, uint64_t count) {
  const Held held = hold(ref);
  if (!held) return false;
  store_if_other(held.slot->ask_at, count);  // on another key at the worst, which then notes once too often
  return held.still();
}

bool SlotTable::clear_noted(SlotRef ref) {
  const Held held = hold(ref);
  return held && clear_noted(held) && held.still();
}

// --- the life word
// ------------------------------------------------------------------------------------------------

bool SlotTable::noted(Held held) { return (held.slot->life.load() & kNoted) != 0; }

bool SlotTable::set_noted(Held held) {
  uint64_t life = held.slot->life.load();
  while (same_life(life, generation_of(held.key)) && (life & kNoted) == 0)
    if (held.slot->life.compare_exchange_weak(life, life | kNoted)) return true;
  return false;
}

bool SlotTable::clear_noted(Held held) {
  uint64_t life = held.slot->life.load();
  while (same_life(life, generation_of(held.key)))
    if (held.slot->life.compare_exchange_weak(life, life & ~kNoted)) return true;
  return false;
}

void SlotTable::keep_until(Held held, int64_t tick) {
  uint64_t life = held.slot->life.load();
  while (same_life(life, generation_of(held.key)) && until_expiry(life, tick) < 0)
    if (held.slot->life.compare_exchange_weak(life, with_expiry(life, tick))) return;
}

bool SlotTable::pin(Held held) {
  uint64_t life = held.slot->life.load();
  do {
    if (!same_life(life, generation_of(held.key)) || pins_of(life) == kPinsMax) return false;
  } while (!held.slot->life.compare_exchange_weak(life, life + kOnePin));
  if (held.still()) return true;
  unpin(held);
  return false;
}

void SlotTable::unpin(Held held) {
  uint64_t life = held.slot->life.load();
  while (same_life(life, generation_of(held.key)) && pins_of(life) != 0)
    if (held.slot->life.compare_exchange_weak(life, life - kOnePin)) return;
}

}  // namespace tally
