// How exact a fleet is in one setting: the engine that ships in virtual time, and the other ways beside it,
// all asked the same.
//
// Thread rule: pure; a setting and a seed give one row.
//
// What was admissible is what one exact limiter admits of the same arrivals. The limited key is owned by the
// last node, so that traffic at few nodes (they are the first) is not at its owner. Traffic begins when the
// fleet's start is long over, and at the beginning of a window.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/rules.h"
#include "sim/baselines.h"
#include "sim/shapes.h"

namespace tally::sim {

struct AccuracySetting {
  std::string name;  // what is other than in the base; with the seed, it decides the randomness
  uint16_t nodes = 10;
  Algorithm algorithm = Algorithm::sliding_window;
  uint32_t limit = 1000;                       // a bucket: burst
  Duration window = std::chrono::seconds(60);  // a bucket: in which as much as the burst comes back
  Overcount overcount{50'000, false};
  Duration wait{0};
  Duration sync_interval = std::chrono::milliseconds(100);
  Duration round_trip = std::chrono::microseconds(500);
  bool group_near = false;  // links inside the key's group take kNear
  double loss = 0;
  size_t keys = 1000;  // that each node has room for

  Shape shape = Shape::even;
  double load = 0.92;       // offered in a window, as a part of the limit
  uint32_t windows = 3;     // that traffic lasts
  Duration pace{0};         // the time in which a window's traffic comes; 0: all of the window
  bool across = false;      // begin so that the first window ends after one pace
  bool kill_owner = false;  // in the middle of the traffic

  static constexpr Duration kNear = std::chrono::microseconds(500);  // round trip
  Duration traffic_length() const { return (pace == Duration(0) ? window : pace) * int64_t{windows}; }
};

// Parts, not per cent.
struct Accuracy {
  uint64_t total = 0;   // admitted
  double admitted = 0;  // of what was admissible; 1 where nothing was
  double worst = 0;     // overcount of the worst window, of the limit
  double mean = 0;      // over all windows that had traffic
  Duration answered_after{0};
};

struct Row {
  AccuracySetting setting;
  uint64_t offered = 0, admissible = 0;
  Accuracy fleet;
  Accuracy others[std::size(kBaselines)];
  double entries = 0;     // reports, grants, marks and acceptances, per window and node
  double bytes = 0;       // beyond those of the same fleet without traffic, per window and node
  double idle_bytes = 0;  // without traffic, per second and node
  double age_p99_ms =
      0;  // of what a node that was just asked knew of the fleet; 0: nobody ever heard anything
  uint64_t once_offered = 0, once_admitted = 0;  // of a flood: the keys that come once
  std::vector<std::string> violations;           // of the bound: none, or there is a bug
};

Row measure(const AccuracySetting& setting, uint64_t seed);

}  // namespace tally::sim
