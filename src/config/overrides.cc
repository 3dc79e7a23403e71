// The overrides of a rule: in its own text, and in a file that it names.
#include "core/overrides.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "config/checks.h"
#include "config/json_tree.h"
#include "config/rule_fields.h"

namespace tally {
namespace {

using Kind = JsonNode::Kind;

bool is_bucket(const Rule& rule) { return rule.limit.algorithm == Algorithm::token_bucket; }

std::string form_of(const Rule& rule) {
  return is_bucket(rule) ? "{\"rate\": \"50/s\", \"burst\": 100}" : "a limit such as 50";
}

// What is missing is reported.
bool has(Fields& in, std::string_view name, std::string_view needed) {
  if (in.find(name) != nullptr) return true;
  in.missing(name, "is missing; it has " + std::string(needed));
  return false;
}

void read_limit(Fields in, const Rule& rule, Override& out) {
  Rule own;  // the numbers of the rule, with those of the override over them
  own.limit = rule.limit;
  if (!is_bucket(rule)) {
    if (has(in, "limit", "\"limit\"")) in.number("limit", own.limit.limit, kLimitRange);
  } else if (has(in, "rate", "\"rate\" and \"burst\"") && has(in, "burst", "\"rate\" and \"burst\"")) {
    read_rate(in, own);
    in.number("burst", own.limit.limit, kBurstRange);
    const Rate rate{own.rate_count, own.rate_period};
    if (rate.count != 0)
      if (const std::string wrong = wrong_burst(rate, own.limit.limit); !wrong.empty()) in.wrong(*in.find("burst"), "burst", wrong);
    out.rate_count = rate.count;
    out.rate_period = rate.period;
  }
  in.finish();
  out.limit = own.limit;
}

// What is wrong is reported.
Override read_override(Findings& findings, const JsonNode& value, const std::string& path, const Rule& rule) {
  Override out;
  if (value.kind == Kind::object) {
    read_limit(Fields(findings, value, path), rule, out);
    return out;
  }
  if (value.kind == Kind::string && value.text == "exempt") {
    out.treatment = Treatment::exempt;
  } else if (value.kind == Kind::string && value.text == "blocked") {
    out.treatment = Treatment::blocked;
  } else if (value.kind == Kind::integer && !is_bucket(rule)) {
    out.limit = rule.limit;
    if (value.negative || !kLimitRange.contains(value.magnitude))
      findings.error(value.offset, path, "must be a whole number, " + kLimitRange.text() + ", got " + describe(value));
    else
      out.limit.limit = static_cast<uint32_t>(value.magnitude);
  } else {
    findings.error(value.offset, path, "must be " + form_of(rule) + ", \"exempt\" or \"blocked\", got " + describe(value));
  }
  return out;
}

// Those of one object, into `overrides` and, in its order, into `written` (nullptr: nowhere).
void read_entries(Findings& findings, const JsonNode& object, const std::string& parent, const Rule& rule, Overrides& overrides,
                  std::vector<Overrides::Entry>* written) {
  for (const JsonMember& member : object.members) {
    if (member.value.kind == Kind::null) continue;  // as good as left out
    const std::string path = member_path(parent, member.key);
    const Override override = read_override(findings, member.value, path, rule);
    if (const std::string wrong = overrides.add(member.key, override); !wrong.empty()) findings.error(member.key_offset, path, wrong);
    if (const auto meant = Overrides::meant_by(member.key))
      findings.warning(member.key_offset, path,
                       "is taken for one whole key, not for a block of addresses; " +
                           (meant->empty() ? std::string("that is written as \"10.0.0.0/8\"") : "did you mean \"" + *meant + "\"?"));
    if (written != nullptr) written->push_back({member.key, override});
  }
}

void read_file(Fields& in, const JsonNode& field, const Rule& rule, const OtherFiles& files, Overrides& overrides) {
  const std::string path = files.beside(field.text);
  const auto text = files.read(path);
  if (!text) return in.wrong(field, "overrides_file", text.error());
  const JsonText json = read_json(text.value());
  Findings findings = in.findings().within(json, path);
  if (json.syntax) {
    findings.error(json.syntax->offset, json.syntax->path, json.syntax->message);
  } else {
    for (const JsonError& twice : json.duplicates) findings.error(twice.offset, twice.path, twice.message);
    if (json.root.kind == Kind::object)
      read_entries(findings, json.root, "", rule, overrides, nullptr);
    else
      findings.error(json.root.offset, "", "overrides are an object: { KEY: LIMIT, ... }, got " + describe(json.root));
  }
  in.findings().add_not_shown(findings.not_shown());
}

}  // namespace

void read_overrides(Fields& in, Rule& rule, const OtherFiles& files) {
  const JsonNode* object = in.find("overrides");
  const JsonNode* file = in.text("overrides_file", "the path of a file");
  if (object != nullptr && object->kind != Kind::object) {
    in.wrong(*object, "overrides", "must be an object such as {\"user:1\": " + (is_bucket(rule) ? form_of(rule) : "50") +
                                       ", \"10.0.0.0/8\": \"exempt\"}, got " + describe(*object));
    object = nullptr;
  }
  if (file != nullptr && file->text.empty()) {
    in.wrong(*file, "overrides_file", "must be the path of a file, got \"\"");
    file = nullptr;
  }
  if (object == nullptr && file == nullptr) return;
  const auto overrides = std::make_shared<Overrides>();
  std::vector<Overrides::Entry> written;
  if (object != nullptr) read_entries(in.findings(), *object, in.path_of("overrides"), rule, *overrides, &written);
  if (file != nullptr && files.read) read_file(in, *file, rule, files, *overrides);
  overrides->came_from(std::move(written), file != nullptr ? file->text : "");
  if (overrides->size() != 0 || file != nullptr) rule.overrides = overrides;
}

}  // namespace tally
