#include "doors/http_requests.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/nearest.h"
#include "doors/command_table.h"
#include "doors/http_replies.h"

namespace tally::http {
namespace {

using resp::Fault;
using resp::Request;
using Kind = Request::Kind;

// One message on its way. A handler either fills in `request` or writes to `reply`.
struct Call {
  const Message& message;
  const Env& env;
  Request& request;
  Writer reply;
  std::string& key;
  std::string place{};  // of what is wrong, where there are several
};

struct Endpoint {
  std::string_view path;
  Method method;  // get: HEAD, too
  bool operates;
  void (*run)(Call&);
};

bool refuse(Call& call, Fault fault, int status, std::string_view detail, std::string_view allow = {}) {
  call.request.kind = Kind::answered;
  call.request.treatment = Treatment::limited;
  call.request.key = {};
  call.request.parts.clear();
  call.request.fault = fault;
  call.reply.problem(status, detail, allow);
  return false;
}

bool refuse_argument(Call& call, std::string_view detail) {
  return refuse(call, Fault::arguments, 400, call.place + std::string(detail));
}

// --- what is common to all ways to say it ---

bool use_rule(Call& call, std::string_view name, bool needs_limit) {
  const RuleSet& rules = *call.env.about.rules;
  const Rule* rule = rules.find(name);
  if (rule == nullptr)
    return refuse(call, Fault::unknown_rule, 404, call.place + resp::no_such_rule(rules, name));
  if (needs_limit && rule == &rules.inline_rule())
    return refuse(call, Fault::unknown_rule, 404,
                  "'(inline)' has no limit of its own; name a rule of the configuration");
  call.request.rule = rule;
  return true;
}

bool use_key(Call& call, std::string_view key) {
  const size_t most = call.env.about.key_bytes_max;
  if (key.empty() || key.size() > most)
    return refuse_argument(
        call, "a key must have 1 to " + std::to_string(most) + " bytes, got " + std::to_string(key.size()));
  call.request.key = key;
  apply_rule(call.request);
  return true;
}

void use_cost(Call& call, int64_t cost) {
  call.request.kind = cost == 0 ? Kind::peek : Kind::take;
  call.request.cost = cost == 0 ? 1 : static_cast<uint32_t>(std::min<int64_t>(cost, UINT32_MAX));
}

// --- queries ---

struct Query {
  std::optional<std::string_view> rule, key, cost, deny, n;  // as sent
};

std::string known_of(std::span<const std::string_view> known, std::string_view word) {
  const std::string_view near = nearest_of(word, known);
  if (!near.empty()) return "; did you mean " + resp::quoted(near) + "?";
  std::string list = known.empty() ? "; there is none" : "; there are ";
  for (size_t i = 0; i < known.size(); ++i)
    list.append(i == 0 ? "" : i + 1 == known.size() ? " and " : ", ").append(known[i]);
  return list;
}

// `names`: of the parameters that the endpoint has.
bool read_query(Call& call, std::initializer_list<std::string_view> names, Query& query) {
  const auto value_of = [&](std::string_view name) -> std::optional<std::string_view>& {
    return name == "rule"   ? query.rule
           : name == "key"  ? query.key
           : name == "cost" ? query.cost
           : name == "deny" ? query.deny
                            : query.n;
  };
  for (std::string_view rest = call.message.query; !rest.empty();) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    if (std::ranges::find(names, name) == names.end())
      return refuse_argument(call, "unknown parameter " + resp::quoted(name) + known_of(names, name));
    std::optional<std::string_view>& value = value_of(name);
    if (value.has_value()) return refuse_argument(call, "there are two parameters " + resp::quoted(name));
    value = pair.substr(std::min(equals + 1, pair.size()));
  }
  return true;
}

// What it stands for: itself, or what was decoded into `scratch`.
std::optional<std::string_view> decoded(Call& call, std::string_view value, std::string& scratch) {
  if (value.find_first_of("%+") == std::string_view::npos) return value;
  scratch.clear();
  if (decode(value, scratch)) return scratch;
  refuse_argument(call,
                  "in the query a '%' must be followed by two hexadecimal digits; the sign itself is %25");
  return std::nullopt;
}

// The query goes before the headers: it is the operator's, where a proxy may pass on any header of a
// stranger's. So one that is there and empty stands for no header.
bool read_rule_and_key(Call& call, const Query& query, bool needs_limit) {
  const auto rule = query.rule ? decoded(call, *query.rule, call.key) : call.message.rule;
  if (!rule) return false;
  if (rule->empty())
    return refuse_argument(call,
                           "rule is missing or empty: a parameter of the query, or the header X-Tally-Rule");
  if (!use_rule(call, *rule, needs_limit)) return false;
  const auto key = query.key ? decoded(call, *query.key, call.key) : call.message.key;
  return key && use_key(call, *key);
}

// GET /v1/auth?rule=&key=[&cost=][&deny=429]
void run_auth(Call& call) {
  Query query;
  call.request.http.kind = Form::Kind::auth;
  if (!read_query(call, {"rule", "key", "cost", "deny"}, query) || !read_rule_and_key(call, query, true))
    return;
  int64_t cost = 1;
  if (query.cost && (!resp::parse_integer(*query.cost, cost) || cost < 0)) {
    refuse_argument(call, "cost must be a whole number, 0 or more, got " + resp::quoted(*query.cost));
    return;
  }
  if (query.deny && query.deny != "403" && query.deny != "429") {
    refuse_argument(call, "deny must be 403 or 429, got " + resp::quoted(*query.deny));
    return;
  }
  call.request.http.too_many = query.deny == "429";
  use_cost(call, cost);
}

void run_explain(Call& call) {
  Query query;
  if (read_query(call, {"rule", "key"}, query) && read_rule_and_key(call, query, false))
    call.request.kind = Kind::explain;
}

// GET /v1/top[?n=][&rule=]. A barrier, as metrics.
void run_top(Call& call) {
  Query query;
  int64_t n = resp::kTopRows;
  if (!read_query(call, {"n", "rule"}, query)) return;
  if (query.n && (!resp::parse_integer(*query.n, n) || n < 1 || n > resp::kTopRowsMax)) {
    refuse_argument(
        call, "n must be 1 to " + std::to_string(resp::kTopRowsMax) + ", got " + resp::quoted(*query.n));
    return;
  }
  if (query.rule) {
    const auto rule = decoded(call, *query.rule, call.key);
    if (!rule || !use_rule(call, *rule, false)) return;
  }
  call.request.kind = Kind::top;
  call.request.cost = static_cast<uint32_t>(n);
  call.request.barrier = true;
}

// --- bodies ---

using Json = nlohmann::json;

// The body: an object, or a list of such. Their fields are some of those named, none of them twice.
bool read_json(Call& call, std::span<const std::string_view> names, Json& body) {
  if (!call.message.has_length)
    return refuse(call, Fault::arguments, 411, "there must be a body, with its Content-Length");
  std::string wrong;
  std::vector<std::string> keys;  // of the object that is being read
  int level = 1;                  // of what is nested how deeply
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::array_start && depth == 0) level = 2;
    if (event == Json::parse_event_t::object_start && depth == level - 1) keys.clear();
    if (event != Json::parse_event_t::key || depth != level || !wrong.empty()) return true;
    const auto key = parsed.get<std::string>();
    if (std::ranges::find(names, key) == names.end())
      wrong = "unknown field " + resp::quoted(key) + known_of(names, key);
    if (std::ranges::find(keys, key) != keys.end()) wrong = "there are two fields " + resp::quoted(key);
    keys.push_back(key);
    return true;
  };
  try {
    body = Json::parse(call.message.body, on_event);
  } catch (const Json::parse_error& error) {
    return refuse_argument(call, "the body is not JSON: see byte " + std::to_string(error.byte));
  } catch (const Json::exception&) {
    return refuse_argument(call, "the body has a number that is too large");
  }
  return wrong.empty() || refuse_argument(call, wrong);
}

