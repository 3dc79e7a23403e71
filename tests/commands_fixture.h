// What the tests of commands and replies share: rules, a client, whole replies.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/overrides.h"
#include "doors/commands.h"

namespace tally::test {

using namespace tally::resp;
using namespace std::chrono_literals;

using Kind = Request::Kind;
using Words = std::vector<std::string>;

inline Rule window_rule(std::string name, uint32_t limit, Duration window, uint32_t ppm) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.limit = limit;
  rule.limit.window = window;
  rule.max_overcount.ppm = ppm;
  return rule;
}

inline RuleSet make_rules() {
  std::vector<Rule> rules{window_rule("api", 1000, 1min, 50'000), window_rule("login", 5, 15min, 0)};
  rules[1].on_isolation = OnIsolation::closed;
  Rule feed;
  feed.name = "feed";
  feed.limit.algorithm = Algorithm::token_bucket;
  feed.limit.limit = 100;
  feed.limit.emission = 20ms;
  feed.rate_count = 50;
  feed.rate_period = 1s;
  feed.max_overcount.unbounded = true;
  feed.shadow = true;
  rules.push_back(feed);
  Rule inline_rule;
  inline_rule.name = kInlineRule;
  return RuleSet(std::move(rules), inline_rule, Share{0, 3}, kPublicIdKey);
}

// One rule, "plans", of 10 a minute; "vip" has 1000, what begins with "free" is exempt, and 10.0.0.0/8 is blocked.
inline RuleSet make_rules_with_overrides() {
  Rule plans = window_rule("plans", 10, 1min, 0);
  const auto overrides = std::make_shared<Overrides>();
  Override vip;
  vip.limit = plans.limit;
  vip.limit.limit = 1000;
  overrides->add("vip", vip);
  overrides->add("free*", {Treatment::exempt, {}, 0, {}});
  overrides->add("10.0.0.0/8", {Treatment::blocked, {}, 0, {}});
  plans.overrides = overrides;
  return RuleSet({plans}, Rule{}, Share{0, 3}, kPublicIdKey);
}

// A client's side of one connection, with what the worker would hold for it.
struct Client {
  RuleSet rules = make_rules();
  Connection connection{.id = 7, .version = 2, .name = {}, .library = {}, .library_version = {}};
  Env env;
  Request request;
  std::string reply;
  Words words;  // the request's views point into these

  Client() {
    env.rules = &rules;
    env.key_bytes_max = 32;
    env.version = "1.2.3";
    env.node = "edge-1";
    env.now = WallTime(1'700'000'000s + 123'456'789ns);
    env.uptime = 90'061s;
    env.connections = 2;
    env.connections_max = 10'000;
  }

  // The reply, or "" where the request waits for somebody to decide.
  std::string ask(Words args) {
    words = std::move(args);
    const std::vector<std::string_view> views(words.begin(), words.end());
    reply.clear();
    read_command(views, connection, env, request, reply);
    return reply;
  }
};

inline std::string error(std::string_view text) { return std::string("-").append(text).append("\r\n"); }
inline std::string bulk(std::string_view text) {
  std::string out;
  Writer(out).bulk(text);
  return out;
}

// The length of the one whole reply at the beginning of `text`, npos where there is none.
inline size_t reply_size(std::string_view text, int depth = 0) {
  const size_t line = text.find("\r\n");
  if (line == std::string_view::npos || line == 0 || depth > 8) return std::string_view::npos;
  size_t at = line + 2;
  int64_t n = 0;
  const char kind = text[0];
  if (std::string_view("+-").find(kind) != std::string_view::npos) return at;
  if (kind == '_') return line == 1 ? at : std::string_view::npos;
  if (kind == '#') return line == 2 ? at : std::string_view::npos;
  if (kind == ',') return line > 1 ? at : std::string_view::npos;
  if (!parse_integer(text.substr(1, line - 1), n)) return std::string_view::npos;
  if (kind == ':') return at;
  if (kind == '$') {
    if (n == -1) return at;
    const size_t end = at + static_cast<size_t>(n);
    return n >= 0 && text.size() >= end + 2 && text.substr(end, 2) == "\r\n" ? end + 2
                                                                             : std::string_view::npos;
  }
  if (kind != '*' && kind != '%') return std::string_view::npos;
  for (int64_t items = kind == '%' ? 2 * n : n; items > 0; --items) {
    const size_t size = reply_size(text.substr(at), depth + 1);
    if (size == std::string_view::npos) return size;
    at += size;
  }
  return at;
}

inline Answer answer_of(Verdict verdict, uint32_t limit, uint32_t remaining, Duration retry_after,
                        Duration reset_after) {
  return {verdict, limit, remaining, retry_after, reset_after};
}

inline std::string throttle_text(const Answer& answer) {
  std::string out;
  Writer writer(out);
  write_throttle(writer, answer);
  return out;
}

inline std::string six_text(const Answer& answer, Reason reason) {
  std::string out;
  Writer writer(out);
  write_six(writer, answer, reason);
  return out;
}

inline const std::string kOutOfRange = "ERR value is not an integer or out of range: ";
}  // namespace tally::test
