// The gRPC door: Envoy's rate limit service, and gRPC's health service. No reflection.
//
// Thread rule: built, adopt(), drain() and destroyed by main; counts() from any thread. Calls come on threads
// of gRPC's own: half as many as there are cores, two at least, however many calls and connections there are.
// They are answered on the thread on which their question is done, a worker's; so what gRPC does to send an
// answer is done there.
//
// We listen and gRPC gets the connections: it would take a Unix socket from a daemon that lives, share a port
// with a second one (SO_REUSEPORT), and give the socket's file no mode.
//
// Built without gRPC (TALLY_RLS=OFF) none of this can be used, and configurations with listen.rls are refused
// (built_with_rls).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/time.h"
#include "core/rules.h"
#include "daemon/counters.h"
#include "daemon/descriptor.h"
#include "daemon/question.h"

namespace tally {

class RlsDoor {
 public:
  static constexpr int kMessageBytesMax =
      1'048'576;                           // of a request; a larger one is RESOURCE_EXHAUSTED, by gRPC
  static constexpr int kCallsMax = 1'000;  // at once, of a connection; gRPC's clients hold back what is more

  struct Parts {
    std::function<std::shared_ptr<const RuleSet>()> rules;  // the ones of now; any thread
    std::function<bool()> ready;                            // what the health service says; any thread
    std::function<void(std::unique_ptr<Question>)> ask;     // takes it to a worker; any thread
    uint64_t connections_max = 0;
  };

  explicit RlsDoor(Parts parts);
  ~RlsDoor();  // requires drain() before, where anything was adopted
  RlsDoor(const RlsDoor&) = delete;
  RlsDoor& operator=(const RlsDoor&) = delete;

  // An accepted connection, non-blocking. False, and it is closed, where there are as many as there may be.
  bool adopt(Descriptor fd);
  // Health says NOT_SERVING, new calls are refused, and those that are there are waited for, for `grace` at
  // most; then they are CANCELLED. The questions of such calls may be done later than this.
  void drain(Duration grace);
  GrpcCounts counts() const;

 private:
  struct Inside;
  const std::unique_ptr<Inside> inside_;
};

}  // namespace tally