bool check_object(Call& call, const Json& value) {
  return value.is_object() ||
         refuse_argument(call, std::string(call.place.empty() ? "the body " : "") +
                                   "must be a JSON object, such as {\"rule\": \"api\", \"key\": \"user:1\"}");
}

bool read_string(Call& call, const Json& object, std::string_view name, std::string& text) {
  const auto at = object.find(name);
  if (at == object.end()) return refuse_argument(call, std::string(name).append(" is missing"));
  if (!at->is_string()) return refuse_argument(call, std::string(name).append(" must be a string"));
  text = at->get_ref<const std::string&>();
  return true;
}

bool read_rule_and_key(Call& call, const Json& object, bool needs_limit) {
  std::string rule;
  return check_object(call, object) && read_string(call, object, "rule", rule) &&
         use_rule(call, rule, needs_limit) && read_string(call, object, "key", call.key) &&
         use_key(call, call.key);
}

bool read_cost(Call& call, const Json& object, int64_t& cost) {
  const auto at = object.find("cost");
  if (at == object.end()) return true;
  if (!at->is_number_integer() || (!at->is_number_unsigned() && at->get<int64_t>() < 0))
    return refuse_argument(call, "cost must be a whole number, 0 or more");
  cost = static_cast<int64_t>(std::min<uint64_t>(at->get<uint64_t>(), UINT32_MAX));
  return true;
}

// [{"rule", "key", "cost"}, ...]: all or nothing, as TALLY.TAKEALL.
void run_take_all(Call& call, const Json& list) {
  if (list.empty() || list.size() > resp::kPartsMax) {
    refuse_argument(call, "a list must have 1 to " + std::to_string(resp::kPartsMax) + " takes, got " +
                              std::to_string(list.size()));
    return;
  }
  Request& request = call.request;
  std::string keys;
  for (size_t i = 0; i < list.size(); ++i) {
    call.place = "[" + std::to_string(i) + "]: ";
    int64_t cost = 1;
    if (!read_rule_and_key(call, list[i], true) || !read_cost(call, list[i], cost)) return;
    request.parts.push_back({request.rule, call.key, static_cast<uint32_t>(cost)});
    keys += call.key;
  }
  call.key = std::move(keys);
  size_t at = 0;
  for (resp::Part& part : request.parts) {
    part.key = std::string_view(call.key).substr(at, part.key.size());
    at += part.key.size();
  }
  request.kind = Kind::take_all;
  request.http.kind = Form::Kind::all;
  request.treatment = Treatment::limited;  // each part has its own
  request.key = {};
}

