// tally-sim --nightly: random clusters of seeds that nobody has run yet, until it is told to end.
//
// Thread rule: the program's only thread. Takes SIGINT and SIGTERM as "end", and tells on SIGABRT which seed was running.
#pragma once

#include <cstdint>
#include <functional>

#include "sim/random_cluster.h"

namespace tally::sim {

// Runs clusters from seed `base` on with `options`, the running one to its end. Each that fails is handed to `failed` at once. Prints the
// base first and a summary last to stdout; how far it is to stderr, where that is a terminal. Returns how many failed.
uint64_t run_nightly(uint64_t base, const ClusterOptions& options,
                     const std::function<void(const ClusterResult&)>& failed);

// Where no seed is given.
uint64_t fresh_seed();

}  // namespace tally::sim
