#include "core/matcher.h"

namespace tally {
namespace {

bool leaves_choice(const Match::Entry& entry) { return !entry.value || Patterns::is_prefix(*entry.value); }

}  // namespace

Matcher::Matcher(const std::vector<Rule>& rules) : shapes_(1) {
  for (const Rule& rule : rules)
    if (!rule.match.descriptors.empty()) add(rule);
}

void Matcher::add(const Rule& rule) {
  uint32_t shape = 0;
  const auto walk = [&](const std::string& word) {
    const auto [at, fresh] = shapes_[shape].next.try_emplace(word, static_cast<uint32_t>(shapes_.size()));
    shape = at->second;
    if (fresh) shapes_.emplace_back();
  };
  walk(rule.match.domain);
  for (const Match::Entry& entry : rule.match.descriptors) walk(entry.key);
  uint32_t& root = rule.shadow ? shapes_[shape].shadow : shapes_[shape].live;
  if (root == kNone) {
    root = static_cast<uint32_t>(values_.size());
    values_.emplace_back();
  }
  uint32_t value = root;
  for (const Match::Entry& entry : rule.match.descriptors) value = next_of(value, entry);
  values_[value].rules.push_back(&rule);
}

uint32_t Matcher::next_of(uint32_t value, const Match::Entry& entry) {
  const auto fresh = static_cast<uint32_t>(values_.size());
  if (entry.value) {
    if (const uint32_t* known = values_[value].next.add(*entry.value, fresh)) return *known;
  } else {
    if (values_[value].any != kNone) return values_[value].any;
    values_[value].any = fresh;
  }
  values_.emplace_back();
  return fresh;
}

void Matcher::match(std::string_view domain, std::span<const DescriptorEntry> entries, std::vector<Matched>& into) const {
  if (entries.empty()) return;
  const Shape* shape = &shapes_.front();
  const auto walk = [&](std::string_view word) {
    const auto next = shape->next.find(word);
    shape = next != shape->next.end() ? &shapes_[next->second] : nullptr;
    return shape != nullptr;
  };
  if (!walk(domain)) return;
  for (const DescriptorEntry& entry : entries)
    if (!walk(entry.key)) return;
  if (shape->live != kNone) best(shape->live, entries, 0, into);
  if (shape->shadow != kNone) best(shape->shadow, entries, 0, into);
}

bool Matcher::best(uint32_t at, std::span<const DescriptorEntry> entries, size_t depth, std::vector<Matched>& into) const {
  const Value& here = values_[at];
  if (depth == entries.size()) {  // all of one depth: there is a rule
    for (const Rule* rule : here.rules) into.push_back({rule, key_of(rule->match, entries)});
    return true;
  }
  const std::string_view value = entries[depth].value;
  const auto deeper = [&](uint32_t next) { return best(next, entries, depth + 1, into); };
  if (const uint32_t* exact = here.next.exact(value); exact != nullptr && deeper(*exact)) return true;
  if (here.next.visit_prefixes(value, [&](uint32_t next, size_t) { return deeper(next); })) return true;
  return here.any != kNone && deeper(here.any);
}

bool fits(const Match& match, std::string_view domain, std::span<const DescriptorEntry> entries) {
  if (match.descriptors.empty() || match.domain != domain || match.descriptors.size() != entries.size()) return false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const Match::Entry& entry = match.descriptors[i];
    if (entry.key != entries[i].key || (entry.value && !Patterns::fits(*entry.value, entries[i].value))) return false;
  }
  return true;
}

std::string key_of(const Match& match, std::span<const DescriptorEntry> entries) {
  size_t choices = 0, last = 0;
  for (size_t i = 0; i < entries.size(); ++i)
    if (leaves_choice(match.descriptors[i])) ++choices, last = i;
  if (choices == 0) return "*";
  if (choices == 1) return std::string(entries[last].value);
  std::string key;
  for (size_t i = 0; i <= last; ++i) {
    if (!leaves_choice(match.descriptors[i])) continue;
    for (const char c : entries[i].value) {
      if (c == '|' || c == '\\') key += '\\';
      key += c;
    }
    if (i != last) key += '|';
  }
  return key;
}

std::string text_of(const Match& match) {
  std::string text = match.domain + ":";
  for (const Match::Entry& entry : match.descriptors) {
    text += (&entry == match.descriptors.data() ? " " : ", ") + entry.key;
    if (entry.value) text += "=" + *entry.value;
  }
  return text;
}

}  // namespace tally
