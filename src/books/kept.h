// What is kept in Redis, as whoever looks after it sees it: kinds of names, and what their values say of
// themselves.
//
// Thread rule: pure functions. Names and values are bytes from outside: any are of some kind, or say nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tally {

enum class BooksName : uint8_t {
  window,      // the books of one window of a key
  bucket,      // those of a token bucket
  central,     // the count of a key of a central rule
  generation,  // of the books of a tag
  lives,       // the highest life of each node
  other,       // nothing of what this version keeps
};
constexpr size_t kBooksNames = static_cast<size_t>(BooksName::other) + 1;
BooksName kind_of_name(std::string_view prefix, std::string_view name);

// For SCAN: the names of that prefix, and of no other.
inline std::string books_pattern(std::string_view prefix) { return std::string(prefix) + ":{*"; }

std::optional<uint64_t> number_of_generation(std::string_view value);

}  // namespace tally