// POST /v1/take {"rule", "key", "cost"}, or a list of these
void run_take(Call& call) {
  constexpr std::array<std::string_view, 3> kNames{"rule", "key", "cost"};
  Json body;
  int64_t cost = 1;
  if (!read_json(call, kNames, body)) return;
  if (body.is_array()) return run_take_all(call, body);
  if (read_rule_and_key(call, body, true) && read_cost(call, body, cost)) use_cost(call, cost);
}

// POST /v1/reset {"rule", "key"}
void run_reset(Call& call) {
  constexpr std::array<std::string_view, 2> kNames{"rule", "key"};
  Json body;
  if (!read_json(call, kNames, body) || !read_rule_and_key(call, body, false)) return;
  call.request.kind = Kind::reset;
  call.request.treatment = Treatment::limited;  // whatever it is, its count is forgotten
  call.request.barrier = true;
}

// --- the rest ---

void run_reload(Call& call) {
  call.request.kind = Kind::reload;
  call.request.barrier = true;  // what follows is decided by what was loaded
}

// A barrier, so that a connection asks for one at a time.
void run_metrics(Call& call) {
  call.request.kind = Kind::metrics;
  call.request.barrier = true;
}

void run_rules(Call& call) { call.reply.table(resp::describe_rules(*call.env.about.rules)); }
void run_peers(Call& call) { call.request.kind = Kind::peers; }
void run_stats(Call& call) { call.request.kind = Kind::stats; }

constexpr std::string_view kPlain = "text/plain; charset=utf-8";
void run_health(Call& call) { call.reply.text(200, kPlain, "ok\n"); }
void run_ready(Call& call) {
  call.env.ready ? call.reply.text(200, kPlain, "ready\n") : call.reply.text(503, kPlain, "not ready\n");
}
void run_page(Call& call) { call.reply.text(200, "text/html; charset=utf-8", call.env.page); }

constexpr auto kEndpoints = std::to_array<Endpoint>({
    {"/v1/auth", Method::get, false, run_auth},
    {"/v1/take", Method::post, false, run_take},
    {"/metrics", Method::get, false, run_metrics},
    {"/healthz", Method::get, false, run_health},
    {"/readyz", Method::get, false, run_ready},
    {"/", Method::get, false, run_page},
    {"/v1/explain", Method::get, false, run_explain},
    {"/v1/rules", Method::get, false, run_rules},
    {"/v1/peers", Method::get, false, run_peers},
    {"/v1/stats", Method::get, false, run_stats},
    {"/v1/top", Method::get, false, run_top},
    {"/v1/reset", Method::post, true, run_reset},
    {"/v1/reload", Method::post, true, run_reload},
});

void refuse_path(Call& call) {
  std::string detail = "there is no " + resp::quoted(call.message.path);
  Nearest nearest(call.message.path);
  for (const Endpoint& endpoint : kEndpoints) nearest.offer(endpoint.path);
  if (!nearest.best().empty()) {
    detail += "; did you mean " + resp::quoted(nearest.best()) + "?";
  } else {
    detail += "; there are";
    for (const Endpoint& endpoint : kEndpoints)
      detail.append(&endpoint == kEndpoints.data() ? " " : ", ").append(endpoint.path);
  }
  refuse(call, Fault::unknown_command, 404, detail);
}

}  // namespace

void read_request(const Message& message, const Env& env, Request& request, std::string& reply,
                  std::string& key) {
  request.begin(2);
  request.close = !message.keep_alive;
  request.http = {.kind = Form::Kind::json,
                  .head_only = message.method == Method::head,
                  .close = !message.keep_alive,
                  .says_kept = message.keep_alive && message.minor_0,
                  .too_many = false};
  Call call{message, env, request, Writer(reply, request.http, env.date), key};
  const auto* endpoint = std::ranges::find(kEndpoints, message.path, &Endpoint::path);
  if (endpoint == kEndpoints.end()) return refuse_path(call);
  const Method method = message.method == Method::head ? Method::get : message.method;
  if (method != endpoint->method) {
    const bool get = endpoint->method == Method::get;
    refuse(call, Fault::unknown_command, 405, get ? "GET or HEAD only" : "POST only",
           get ? "GET, HEAD" : "POST");
  } else if (endpoint->operates && !env.may_operate) {
    refuse(call, Fault::authentication, 403,
           "what changes the state is served on Unix sockets only; use one of listen.http, or tally");
  } else {
    endpoint->run(call);
  }
}

}  // namespace tally::http
