// From the configuration of envoyproxy/ratelimit to rules that match the same requests.
//
// Thread rule: pure.
//
// ratelimit walks down its tree greedily: where a value fits a descriptor and nothing below that fits, the request has no limit, though a
// less specific descriptor would have one. tallyd's Matcher turns back and finds it. So that requests are limited as before, each
// such way gets a rule that exempts: one for all requests with the same keys beyond the place where ratelimit finds nothing.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "envoy_yaml.h"

namespace tally::tool {

struct Converted {
  std::string text;             // a configuration
  std::vector<Problem> errors;  // it would be more than tallyd reads; then the text means nothing
  std::vector<Problem> notes;   // what could not be carried over, in order of place
};

// Requires a file without errors. `origin`: what it was read from, for a comment.
Converted convert_envoy(EnvoyFile file, const std::string& origin);

}  // namespace tally::tool
