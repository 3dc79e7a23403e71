#include "books/kept.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "books/batch.h"

namespace tally {
namespace {

constexpr size_t kKeyDigits = 24;  // of a WireId

bool all_of_kind(std::string_view text, std::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

}  // namespace

BooksName kind_of_name(std::string_view prefix, std::string_view name) {
  if (!name.starts_with(prefix)) return BooksName::other;
  name.remove_prefix(prefix.size());
  const size_t end = name.find("}:");
  if (!name.starts_with(":{") || end == std::string_view::npos ||
      !all_of_kind(name.substr(2, end - 2), "0123456789"))
    return BooksName::other;
  name.remove_prefix(end + 2);
  if (name == "generation") return BooksName::generation;
  if (name == "lives") return BooksName::lives;
  const bool central = name.starts_with(kCentralMark);
  if (central) name.remove_prefix(kCentralMark.size());
  if (!all_of_kind(name.substr(0, kKeyDigits), "0123456789abcdef") || name.size() < kKeyDigits)
    return BooksName::other;
  name.remove_prefix(kKeyDigits);
  if (name.empty()) return central ? BooksName::central : BooksName::bucket;
  const bool window =
      name.starts_with(':') && all_of_kind(name.substr(name.starts_with(":-") ? 2 : 1), "0123456789");
  return window && !central ? BooksName::window : BooksName::other;
}

std::optional<uint64_t> number_of_generation(std::string_view value) {
  const auto generation = nlohmann::json::from_msgpack(value.begin(), value.end(), true, false);
  if (!generation.is_object() || !generation.contains("number") || !generation["number"].is_number())
    return std::nullopt;
  return static_cast<uint64_t>(std::clamp(generation["number"].get<double>(), 0.0, 0x1p53));
}

}  // namespace tally
