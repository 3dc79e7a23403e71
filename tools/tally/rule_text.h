// A rule as it is written on a command line: the fields of the configuration's `rules`, as words.
#pragma once

#include <string>

#include "base/fail.h"
#include "config/config.h"

namespace tally::tool {

// "limit=100 window=1m", "algorithm=token_bucket rate=50/s burst=100 max_overcount=0 wait=0". Checked by the
// very reader of configurations; the error is what it says, of all that is wrong.
Result<Rule> parse_rule_text(const std::string& text);

// The `cluster` section with this sync interval and the defaults that follow from it.
Result<Config::Cluster> parse_sync_interval(const std::string& text);

}  // namespace tally::tool
