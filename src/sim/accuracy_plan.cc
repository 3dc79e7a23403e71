#include "sim/accuracy_plan.h"

#include <algorithm>
#include <cstdio>

#include "base/random.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr double kUnder = 0.92, kOver = 3;  // loads
constexpr uint32_t kPercent = 10'000;       // of an overcount, in millionths

template <typename Change>
void add(std::vector<AccuracySetting>& to, std::string name, Change change) {
  for (const double load : {kUnder, kOver}) {
    AccuracySetting s;
    s.name = name;
    s.load = load;
    change(s);
    to.push_back(s);
  }
}

std::string ms(Duration d) {
  char text[40];
  std::snprintf(text, sizeof text, "%g ms", static_cast<double>(nanos(d)) / 1e6);
  return text;
}

std::string overcount_name(Overcount e) {
  if (e.unbounded) return "unbounded";
  return std::to_string(e.ppm / kPercent) + " %";
}

std::string_view algorithm_name(Algorithm algorithm) {
  return algorithm == Algorithm::token_bucket   ? "token bucket"
         : algorithm == Algorithm::fixed_window ? "fixed window"
                                                : "sliding window";
}

// As many windows as it takes to see a few hundred requests, and not too many.
uint32_t windows_for(uint32_t limit) { return std::clamp<uint32_t>(3000 / limit, 2, 60); }

std::vector<AccuracySetting> base_settings() {
  std::vector<AccuracySetting> out;
  for (const double load : {0.5, kUnder, 1.0, 1.5, kOver}) {
    AccuracySetting s;
    s.name = "base";
    s.load = load;
    out.push_back(s);
  }
  return out;
}

std::vector<AccuracySetting> fleet_settings() {
  std::vector<AccuracySetting> out;
  for (const uint16_t nodes : std::initializer_list<uint16_t>{2, 5, 10, 20, 50, 300})
    add(out, std::to_string(nodes) + " nodes", [&](AccuracySetting& s) {
      s.nodes = nodes;
      if (nodes > 50) s.windows = 2;
    });
  return out;
}

std::vector<AccuracySetting> round_trip_settings() {
  std::vector<AccuracySetting> out;
  for (const bool near : {true, false})
    for (const Duration round_trip : {500us, 5000us, 60'000us, 100'000us}) {
      if (near && round_trip == AccuracySetting::kNear) continue;
      add(out,
          ms(round_trip) + (round_trip == AccuracySetting::kNear ? ""
                            : near                       ? ", group near"
                                                         : ", group as far"),
          [&](AccuracySetting& s) {
            s.round_trip = round_trip;
            s.group_near = near;
          });
    }
  return out;
}

