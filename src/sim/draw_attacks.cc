// Hostile datagrams in a random cluster: mostly old ones, as the others are refused at the door.
#include <algorithm>

#include "sim/attack.h"
#include "sim/cluster_plan.h"

namespace tally::sim {

using namespace std::chrono_literals;

void draw_attacks(Random& random, ClusterPlan& plan) {
  plan.config.keep_datagrams = true;
  for (uint64_t n = 1 + random.below(4); n > 0; --n) {
    AttackSeries series;
    series.attack = pick(
        random, {Attack::replay, Attack::replay, Attack::replay, Attack::earlier_lives, Attack::earlier_lives,
                 Attack::earlier_lives, Attack::damage, Attack::noise, Attack::stranger});
    series.from = up_to(random, plan.length);
    const Duration lasts = pick<Duration>(random, {100ms, 1s, plan.length});
    series.until = std::min(plan.length, series.from + lasts);
    series.every = pick<Duration>(random, {5ms, 20ms, 100ms, 500ms});
    series.each = static_cast<uint32_t>(pick<uint64_t>(random, {1, 5, 50}));
    series.seed = random.next();
    if (series.every < 20ms) series.each = std::min(series.each, 5u);
    plan.add_ahead(series.from, 0, describe(series), [series](Fleet& fleet) { arrange(fleet, series); });
  }
}

}  // namespace tally::sim
