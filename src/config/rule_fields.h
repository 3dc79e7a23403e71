// What of a rule is read in other files than config.cc. Private to src/config.
//
// Thread rule: as fields.h.
#pragma once

#include "config/config.h"
#include "config/fields.h"
#include "core/rules.h"

namespace tally {

void read_rate(Fields& in, Rule& rule);  // "rate", into rate_count, rate_period and limit.emission

// "match".
void read_match(Fields& in, Match& match);
// "overrides" and "overrides_file". The rule's numbers must have been read.
void read_overrides(Fields& in, Rule& rule, const OtherFiles& files);

}  // namespace tally
