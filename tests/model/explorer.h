// Runs a few small threads in every order of their operations on words.
//
// Thread rule: one instance at a time, in one real thread. The model's threads are fibers.
//
// Depth first. Where an order can branch, the state is kept (stacks, registers, results; words by a log of
// what to undo), and taken up again for the next branch. A state that was met before is not gone into again.
// What a thread does must depend on words alone, and what it leaves behind must be in words or results.
//
// An operation on a word that no other thread writes, or that this thread writes and no other touches, is in
// no order with anything. Which words are shared is learnt on the way; when one more turns out to be, all
// begins again.
#pragma once

#include <ucontext.h>

#include <array>
#include <csetjmp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tally::model {

class Explorer {
 public:
  struct Outcome {
    std::string wrong;  // "" where no order breaks the check
    std::string
        order;  // the one that does: "A12 B3 A1": twelve steps of the first thread, three of the second, ...
    uint64_t states = 0;     // that were told apart
    uint64_t schedules = 0;  // that were played to the end
  };
  using Results = std::array<int64_t, 6>;

  // `check` runs after each order that is played to its end, and may use the words; "" means fine. All words
  // are as they were before when explore returns. An order is cut as soon as `enough` says so: some could go
  // on for ever.
  Outcome explore(std::vector<std::function<void()>> threads, const std::function<std::string()>& check,
                  const std::function<bool()>& enough = {});

  // The most times that a thread which could go on is made to wait; more than that is not explored.
  size_t preemptions_max = SIZE_MAX;
  Results results{};  // what the threads leave for the check; all 0 at the start of each order

 private:
  friend void point(const uint64_t* place, bool writes);
  friend void wrote(uint64_t* place, uint64_t before, uint64_t after);

  static constexpr size_t kThreadsMax = 4;
  static constexpr size_t kStackBytes = 128 * 1024;
  struct Fiber {
    std::function<void()> body;
    std::unique_ptr<char[]> stack;
    std::jmp_buf at;
    char* top = nullptr;  // of its stack, where it waits
    bool begun = false, done = false;
  };
  struct Kept {  // a fiber as it was
    std::vector<char> stack;
    std::jmp_buf at;
    char* top = nullptr;
    bool begun = false, done = false;
  };
  struct Branch {
    size_t chosen = 0;
    unsigned others = 0;  // bits of the threads not yet tried here
    std::array<Kept, kThreadsMax> fibers;
    Results results{};
    size_t preemptions = 0;       // before this choice
    size_t preempted = SIZE_MAX;  // the thread that goes on if it is chosen
    size_t undo = 0;
    uint64_t memory = 0;
  };
  struct Touched {
    unsigned readers = 0, writers = 0;  // bits of threads
    bool shared() const { return writers != 0 && ((readers | writers) & ((readers | writers) - 1)) != 0; }
  };
  enum class End { whole, cut, endless };

  void begin();
  End run(const std::function<bool()>& enough);
  bool next_branch();
  bool choose(unsigned able);
  void keep(Branch& branch) const;
  void take_up(const Branch& branch);
  void undo_to(size_t length);
  uint64_t state() const;
  std::string order() const;
  bool is_shared(const uint64_t* place, bool writes);
  void step();
  void resume();
  static void enter();

  std::vector<Fiber> fibers_;
  size_t current_ = kThreadsMax;  // none
  std::jmp_buf scheduler_;
  ucontext_t begin_{};
  std::vector<Branch> path_;
  size_t depth_ = 0;  // of path_ in use; the rest is kept for its memory
  size_t preemptions_ = 0;
  bool branched_ = false;  // current_ is the next branch's, chosen already
  std::unordered_set<uint64_t> seen_;
  std::unordered_map<const uint64_t*, Touched> touched_;
  bool learnt_ = false;  // that a word is shared
  uint64_t memory_ = 0;  // a hash of all words
  std::vector<std::pair<uint64_t*, uint64_t>> undo_;
};

}  // namespace tally::model
