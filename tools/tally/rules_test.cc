// tally rules test: which rules of a configuration a request would be taken from, without a daemon.
#include <algorithm>
#include <cstdio>
#include <cxxopts.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "configuration.h"
#include "core/matcher.h"
#include "core/overrides.h"
#include "daemon/log.h"
#include "planning.h"
#include "table.h"

namespace tally::tool {
namespace {

constexpr int kDone = 0, kUsage = 2;
constexpr const char* kExample = "'domain=edge remote_address=10.1.2.3 path=/login'";

struct Request {
  std::string domain;
  std::vector<std::pair<std::string, std::string>> entries;

  std::vector<DescriptorEntry> views() const {
    std::vector<DescriptorEntry> all;
    for (const auto& [key, value] : entries) all.push_back({key, value});
    return all;
  }
};

// A rule that the request fits, or that one of these takes along.
struct Found {
  const Rule* rule;     // of the configuration
  bool applies;         // or there is a more specific one
  const Rule* also_of;  // which takes it along; nullptr: it fits itself
  std::string key;
  std::string override;  // which of the rule's there is for the key; "": none
  Treatment treatment = Treatment::limited;
  std::string limit;
};

int usage(const std::string& message) {
  std::fprintf(stderr, "tally: %s\n", message.c_str());
  return kUsage;
}

// One argument is words; of several each is one word, which may have spaces.
Result<Request> request_of(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = arguments;
  if (arguments.size() == 1) {
    words.clear();
    std::istringstream text(arguments.front());
    for (std::string word; text >> word;) words.push_back(word);
  }
  Request request;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) return Failure{"expected words such as path=/login, got '" + word + "'"};
    const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
    if (&word == words.data() && name != "domain") return Failure{"the first word is the domain, such as domain=edge, got '" + word + "'"};
    if (&word == words.data())
      request.domain = value;
    else
      request.entries.emplace_back(name, value);
  }
  if (request.entries.empty()) return Failure{std::string("a request is a domain and at least one entry, such as ") + kExample};
  return request;
}

Found found_of(const Rule& rule, bool applies, std::string key, const Rule* also_of = nullptr) {
  Found found{&rule, applies, also_of, std::move(key), "", Treatment::limited, ""};
  Rule own = rule;
  if (rule.overrides != nullptr)
    if (const Override* override = rule.overrides->find(found.key)) {
      found.override = rule.overrides->key_of(found.key);
      found.treatment = override->treatment;
      own.limit = override->limit;
      own.rate_count = override->rate_count;
      own.rate_period = override->rate_period;
      own.process_hold = Duration(0);
    }
  found.limit = found.treatment == Treatment::exempt ? "exempt" : found.treatment == Treatment::blocked ? "blocked" : describe_limit(own);
  return found;
}

// Those that apply first.
std::vector<Found> find(const Config& config, const Request& request) {
  const RuleSet rules(config.rules, config.inline_rule, Share{}, kPublicIdKey);
  const std::vector<DescriptorEntry> entries = request.views();
  std::vector<Matcher::Matched> matched;
  rules.matcher().match(request.domain, entries, matched);
  std::vector<Found> all;
  std::vector<bool> applies(config.rules.size());
  for (const Matcher::Matched& one : matched) {
    const auto place = static_cast<size_t>(one.rule - rules.all().data());
    applies[place] = true;
    const Rule& rule = config.rules[place];
    all.push_back(found_of(rule, true, one.key));
    for (const std::string& name : rule.also_names) all.push_back(found_of(*std::ranges::find(config.rules, name, &Rule::name), true, one.key, &rule));
  }
  for (size_t i = 0; i < config.rules.size(); ++i)
    if (!applies[i] && fits(config.rules[i].match, request.domain, entries))
      all.push_back(found_of(config.rules[i], false, key_of(config.rules[i].match, entries)));
  return all;
}

void print_json(const Request& request, const std::vector<Found>& all) {
  std::string entries, rules;
  for (const auto& [key, value] : request.entries)
    entries += (entries.empty() ? "" : ",") + ("{\"key\":" + json_quoted(key)) + ",\"value\":" + json_quoted(value) + "}";
  for (const Found& one : all) {
    rules += (rules.empty() ? "" : ",") + ("{\"rule\":" + json_quoted(one.rule->name)) + ",\"applies\":" + (one.applies ? "true" : "false") +
             ",\"also_of\":" + (one.also_of == nullptr ? "null" : json_quoted(one.also_of->name)) +
             ",\"shadow\":" + (one.rule->shadow ? "true" : "false") + ",\"key\":" + json_quoted(one.key) +
             ",\"override\":" + (one.override.empty() ? "null" : json_quoted(one.override)) + ",\"limit\":" + json_quoted(one.limit) +
             ",\"match\":" + (one.also_of != nullptr ? "null" : json_quoted(text_of(one.rule->match))) + "}";
  }
  std::printf("{\"domain\":%s,\"entries\":[%s],\"rules\":[%s]}\n", json_quoted(request.domain).c_str(), entries.c_str(), rules.c_str());
}

void print_rules(const std::vector<Found>& all) {
  if (std::ranges::none_of(all, &Found::applies)) return void(std::printf("no rule matches: the request has no limit\n"));
  Cells rows{{"rule", "applies", "key", "limit", "override", "match"}};
  for (const Found& one : all) {
    std::string applies = !one.applies ? "no: less specific" : one.rule->shadow ? "in shadow" : "yes";
    if (one.also_of != nullptr) applies += " (also of " + one.also_of->name + ")";
    rows.push_back({one.rule->name, applies, one.key, one.limit, one.override.empty() ? "-" : one.override,
                    one.also_of != nullptr ? "-" : text_of(one.rule->match)});
  }
  print_aligned(rows);
}

}  // namespace

int run_rules_test_command(int argc, char** argv) {
  cxxopts::Options options("tally rules test", "Which rules of a configuration a request is taken from, and under which keys\n");
  options.custom_help("[-c FILE] [--json] 'domain=DOMAIN KEY=VALUE...'");
  options.add_options()                                                                                                             //
      ("c,config", "the configuration", cxxopts::value<std::string>()->default_value("/etc/tallyd.json"), "FILE")                   //
      ("json", "print JSON")                                                                                                        //
      ("h,help", "print this help");
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0) return std::printf("%s", options.help().c_str()), kDone;
  // As they are: a list of cxxopts would be cut at commas.
  if (args.unmatched().empty()) return usage(std::string("rules test: a request is missing, such as ") + kExample);
  const auto request = request_of(args.unmatched());
  if (!request) return usage(request.error());
  int code = kDone;
  const auto config = read_configuration(args["config"].as<std::string>(), false, code);
  if (!config) return code;
  const std::vector<Found> all = find(*config, request.value());
  if (args.count("json") != 0)
    print_json(request.value(), all);
  else
    print_rules(all);
  return kDone;
}

}  // namespace tally::tool
