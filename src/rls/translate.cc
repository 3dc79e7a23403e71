#include "rls/translate.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/matcher.h"
#include "doors/rate_headers.h"
#include "rls/units.h"

namespace tally::rls {
namespace {

using Descriptor = envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
using Part = Question::Part;

std::string at(std::string_view field, int i) { return std::string(field) + "[" + std::to_string(i) + "]"; }

std::string wrong_number(std::string_view path, int most, int got) {
  return std::string(path) + ": must have 1 to " + std::to_string(most) + ", got " + std::to_string(got);
}

// What is wrong with the descriptor at `path`; "": nothing.
std::string wrong_with(const Descriptor& descriptor, const std::string& path) {
  if (descriptor.entries().empty() || descriptor.entries_size() > kEntriesMax)
    return wrong_number(path + ".entries", kEntriesMax, descriptor.entries_size());
  for (int i = 0; i < descriptor.entries_size(); ++i)
    if (descriptor.entries(i).key().empty()) return path + "." + at("entries", i) + ".key: must not be empty";
  if (descriptor.has_limit() && unit_of_number(descriptor.limit().unit()) == nullptr)
    return path + ".limit.unit: must be 1 (SECOND) to 6 (YEAR), got " +
           std::to_string(descriptor.limit().unit());
  return "";
}

std::string wrong_with(const Request& request) {
  if (request.domain().empty()) return "domain: must not be empty";
  if (request.descriptors().empty() || request.descriptors_size() > kDescriptorsMax)
    return wrong_number("descriptors", kDescriptorsMax, request.descriptors_size());
  for (int i = 0; i < request.descriptors_size(); ++i)
    if (std::string wrong = wrong_with(request.descriptors(i), at("descriptors", i)); !wrong.empty())
      return wrong;
  return "";
}

uint32_t cost_of(const Request& request, const Descriptor& descriptor) {
  if (descriptor.has_hits_addend())
    return static_cast<uint32_t>(std::min<uint64_t>(descriptor.hits_addend().value(), UINT32_MAX));
  return request.hits_addend() == 0 ? 1 : request.hits_addend();
}

void append_escaped(std::string& key, std::string_view text) {
  for (const char c : text) {
    if (c == '|' || c == '=' || c == '\\') key += '\\';
    key += c;
  }
}

// "domain|key=value|key=value|10/minute", with a backslash before each '|', '=' and backslash in a name, so that nothing in a request
// passes for the last part.
std::string inline_key(std::string_view domain, const Descriptor& descriptor, const Unit& unit, uint32_t number) {
  std::string key;
  append_escaped(key, domain);
  for (const auto& entry : descriptor.entries()) {
    key += '|';
    append_escaped(key, entry.key());
    key += '=';
    append_escaped(key, entry.value());
  }
  key += '|' + std::to_string(number) + '/';
  key += unit.name;
  return key;
}

class Translator {
 public:
  Translator(const Request& request, std::shared_ptr<const RuleSet> rules)
      : request_(request), rules_(*rules) {
    out_.question = std::make_unique<Question>();
    out_.question->rules = std::move(rules);
  }

  Translated run() {
    for (const Descriptor& descriptor : request_.descriptors()) {
      Asked asked;
      asked.begin = parts().size();
      match(descriptor);
      if (descriptor.has_limit())
        take_own_limit(descriptor, asked);
      else
        for (const Matcher::Matched& matched : matched_) add(descriptor, matched);
      asked.end = parts().size();
      out_.descriptors.push_back(asked);
    }
    return std::move(out_);
  }

 private:
  std::vector<Part>& parts() { return out_.question->parts; }

  // In a fleet the owner of a key grants by its rule's number, unless keys may differ in it: then by what is reported.
  bool may_have_own_numbers(const Rule& rule) const { return rules_.share().size <= 1 || rule.overrides != nullptr; }

  void match(const Descriptor& descriptor) {
    entries_.clear();
    for (const auto& entry : descriptor.entries()) entries_.push_back({entry.key(), entry.value()});
    matched_.clear();
    rules_.matcher().match(request_.domain(), entries_, matched_);
  }

  // By what the rule has for the key.
  Part& add(const Descriptor& descriptor, const Matcher::Matched& matched) {
    return out_.question->add(*matched.rule, matched.key, cost_of(request_, descriptor));
  }

  Part& add_inline(const Descriptor& descriptor, const Unit& unit, uint32_t number) {
    Part& part = parts().emplace_back();
    part.rule = &rules_.inline_rule();
    const uint32_t held = std::max<uint32_t>(number, 1);
    part.limit = inline_limit(*part.rule, rules_.share(), held, held, unit.length);
    part.key = inline_key(request_.domain(), descriptor, unit, number);
    part.cost = cost_of(request_, descriptor);
    return part;
  }