std::vector<AccuracySetting> loss_settings() {
  std::vector<AccuracySetting> out;
  for (const int percent : {0, 5, 30})
    for (const Duration round_trip : {500us, 100'000us})
      add(out, std::to_string(percent) + " % lost, " + ms(round_trip), [&](AccuracySetting& s) {
        s.loss = percent / 100.0;
        s.round_trip = round_trip;
        s.group_near = true;
      });
  return out;
}

std::vector<AccuracySetting> overcount_settings() {
  std::vector<AccuracySetting> out;
  for (const Overcount e :
       {Overcount{0, false}, Overcount{1 * kPercent, false}, Overcount{5 * kPercent, false},
        Overcount{10 * kPercent, false}, Overcount{0, true}})
    add(out, "e " + overcount_name(e), [&](AccuracySetting& s) { s.overcount = e; });
  return out;
}

std::vector<AccuracySetting> limit_settings() {
  std::vector<AccuracySetting> out;
  for (const uint32_t limit : {5u, 10u, 100u, 1'000u, 100'000u})
    add(out, "L = " + std::to_string(limit), [&](AccuracySetting& s) {
      s.limit = limit;
      s.windows = windows_for(limit);
    });
  return out;
}

std::vector<AccuracySetting> wait_settings() {
  std::vector<AccuracySetting> out;
  for (const uint32_t limit : {5u, 100u, 1'000u})
    for (const Algorithm algorithm : {Algorithm::sliding_window, Algorithm::token_bucket})
      add(out, "L = " + std::to_string(limit) + ", " + std::string(algorithm_name(algorithm)),
          [&](AccuracySetting& s) {
            s.algorithm = algorithm;
            s.wait = 20ms;
            s.limit = limit;
            s.windows = windows_for(limit);
          });
  add(out, "50 nodes", [](AccuracySetting& s) {
    s.nodes = 50;
    s.wait = 20ms;
  });
  return out;
}

std::vector<AccuracySetting> window_settings() {
  std::vector<AccuracySetting> out;
  for (const Algorithm algorithm : {Algorithm::sliding_window, Algorithm::fixed_window}) {
    const std::string name(algorithm_name(algorithm));
    add(out, name + " of 1 s", [&](AccuracySetting& s) {
      s.algorithm = algorithm;
      s.window = 1s;
      s.windows = 20;
    });
    add(out, name + " of 60 s", [&](AccuracySetting& s) { s.algorithm = algorithm; });
    add(out, name + " of a day", [&](AccuracySetting& s) {
      s.algorithm = algorithm;
      s.window = 24h;
      s.windows = 2;
      s.pace = 30s;
      s.across = true;
    });
  }
  return out;
}

std::vector<AccuracySetting> algorithm_settings() {
  std::vector<AccuracySetting> out;
  for (const Algorithm algorithm :
       {Algorithm::sliding_window, Algorithm::fixed_window, Algorithm::token_bucket})
    for (const Duration round_trip : {500us, 60'000us})
      add(out, std::string(algorithm_name(algorithm)) + ", " + ms(round_trip), [&](AccuracySetting& s) {
        s.algorithm = algorithm;
        s.round_trip = round_trip;
        s.group_near = true;
      });
  return out;
}

std::vector<AccuracySetting> shape_settings() {
  std::vector<AccuracySetting> out;
  for (const Shape shape : {Shape::even, Shape::two_of_ten, Shape::one_node, Shape::zipf, Shape::moving})
    add(out, std::string(shape_name(shape)), [&](AccuracySetting& s) { s.shape = shape; });
  AccuracySetting step;
  step.name = "step from 10 % to 300 %";
  step.shape = Shape::step;
  step.load = 1;
  step.windows = 4;
  out.push_back(step);
  return out;
}

std::vector<AccuracySetting> attack_settings() {
  std::vector<AccuracySetting> out;
  for (const auto& [nodes, e] :
       {std::pair{50, 5 * kPercent}, std::pair{300, 5 * kPercent}, std::pair{300, 100 * kPercent}}) {
    AccuracySetting s;
    s.name = std::to_string(nodes) + " nodes, e " + std::to_string(e / kPercent) + " %";
    s.nodes = static_cast<uint16_t>(nodes);
    s.overcount.ppm = e;
    s.shape = Shape::flood;
    s.load = 100;
    s.windows = 1;
    out.push_back(s);
  }
  return out;
}

}  // namespace

std::vector<Section> accuracy_sections() {
  return {
      {"The base", "", base_settings()},
      {"Fleets", "", fleet_settings()},
      {"Round trips", "Near: links among the three of the key's group keep 0.5 ms.", round_trip_settings()},
      {"Loss", "Of datagrams, on every link. At 100 ms the group is near.", loss_settings()},
      {"The overcount allowed", "", overcount_settings()},
      {"Limits", "Small limits are measured over more windows, the largest over two.", limit_settings()},
      {"Waiting",
       "As above, but a request that finds too little may wait 20 ms for a grant, as it may by default.",
       wait_settings()},
      {"Windows",
       "Of a day only the minute around midnight is simulated: the traffic of the whole day before comes in "
       "the last 30 s, "
       "that of the day after in the first 30 s.",
       window_settings()},
      {"Algorithms", "The bucket: burst 1,000, and 1,000 in 60 s. At 60 ms the group is near.",
       algorithm_settings()},
      {"Shapes of traffic",
       "Even; a fifth of the nodes; one node; node n with 1/n of the first; all at one node, another one "
       "every 3 s; a step "
       "after two of four windows.",
       shape_settings()},
      {"The attack",
       "100,000 requests for one key at all nodes within a window, among 100,000 keys that are seen once; "
       "each node has room "
       "for 1,000 keys.",
       attack_settings()},
  };
}

std::vector<AccuracySetting> random_settings(uint64_t seed, size_t n) {
  Random random(seed);
  const auto pick = [&](auto... values) {
    const std::common_type_t<decltype(values)...> from[] = {values...};
    return from[random.below(sizeof...(values))];
  };
  std::vector<AccuracySetting> out;
  for (size_t i = 0; i < n; ++i) {
    AccuracySetting s;
    s.name = "random " + std::to_string(i + 1);
    s.nodes = static_cast<uint16_t>(pick(2, 3, 5, 10, 20, 50));
    s.algorithm = pick(Algorithm::sliding_window, Algorithm::fixed_window, Algorithm::token_bucket);
    s.limit = static_cast<uint32_t>(pick(5, 10, 60, 100, 1'000, 10'000));
    s.window = pick(Duration(1s), Duration(10s), Duration(60s));
    s.overcount = pick(Overcount{0, false}, Overcount{1 * kPercent, false}, Overcount{5 * kPercent, false},
                       Overcount{10 * kPercent, false}, Overcount{0, true});
    s.round_trip = pick(Duration(500us), Duration(5ms), Duration(30ms), Duration(60ms), Duration(100ms));
    s.group_near = random.chance(0.5);
    s.loss = pick(0.0, 0.0, 0.05, 0.3);
    s.shape = pick(Shape::even, Shape::two_of_ten, Shape::one_node, Shape::zipf, Shape::moving, Shape::step);
    s.load = pick(0.5, kUnder, 1.0, kOver);
    s.windows = windows_for(s.limit);
    out.push_back(s);
  }
  return out;
}

std::string describe(const AccuracySetting& s) {
  char numbers[160];
  std::snprintf(numbers, sizeof numbers, "%u nodes, L %u in %g s (%s), e %s, %s%s, %g %% lost, %s", s.nodes,
                s.limit, static_cast<double>(nanos(s.window)) / 1e9,
                std::string(algorithm_name(s.algorithm)).c_str(), overcount_name(s.overcount).c_str(),
                ms(s.round_trip).c_str(),
                s.round_trip == AccuracySetting::kNear ? ""
                : s.group_near                 ? " group near"
                                               : " group as far",
                s.loss * 100, std::string(shape_name(s.shape)).c_str());
  return numbers;
}

}  // namespace tally::sim
