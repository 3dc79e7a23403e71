// Draws ranks 1 to n by Zipf's law with exponent 1: rank k with a probability in proportion to 1/k.
//
// Thread rule: pure; whoever draws brings the randomness.
//
// Rejection-inversion (Hörmann and Derflinger, 1996): an exponential of a uniform number, rounded, and thrown away now and then. No
// table: one of ten million ranks would cost a cache miss for each key, and the generator must cost less than what it measures.
#pragma once

#include <cmath>
#include <cstdint>

namespace tally::bench {

class Zipf {
 public:
  explicit Zipf(uint32_t n) : n_(n), high_(std::log(n + 0.5)) {}

  // `unit`: a callable that gives uniform doubles in [0, 1).
  template <typename Unit>
  uint32_t draw(Unit&& unit) const {
    for (;;) {
      const double u = high_ + unit() * (kLow - high_);
      const double x = std::exp(u);
      double k = std::floor(x + 0.5);
      if (k < 1) k = 1;
      if (k > n_) k = n_;
      if (k - x <= kNear || u >= std::log(k + 0.5) - 1 / k) return static_cast<uint32_t>(k);
    }
  }

 private:
  // With H(x) = ln x, whose derivative is the weight 1/x: H(1.5) - 1, and 2 - exp(H(2.5) - 1/2). So near to its rank a number is always kept.
  static constexpr double kLow = 0.40546510810816438 - 1;
  static constexpr double kNear = 2 - 1.5163266492815836;
  const double n_;
  const double high_;
};

}  // namespace tally::bench
