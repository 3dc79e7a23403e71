// Several takes of one request, all or nothing, that did not come over a worker's connection.
//
// Thread rule: one owner at a time: who asks, then the worker, then whoever `done` hands it to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/limiter.h"
#include "core/rules.h"
#include "doors/commands.h"

namespace tally {

struct Question {
  struct Part {
    const Rule* rule = nullptr;
    Limit limit;
    std::string key;
    uint32_t cost = 1;  // 0: a peek
    Answer answer;
    resp::Reason reason = resp::Reason::admitted;
  };
  std::shared_ptr<const RuleSet> rules;  // of the parts' rules
  std::vector<Part> parts;
  std::optional<size_t> refused;  // the part that refused; nullopt: all was taken
  std::function<void(std::unique_ptr<Question>)> done;  // on the worker's thread, exactly once
};

}  // namespace tally
