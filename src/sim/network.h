// A seeded network between the hosts of a simulated fleet: what becomes of a datagram, decided when it is
// sent.
//
// Thread rule: one owner. Times are true time: how long ago the run began. There is no bandwidth: nothing
// queues.
#pragma once

#include <cstdint>
#include <vector>

#include "base/random.h"
#include "base/time.h"

namespace tally::sim {

// What one direction of one link does to a datagram.
struct LinkTerms {
  Duration delay_min = std::chrono::microseconds(250);
  Duration delay_max =
      std::chrono::microseconds(250);  // the delay is uniform between the two, so a spread reorders
  double loss = 0;
  double duplicate = 0;  // each copy has a delay of its own
  double straggle = 0;   // this part arrives up to `straggle_by` later still
  Duration straggle_by{0};
};

class Network {
 public:
  Network(uint16_t hosts, uint64_t seed);

  uint16_t hosts() const { return hosts_; }
  LinkTerms& link(uint16_t from, uint16_t to) { return links_[index(from, to)]; }
  void set_all(const LinkTerms& terms);

  // Cuts one direction, until it is mended. Datagrams on their way arrive.
  void cut(uint16_t from, uint16_t to) { cut_[index(from, to)] = true; }
  void mend(uint16_t from, uint16_t to) { cut_[index(from, to)] = false; }
  void cut_off(uint16_t host);  // both directions, to and from everybody
  void split(const std::vector<bool>&
                 side);  // by host: both directions between hosts of different sides; of those that it names
  void mend_all();
  bool is_cut(uint16_t from, uint16_t to) const { return cut_[index(from, to)]; }

  // How many copies of a datagram arrive, and how long after now.
  struct Fate {
    Duration after[2]{};
    int copies = 0;
  };
  Fate send(uint16_t from, uint16_t to);

  struct Counts {
    uint64_t sent = 0, lost = 0, cut = 0, duplicated = 0, straggled = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  size_t index(uint16_t from, uint16_t to) const { return size_t{from} * hosts_ + to; }
  Duration delay(const LinkTerms& terms);

  const uint16_t hosts_;
  Random random_;
  std::vector<LinkTerms> links_;
  std::vector<bool> cut_;
  Counts counts_;
};

}  // namespace tally::sim
