// The configuration of envoyproxy/ratelimit, as its YAML says it.
//
// Thread rule: pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace tally::tool {

struct EnvoyLimit {
  std::string unit;       // in lower case: "second" to "year"; "": unlimited
  uint32_t requests = 0;  // in a unit
  bool unlimited = false;
  std::string name;
};

// An entry of a request's descriptor, and what may follow it.
struct EnvoyDescriptor {
  int line = 0, column = 0;  // from 1
  std::string key;
  std::optional<std::string> value;  // "...*": all that begin so; nullopt: any
  std::optional<EnvoyLimit> limit;
  bool shadow = false;
  std::vector<EnvoyDescriptor> descriptors;
};

struct EnvoyFile {
  std::string domain;
  std::vector<EnvoyDescriptor> descriptors;
  std::vector<Problem> errors;  // with any, the rest means nothing
  std::vector<Problem> notes;   // what has no like here
};

// Total over any bytes. All errors at once, but for those of YAML itself.
EnvoyFile read_envoy(const std::string& text);

}  // namespace tally::tool
