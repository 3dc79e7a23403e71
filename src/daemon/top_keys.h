// What a worker counts by key: which are asked for most, of late, in bounded memory.
//
// Thread rule: one worker counts; entries() from any thread. Neither waits for the other for longer than the
// other needs: a reader holds the mutex while it copies, a worker while it adds one of its samples, and a
// sample that finds it held is left out.
//
// Spans of 10 s, counted from 0 on the monotonic clock, so that they are the same for all workers. There are
// two sketches, for the running span and the one before.
//
// Memory: 2 sketches (core/top_sketch.h), some 220 KB and 2,048 keys.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/time.h"
#include "core/sampler.h"
#include "core/top_sketch.h"

namespace tally {

class TopKeys {
 public:
  static constexpr Duration kSpan = std::chrono::seconds(10);
  static int64_t span_at(MonoTime now) { return nanos(now) / nanos(kSpan); }

  // What happened of a key.
  struct Event {
    uint16_t rule;  // its id
    std::string_view key;
    KeyHash hash;
    enum class Kind : uint8_t { admitted, limited, put_back } kind;
    uint64_t n = 1;  // so often
  };

  // Before events: adapts how many of them are counted.
  void tick(MonoTime now) { sampler_.tick(now); }
  // An event: whether count() is to be called for it.
  bool due() { return sampler_.due(); }
  void count(const Event& event, MonoTime now);
  void hold(uint32_t one_in) { sampler_.hold(one_in); }  // as Sampler's

  // What was counted in the span of `now` and the one before; the same key may be there twice.
  std::vector<TopSketch::Entry> entries(MonoTime now) const;

 private:
  struct Span {
    int64_t number = -2;
    TopSketch sketch;
  };

  Sampler sampler_{0};
  alignas(64) mutable std::mutex mutex_;  // of spans_
  std::array<Span, 2> spans_;             // by their number modulo 2
};

}  // namespace tally
