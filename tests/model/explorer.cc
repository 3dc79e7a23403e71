#include "model/explorer.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "base/fail.h"
#include "base/hash.h"

namespace tally::model {
namespace {

Explorer* running = nullptr;

constexpr size_t kStackUsed = 8 * 1024;   // of a fiber's stack, checked
constexpr size_t kRegisterBytes = 8 * 8;  // of a jmp_buf on x86-64: what a callee keeps, stack pointer, place
constexpr size_t kDepthMax = 20'000;

uint64_t of_place(const uint64_t* place, uint64_t value) {
  return mix(reinterpret_cast<uint64_t>(place) * 0x9e3779b97f4a7c15 + mix(value + 1));
}

// An address below all that the caller has on the stack.
[[gnu::noinline]] char* stack_top() { return static_cast<char*>(__builtin_frame_address(0)); }

}  // namespace

void point(const uint64_t* place, bool writes) {
  if (running == nullptr || running->current_ == Explorer::kThreadsMax) return;
  if (running->is_shared(place, writes)) running->step();
}

void wrote(uint64_t* place, uint64_t before, uint64_t after) {
  if (running == nullptr) return;
  running->undo_.emplace_back(place, before);
  running->memory_ ^= of_place(place, before) ^ of_place(place, after);
}

Explorer::Outcome Explorer::explore(std::vector<std::function<void()>> threads,
                                    const std::function<std::string()>& check,
                                    const std::function<bool()>& enough) {
  CHECK_THAT(running == nullptr && threads.size() <= kThreadsMax);
  running = this;
  for (auto& body : threads) {
    Fiber& fiber = fibers_.emplace_back();
    fiber.body = std::move(body);
    fiber.stack = std::make_unique<char[]>(kStackBytes);
  }
  getcontext(&begin_);
  Outcome outcome;
  begin();
  for (;;) {
    const End end = run(enough);
    if (end == End::endless) outcome.wrong = "does not end";
    if (end == End::whole) {
      ++outcome.schedules;
      outcome.wrong = check();
    }
    if (!outcome.wrong.empty()) {
      outcome.order = order();
      break;
    }
    if (std::exchange(learnt_, false)) {
      seen_.clear();
      outcome.schedules = 0;
      begin();
    } else if (!next_branch()) {
      break;
    }
  }
  undo_to(0);
  outcome.states = seen_.size();
  running = nullptr;
  return outcome;
}

void Explorer::begin() {
  undo_to(0);
  memory_ = 0;
  depth_ = preemptions_ = 0;
  branched_ = false;
  results = {};
  for (Fiber& fiber : fibers_) fiber.begun = fiber.done = false;
}

// On the real thread's stack, so that nothing of it is left on a fiber's.
Explorer::End Explorer::run(const std::function<bool()>& enough) {
  for (;;) {
    unsigned able = 0;
    for (size_t i = 0; i < fibers_.size(); ++i) able |= fibers_[i].done ? 0 : 1u << i;
    const size_t last = std::exchange(current_, kThreadsMax);  // what is read by `enough` is no step
    if (able == 0) return End::whole;
    if (depth_ > kDepthMax) return End::endless;
    if (enough && enough()) return End::cut;
    current_ = last;
    if (!std::exchange(branched_, false) && !choose(able)) {
      current_ = kThreadsMax;
      return End::cut;
    }
    resume();
  }
}

// The last choice that has another thread to try.
bool Explorer::next_branch() {
  while (depth_ != 0 && path_[depth_ - 1].others == 0) --depth_;
  if (depth_ == 0) return false;
  Branch& branch = path_[depth_ - 1];
  branch.chosen = static_cast<size_t>(__builtin_ctz(branch.others));
  branch.others &= branch.others - 1;
  take_up(branch);
  preemptions_ = branch.preemptions + (branch.preempted != kThreadsMax);
  current_ = branch.chosen;
  branched_ = true;
  return true;
}

// False where all that can follow is known.
bool Explorer::choose(unsigned able) {
  const auto lowest = static_cast<size_t>(__builtin_ctz(able));
  const bool goes_on = current_ != kThreadsMax && !fibers_[current_].done;
  if (!goes_on) current_ = lowest;
  if ((able & (able - 1)) == 0) return true;
  if (!seen_.insert(state()).second) return false;
  if (depth_ == path_.size()) path_.emplace_back();
  Branch& branch = path_[depth_++];
  branch.chosen = current_;
  branch.preemptions = preemptions_;
  branch.preempted = goes_on ? current_ : kThreadsMax;
  const bool may_preempt = !goes_on || preemptions_ < preemptions_max;
  branch.others = may_preempt ? able & ~(1u << current_) : 0;
  keep(branch);
  return true;
}

void Explorer::keep(Branch& branch) const {
  for (size_t i = 0; i < fibers_.size(); ++i) {
    const Fiber& fiber = fibers_[i];
    Kept& kept = branch.fibers[i];
    kept.begun = fiber.begun;
    kept.done = fiber.done;
    if (!fiber.begun || fiber.done) continue;
    kept.top = fiber.top;
    kept.stack.assign(fiber.top, fiber.stack.get() + kStackBytes);
    std::memcpy(&kept.at, &fiber.at, sizeof kept.at);
  }
  branch.results = results;
  branch.undo = undo_.size();
  branch.memory = memory_;
}

void Explorer::take_up(const Branch& branch) {
  for (size_t i = 0; i < fibers_.size(); ++i) {
    Fiber& fiber = fibers_[i];
    const Kept& kept = branch.fibers[i];
    fiber.begun = kept.begun;
    fiber.done = kept.done;
    if (!fiber.begun || fiber.done) continue;
    fiber.top = kept.top;
    std::memcpy(fiber.top, kept.stack.data(), kept.stack.size());
    std::memcpy(&fiber.at, &kept.at, sizeof kept.at);
  }
  results = branch.results;
  undo_to(branch.undo);
  memory_ = branch.memory;
}

void Explorer::undo_to(size_t length) {
  for (; undo_.size() > length; undo_.pop_back()) *undo_.back().first = undo_.back().second;
}

// What a thread will do is in its stack and registers; what it has done, in words and results. Dead values on
// the stack tell states apart that are one: that costs time only.
uint64_t Explorer::state() const {
  uint64_t all = mix(memory_) ^ XXH3_64bits(results.data(), sizeof results);
  // Bounded, how it came here tells what may follow.
  if (preemptions_max != SIZE_MAX) all = mix(all + preemptions_ * kThreadsMax + current_);
  for (const Fiber& fiber : fibers_) {
    all = mix(all * 31 + (fiber.done ? 3 : fiber.begun ? 2 : 1));
    if (fiber.done || !fiber.begun) continue;
    const auto stack = static_cast<size_t>(fiber.stack.get() + kStackBytes - fiber.top);
    CHECK_THAT(stack <= kStackUsed);
    all ^= XXH3_64bits_withSeed(fiber.top, stack, all);
    all ^= XXH3_64bits_withSeed(&fiber.at, kRegisterBytes, all);
  }
  return all;
}

std::string Explorer::order() const {
  std::string text;
  for (size_t i = 0, n = 0; i < depth_; i += n) {
    for (n = 0; i + n < depth_ && path_[i + n].chosen == path_[i].chosen;) ++n;
    text += static_cast<char>('A' + path_[i].chosen) + std::to_string(n) + ' ';
  }
  return text;
}

bool Explorer::is_shared(const uint64_t* place, bool writes) {
  Touched& touched = touched_[place];
  const bool before = touched.shared();
  (writes ? touched.writers : touched.readers) |= 1u << current_;
  if (!before && touched.shared()) learnt_ = true;
  return touched.shared();
}

// Waits before an operation until the scheduler chooses this thread.
void Explorer::step() {
  Fiber& self = fibers_[current_];
  self.top = stack_top();
  if (_setjmp(self.at) == 0) _longjmp(scheduler_, 1);
}

[[gnu::noinline]] void Explorer::resume() {
  if (_setjmp(scheduler_) != 0) return;
  Fiber& fiber = fibers_[current_];
  if (fiber.begun) {  // what lies below the top is dead: cleared, so that it does not tell states apart
    char* const used = fiber.stack.get() + kStackBytes - kStackUsed;
    std::memset(used, 0, static_cast<size_t>(fiber.top - used));
    _longjmp(fiber.at, 1);
  }
  fiber.begun = true;
  std::memset(fiber.stack.get() + kStackBytes - kStackUsed, 0, kStackUsed);
  ucontext_t context = begin_;  // the registers of one moment: the scheduler's would tell states apart
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, &Explorer::enter, 0);
  setcontext(&context);
}

// What is cut is left where it is: the stacks hold nothing that has to be released.
void Explorer::enter() {
  running->step();
  Fiber& self = running->fibers_[running->current_];
  self.body();
  self.done = true;
  _longjmp(running->scheduler_, 1);
}

}  // namespace tally::model
