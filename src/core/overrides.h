// What holds for some keys of a rule in place of its limit: another one, none at all (exempt), or nothing (blocked).
//
// Thread rule: add() and came_from() before it is shared; immutable afterwards, any thread. find() allocates nothing: it looks the key up
// as a whole, as an address once for each length that blocks have, and once for each length that prefixes have.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/rules.h"

namespace tally {

struct Override {
  Treatment treatment = Treatment::limited;
  Limit limit;              // limited: of the rule's form; a floor only in the overrides of a RuleSet
  uint32_t rate_count = 0;  // buckets, limited: as configured
  Duration rate_period{0};
  friend bool operator==(const Override&, const Override&) = default;
};

class Overrides {
 public:
  struct Entry {
    std::string key;
    Override override;
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  Overrides();
  ~Overrides();

  // `key`: a whole key, a prefix that ends in '*', or a block of addresses such as "10.0.0.0/8", "2001:db8::/32". An address is a block of
  // its own, found by any spelling. Returns "", or why it cannot be one.
  std::string add(std::string_view key, const Override& override);
  // What the configuration says in its own text, and the file that it names beside that ("": none): for printing alone.
  void came_from(std::vector<Entry> written, std::string file);

  // The whole key over the longest block of addresses that it lies in, over the longest prefix; nullptr: the rule's limit holds.
  const Override* find(std::string_view key) const;
  // The `key` of the entry that find() finds; "" where there is none.
  std::string key_of(std::string_view key) const;

  // Where a key looks like a block of addresses in a notation that there is none of here, and so is a whole key: what was probably meant,
  // "" where nobody knows. nullopt: it does not.
  static std::optional<std::string> meant_by(std::string_view key);

  size_t size() const { return values_.size(); }
  bool limits_nothing() const;  // "*" and all others are exempt or blocked
  const std::vector<Entry>& written() const;
  const std::string& file() const;
  // The same for the same entries in any order, on every host.
  uint64_t fingerprint() const { return fingerprint_; }

  // The same overrides with this node's floors.
  std::shared_ptr<const Overrides> with_floors(const FloorTerms& terms) const;

 private:
  struct Index;  // key -> place in values_
  struct Found;
  bool find(std::string_view key, Found& found) const;

  std::shared_ptr<Index> index_;  // shared by those that differ in their floors
  std::vector<Override> values_;
  uint64_t fingerprint_ = 0;
};

}  // namespace tally
