// The descriptors that a rule matches.
#include "config/checks.h"
#include "config/json_tree.h"
#include "config/rule_fields.h"

namespace tally {
namespace {

using Kind = JsonNode::Kind;

// A string that is there and not empty; nullptr otherwise, which is reported.
const JsonNode* word(Fields& in, std::string_view name, std::string_view what) {
  const JsonNode* value = in.text(name, what);
  if (value == nullptr) {
    if (in.find(name) == nullptr) in.missing(name, "is missing; it is " + std::string(what));
  } else if (value->text.empty()) {
    in.wrong(*value, name, "must be " + std::string(what) + ", got \"\"");
  } else {
    return value;
  }
  return nullptr;
}

Match::Entry read_entry(Fields in) {
  Match::Entry entry;
  if (const JsonNode* key = word(in, "key", "the key of an entry, such as \"remote_address\"")) entry.key = key->text;
  if (const JsonNode* value = in.text("value", "a value, or the beginning of one and a '*'")) {
    entry.value = value->text;
    if (value->text.empty()) in.wrong(*value, "value", "must not be empty; leave it out for any value");
  }
  in.finish();
  return entry;
}

void read_entries(Fields& in, std::vector<Match::Entry>& entries) {
  constexpr std::string_view kName = "descriptors";
  const JsonNode* list = in.array(kName, "entries such as {\"key\": \"path\", \"value\": \"/login\"}");
  if (list == nullptr) {
    if (in.find(kName) == nullptr) in.missing(kName, "are missing: the entries of a descriptor, such as [{\"key\": \"remote_address\"}]");
    return;
  }
  if (list->items.empty()) in.wrong(*list, kName, "must have an entry, such as {\"key\": \"remote_address\"}");
  if (list->items.size() > kMatchEntriesMax) return in.wrong(*list, kName, too_many("entries", kMatchEntriesMax, list->items.size()));
  for (size_t i = 0; i < list->items.size(); ++i) {
    const JsonNode& node = list->items[i];
    const std::string path = item_path(in.path_of(kName), i);
    in.findings().place(node, path);
    if (node.kind == Kind::object)
      entries.push_back(read_entry(Fields(in.findings(), node, path)));
    else
      in.findings().error(node.offset, path, "must be an entry such as {\"key\": \"path\", \"value\": \"/login\"}, got " + describe(node));
  }
}

}  // namespace

void read_match(Fields& in, Match& match) {
  const JsonNode* value = in.find("match");
  if (value == nullptr) return;
  Fields fields = in.section("match");
  if (value->kind != Kind::object) return;
  if (const JsonNode* domain = word(fields, "domain", "the domain that requests come with, such as \"edge\"")) match.domain = domain->text;
  read_entries(fields, match.descriptors);
  fields.finish();
}

}  // namespace tally
