// The secret file: text <-> keys, or every error with its place.
//
// Thread rule: pure functions. No message quotes what stands in the file: messages go to logs.
//
// Lines end with \n; '#' begins a comment; a line is a word and a key in hexadecimal digits. In any order,
// each once at most:
//   id    32 digits    needed: the key of the names of keys
//   seal  64 digits    needed: what this host seals with; it opens with all
//   next  64 digits    will be sealed with
//   old   64 digits    was sealed with; not beside next
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "config/config.h"

namespace tally {

inline constexpr size_t kSecretFileBytesMax = 16'384;

struct ParsedSecret {
  std::optional<Secret> secret;  // where errors is empty
  std::vector<Problem> errors;   // in order of place; what is missing stands at the end of the text
};
ParsedSecret parse_secret(std::string_view text);  // total

// With comments that say what it is, and which step of a rotation comes next.
std::string format_secret(const Secret& secret);

}  // namespace tally
