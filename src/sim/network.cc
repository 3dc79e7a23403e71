#include "sim/network.h"

#include <algorithm>

namespace tally::sim {

Network::Network(uint16_t hosts, uint64_t seed)
    : hosts_(hosts), random_(seed), links_(size_t{hosts} * hosts), cut_(links_.size()) {}

void Network::set_all(const LinkTerms& terms) { std::ranges::fill(links_, terms); }

void Network::cut_off(uint16_t host) {
  for (uint16_t other = 0; other < hosts_; ++other) {
    if (other == host) continue;
    cut(host, other);
    cut(other, host);
  }
}

void Network::split(const std::vector<bool>& side) {
  const auto named = static_cast<uint16_t>(std::min<size_t>(side.size(), hosts_));
  for (uint16_t a = 0; a < named; ++a)
    for (uint16_t b = 0; b < named; ++b)
      if (side[a] != side[b]) cut(a, b);
}

void Network::mend_all() { cut_.assign(cut_.size(), false); }

Network::Fate Network::send(uint16_t from, uint16_t to) {
  ++counts_.sent;
  Fate fate;
  if (is_cut(from, to)) {
    ++counts_.cut;
    return fate;
  }
  const LinkTerms& terms = link(from, to);
  if (random_.chance(terms.loss)) {
    ++counts_.lost;
    return fate;
  }
  fate.after[fate.copies++] = delay(terms);
  if (random_.chance(terms.duplicate)) {
    ++counts_.duplicated;
    fate.after[fate.copies++] = delay(terms);
  }
  return fate;
}

Duration Network::delay(const LinkTerms& terms) {
  Duration d(
      random_.between(nanos(terms.delay_min), std::max(nanos(terms.delay_min), nanos(terms.delay_max))));
  if (random_.chance(terms.straggle)) {
    ++counts_.straggled;
    d += Duration(random_.between(0, nanos(terms.straggle_by)));
  }
  return d;
}

}  // namespace tally::sim
