#include "sim/shrink.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/hash.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kDice = 6;  // tried with each reduction, the one that failed last among them

Duration whole_ms(Duration at) { return milliseconds((nanos(at) + 999'999) / 1'000'000); }

// What is known to fail so far, and what it takes to find less.
class Shrinker {
 public:
  Shrinker(const ClusterPlan& plan, const Fails& fails, uint64_t runs_most)
      : plan_(plan), fails_(fails), left_(runs_most), cut_(whole(plan)) {}

  bool try_cut(Cut cut) {
    for (uint64_t i = 0; i <= kDice && left_ > 0; ++i) {
      --left_;
      cut.dice = i == 0 ? cut_.dice : i - 1;
      if (i > 0 && cut.dice == cut_.dice) continue;
      const auto at = fails_(reduced(plan_, cut));
      if (!at) continue;
      cut_ = cut;
      cut_.until = std::min(cut.until, std::max(whole_ms(*at), Duration(milliseconds(1))));
      return true;
    }
    return false;
  }

  void drop_late_steps() {
    Cut cut = cut_;
    std::erase_if(cut.steps, [&](size_t s) { return plan_.steps[s].at > cut.until; });
    if (cut.steps.size() < cut_.steps.size()) try_cut(cut);
  }

  // Zeller and Hildebrandt 2002, without its complements: parts of a half, of a quarter, ... of one step.
  bool drop_steps() {
    bool dropped = false;
    for (size_t part = std::max<size_t>(1, cut_.steps.size() / 2);; part /= 2) {
      for (size_t from = 0; from < cut_.steps.size();) {
        Cut cut = cut_;
        const auto first = cut.steps.begin() + static_cast<std::ptrdiff_t>(from);
        cut.steps.erase(first, first + static_cast<std::ptrdiff_t>(std::min(part, cut.steps.size() - from)));
        if (try_cut(cut))
          dropped = true;
        else
          from += part;
      }
      drop_late_steps();
      if (part == 1 || left_ == 0) return dropped;
    }
  }

  bool drop_nodes() {
    bool dropped = false;
    while (plan_.config.clones.empty() && plan_.config.guests == 0 && cut_.nodes > 2) {  // those have the numbers behind the last
      Cut cut = cut_;
      --cut.nodes;
      std::erase_if(cut.steps, [&](size_t s) { return plan_.steps[s].highest >= cut.nodes; });
      if (!try_cut(cut)) return dropped;
      dropped = true;
    }
    return dropped;
  }

  bool end_sooner() {
    Cut cut = cut_;
    cut.until = whole_ms(cut_.until / 2);
    if (cut.until >= cut_.until || !try_cut(cut)) return false;
    drop_late_steps();
    return true;
  }

  const Cut& cut() const { return cut_; }
  bool may_go_on() const { return left_ > 0; }

 private:
  const ClusterPlan& plan_;
  const Fails& fails_;
  uint64_t left_;
  Cut cut_;
};

}  // namespace

Cut whole(const ClusterPlan& plan) {
  Cut cut{{}, whole_ms(plan.length), plan.config.nodes, 0};
  cut.steps.resize(plan.steps.size());
  std::iota(cut.steps.begin(), cut.steps.end(), size_t{0});
  return cut;
}

ClusterPlan reduced(const ClusterPlan& plan, const Cut& cut) {
  ClusterPlan less = plan;
  less.steps.clear();
  for (const size_t step : cut.steps) less.steps.push_back(plan.steps[step]);
  less.length = cut.until;
  if (cut.dice != 0) less.config.seed = mix(plan.config.seed + cut.dice);
  if (cut.nodes == plan.config.nodes) return less;
  less.config.nodes = cut.nodes;
  less.config.clocks.resize(cut.nodes);
  std::erase_if(less.config.owners, [&](uint16_t owner) { return owner >= cut.nodes; });
  std::erase_if(less.config.own_rules, [&](const OwnRule& own) { return own.host >= cut.nodes; });
  return less;
}

std::optional<Cut> shrink(const ClusterPlan& plan, const Fails& fails, uint64_t runs_most) {
  Shrinker shrinker(plan, fails, runs_most);
  if (!shrinker.try_cut(whole(plan))) return std::nullopt;
  shrinker.drop_late_steps();
  for (bool dropped = true; dropped && shrinker.may_go_on();) {
    dropped = shrinker.end_sooner();
    dropped = shrinker.drop_steps() || dropped;
    dropped = shrinker.drop_nodes() || dropped;
  }
  return shrinker.cut();
}

std::string options_of(const Cut& cut) {
  std::string steps;
  for (size_t i = 0; i < cut.steps.size();) {
    size_t last = i;
    while (last + 1 < cut.steps.size() && cut.steps[last + 1] == cut.steps[last] + 1) ++last;
    steps += (steps.empty() ? "" : ",") + std::to_string(cut.steps[i]);
    if (last > i) steps += "-" + std::to_string(cut.steps[last]);
    i = last + 1;
  }
  return "--steps " + (steps.empty() ? "none" : steps) + " --until " +
         std::to_string(nanos(cut.until) / 1'000'000) + " --nodes " + std::to_string(cut.nodes) + " --dice " +
         std::to_string(cut.dice);
}

std::optional<std::vector<size_t>> parse_steps(std::string_view text) {
  std::vector<size_t> steps;
  if (text == "none") return steps;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&](size_t& n) {
    const auto [next, error] = std::from_chars(at, end, n);
    at = next;
    return error == std::errc();
  };
  for (;;) {
    size_t first = 0, last = 0;
    if (!number(first)) return std::nullopt;
    last = first;
    if (at != end && *at == '-' && (++at, !number(last))) return std::nullopt;
    if (last < first || last - first > 100'000 || (!steps.empty() && first <= steps.back()))
      return std::nullopt;
    for (size_t s = first; s <= last; ++s) steps.push_back(s);
    if (at == end) return steps;
    if (*at++ != ',') return std::nullopt;
  }
}

std::string schedule(const ClusterPlan& plan, const Cut& cut) {
  const ClusterPlan less = reduced(plan, cut);
  const FleetConfig& config = less.config;
  std::string text = about(less) + "\n";
  for (size_t host = 0; host < config.clocks.size(); ++host) {
    const HostClock& clock = config.clocks[host];
    if (clock.offset != Duration(0) || clock.drift_ppm != 0)
      text += "  clock of host " + std::to_string(host) + ": off by " + describe(clock.offset) +
              ", fast by " + std::to_string(clock.drift_ppm) + " ppm\n";
  }
  for (const auto& [rule, key] : less.keys) {
    const Group group = less.group(rule, key);
    text += "  group of " + rule + "/" + key + ":";
    for (size_t i = 0; i < group.size; ++i) text += " " + std::to_string(group.rank[i]);
    text += "\n";
  }
  for (const OwnRule& own : config.own_rules)
    text +=
        "  host " + std::to_string(own.host) + " has " + own.rule.name + " as " + describe(own.rule) + "\n";
  std::vector<size_t> in_time = cut.steps;
  std::ranges::stable_sort(in_time, {}, [&](size_t s) { return plan.steps[s].at; });
  for (const size_t step : in_time)
    text += "  " + describe(plan.steps[step].at) + "  #" + std::to_string(step) + "  " +
            plan.steps[step].what + "\n";
  return text + "  " + describe(cut.until) + "  the end\n";
}

}  // namespace tally::sim