  // Instead of a limit that comes with the request the rule may block the key, or exempt it.
  void add_gates(const Matcher::Matched& matched, size_t place) {
    const auto add_gate = [&](const Rule& rule) {
      if (!rule.shadow) out_.question->gates.push_back({&rule, matched.key, place});
    };
    add_gate(*matched.rule);
    for (const Rule* other : matched.rule->also) add_gate(*other);
  }

  void take_own_limit(const Descriptor& descriptor, Asked& asked) {
    const Unit& unit = *unit_of_number(descriptor.limit().unit());
    asked.unit = unit.number;
    const uint32_t number = std::min<uint32_t>(descriptor.limit().requests_per_unit(), kLimitMax);
    asked.closed = number == 0;
    const auto close = [&](Part& part) {
      if (asked.closed && part.treatment == Treatment::limited) part.treatment = Treatment::blocked;
    };
    for (const Matcher::Matched& matched : matched_) {
      if (!is_window_of(unit, matched.rule->limit.window) || !may_have_own_numbers(*matched.rule)) {
        add_gates(matched, asked.begin);
        continue;
      }
      Part& part = add(descriptor, matched);
      part.limit = with_number(*matched.rule, rules_.share(), std::max<uint32_t>(number, 1));
      close(part);
    }
    if (parts().size() == asked.begin) close(add_inline(descriptor, unit, number));
  }

  const Request& request_;
  const RuleSet& rules_;
  Translated out_;
  std::vector<DescriptorEntry> entries_;   // of the descriptor at hand
  std::vector<Matcher::Matched> matched_;  // likewise
};

// What is told about a part.
struct Told {
  const Rule* rule = nullptr;
  Limit limit;
  int unit = 0;
  Answer answer;
  resp::Reason reason = resp::Reason::admitted;

  bool limited() const { return resp::is_limited(reason); }
  bool can_limit() const { return !rule->shadow && reason != resp::Reason::exempt; }
};

bool more_restrictive(const Told& a, const Told& b) {
  if (a.limited() != b.limited()) return a.limited();
  if (a.can_limit() != b.can_limit()) return a.can_limit();
  if (a.answer.remaining != b.answer.remaining) return a.answer.remaining < b.answer.remaining;
  return a.answer.reset_after > b.answer.reset_after;
}

Told tell(const Part& part, const Asked& asked) {
  Told told{part.rule, part.limit, asked.unit, part.answer, part.reason};
  if (told.unit == 0)
    told.unit = number_of_window(part.limit.algorithm == Algorithm::token_bucket ? part.limit.burst_span()
                                                                                 : part.limit.window);
  if (!asked.closed || told.reason != resp::Reason::blocked) return told;
  told.limit.limit = told.answer.limit = told.answer.remaining = 0;
  told.answer.retry_after = Duration(-1);
  told.reason = resp::Reason::over_limit;
  return told;
}

void fill_status(const Told& told, Response::DescriptorStatus& status) {
  constexpr int64_t kSecond = 1'000'000'000;
  auto& limit = *status.mutable_current_limit();
  limit.set_name(told.rule->name);
  limit.set_requests_per_unit(told.limit.limit);
  limit.set_unit(static_cast<Response::RateLimit::Unit>(told.unit));
  status.set_limit_remaining(told.answer.remaining);
  const int64_t reset = std::max<int64_t>(nanos(told.answer.reset_after), 0);
  status.mutable_duration_until_reset()->set_seconds(reset / kSecond);
  status.mutable_duration_until_reset()->set_nanos(static_cast<int32_t>(reset % kSecond));
}

}  // namespace

Result<Translated> translate(const Request& request, std::shared_ptr<const RuleSet> rules) {
  if (std::string wrong = wrong_with(request); !wrong.empty()) return Failure{std::move(wrong)};
  return Translator(request, std::move(rules)).run();
}

void fill_response(const Question& question, const std::vector<Asked>& descriptors, Response& response) {
  std::optional<Told> worst;
  for (const Asked& asked : descriptors) {
    std::optional<Told> told;
    for (size_t i = asked.begin; i < asked.end; ++i)
      if (Told other = tell(question.parts[i], asked); !told || more_restrictive(other, *told)) told = other;
    Response::DescriptorStatus& status = *response.add_statuses();
    status.set_code(told && told->limited() ? Response::OVER_LIMIT : Response::OK);
    if (!told) continue;
    fill_status(*told, status);
    if (!worst || more_restrictive(*told, *worst)) worst = told;
  }
  response.set_overall_code(worst && worst->limited() ? Response::OVER_LIMIT : Response::OK);
  if (!worst) return;
  for (Header& header : rate_headers(worst->rule->name, worst->limit, worst->answer, worst->reason)) {
    auto& added = *response.add_response_headers_to_add();
    added.set_key(std::move(header.name));
    added.set_value(std::move(header.value));
  }
}

}  // namespace tally::rls
