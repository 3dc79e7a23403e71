// "Did you mean": the known word that is nearest to a mistyped one.
//
// Thread rule: pure. Total over any bytes, and bounded: a word beyond kNearestWordMax is near to nothing, and
// a candidate costs O(word * distance), so that a stranger's typing errors stay cheap.
//
// Distance is the restricted Damerau-Levenshtein one (optimal string alignment): inserting, deleting,
// replacing a byte and swapping two neighbours cost 1 each. Swaps count as one because they are what fingers
// do most ("brust"). Letters are compared without their case (ASCII).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace tally {

inline constexpr size_t kNearestWordMax = 64;
inline constexpr size_t kNearestCandidatesMax = 4096;

constexpr char lower_ascii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// The distance of two words of at most kNearestWordMax bytes, or anything above `limit` where it is above.
inline size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  if (a.size() > b.size()) std::swap(a, b);
  if (b.size() > kNearestWordMax || b.size() - a.size() > limit) return limit + 1;
  // Three rows of the usual table; row[j] is the distance of a[0..i) and b[0..j).
  std::array<std::array<size_t, kNearestWordMax + 1>, 3> rows{};
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    auto& row = rows[i % 3];
    const auto& above = rows[(i + 2) % 3];
    const auto& above2 = rows[(i + 1) % 3];
    row.fill(limit + 1);  // outside the diagonal band every distance is above the limit
    if (i <= limit) row[0] = i;
    size_t best = row[0];
    const size_t from = i > limit ? i - limit : 1;
    const size_t to = std::min(b.size(), i + limit);
    for (size_t j = from; j <= to; ++j) {
      const char x = lower_ascii(a[i - 1]), y = lower_ascii(b[j - 1]);
      size_t d = std::min({above[j - 1] + (x == y ? 0 : 1), above[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && x == lower_ascii(b[j - 2]) && lower_ascii(a[i - 2]) == y)
        d = std::min(d, above2[j - 2] + 1);
      row[j] = d;
      best = std::min(best, d);
    }
    if (best > limit) return limit + 1;
  }
  return std::min(rows[a.size() % 3][b.size()], limit + 1);
}

// Offer the candidates one by one, then ask for the best; the first of several equally near ones wins.
// Candidates are not copied: they must outlive the answer.
class Nearest {
 public:
  explicit Nearest(std::string_view word) : word_(word), limit_(limit_of(word.size())), open_(limit_ > 0) {}

  void offer(std::string_view candidate) {
    if (!open_ || ++offered_ > kNearestCandidatesMax) return;
    const size_t d = edit_distance(word_, candidate, limit_);
    if (d > limit_ || d >= candidate.size()) return;  // a word with every letter replaced is no typing error
    best_ = candidate;
    open_ = d > 0;  // from here on only better ones
    if (open_) limit_ = d - 1;
  }
  std::string_view best() const { return best_; }  // "" where nothing is near

 private:
  static constexpr size_t limit_of(size_t length) {
    if (length < 2 || length > kNearestWordMax) return 0;
    return length < 4 ? 1 : length < 8 ? 2 : 3;
  }
  std::string_view word_, best_;
  size_t limit_;
  bool open_;
  size_t offered_ = 0;
};

template <typename Words>
std::string_view nearest_of(std::string_view word, const Words& words) {
  Nearest nearest(word);
  for (const auto& candidate : words) nearest.offer(candidate);
  return nearest.best();
}

}  // namespace tally
