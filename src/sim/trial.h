// One rule against one stream on a single node, request by request, and how to show that.
//
// Thread rule: pure; the same terms give the same decisions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"

namespace tally::sim {

struct TrialTerms {
  Rule rule;
  double per_s = 1;     // requests a second, above 0
  Duration length{0};   // the first comes at 0, none at `length` or later
  uint32_t cost = 1;    // of each
  bool random = false;  // at random times, the same number of them; else evenly
  uint64_t seed = 1;
};

struct Trial {
  Duration at{0};
  Answer answer;
  bool admitted() const { return answer.verdict == Verdict::admitted; }
};

uint64_t trial_count(const TrialTerms& terms);
// The stream begins at the start of a window.
std::vector<Trial> run_trial(const TrialTerms& terms);

std::string trial_line(const Trial& trial);  // "12.333s  limited   0 left, try again in 47.667s"
std::string trial_json(const Trial& trial);  // an object
std::string trial_summary(const TrialTerms& terms, std::span<const Trial> trials);
// A line for each of `rows` parts of the time: # for what was admitted, - for what was refused.
std::string trial_plot(const TrialTerms& terms, std::span<const Trial> trials, size_t rows);
std::string trial_svg(const TrialTerms& terms, std::span<const Trial> trials);

}  // namespace tally::sim
