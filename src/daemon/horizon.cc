#include "daemon/horizon.h"

#include <asio/post.hpp>
#include <utility>

namespace tally {

Horizon::Horizon(StateFile& file, Duration look_ahead, asio::io_context& admin, Log& log)
    : file_(file),
      look_ahead_(look_ahead),
      admin_(admin),
      log_(log),
      synced_(nanos(file.record()->horizon)) {}

void Horizon::keep(WallTime now) {
  if (nanos(now + look_ahead_ + kHorizonStep / 2) < synced_.load(std::memory_order_relaxed)) return;
  if (asked_.exchange(true, std::memory_order_acq_rel)) return;
  asio::post(admin_, [this, now] { extend(now); });
}

void Horizon::keep(const Tenure& tenure, std::function<void(bool)> then) {
  asio::post(admin_, [this, tenure, then = std::move(then)] {
    const auto kept = file_.keep(tenure);
    if (!kept)
      log_.error("the state file cannot be written: the change of the list of nodes waits for it", {{"error", kept.error()}});
    then(bool(kept));
  });
}

void Horizon::extend(WallTime now) {
  const auto written = file_.extend(now, look_ahead_);
  if (written) {
    synced_.store(nanos(file_.record()->horizon), std::memory_order_release);
    if (failing_) log_.info("the state file is written again", {{"file", file_.path()}});
  } else if (!failing_) {
    log_.error("the state file cannot be written: this node grants and votes no more until it can be",
               {{"error", written.error()}});
  }
  failing_ = !written;
  asked_.store(false, std::memory_order_release);
}

}  // namespace tally
