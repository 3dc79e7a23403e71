// The text of the metrics for whoever asks, made on the admin thread.
//
// Thread rule: request() from any thread. Those who ask while a text is on its way share the next one, so
// that however many ask, what else the admin thread has to do waits for one of them at most.
#pragma once

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "daemon/metrics.h"

namespace tally {

class Scrapes {
 public:
  using Done = std::function<void(std::string)>;  // called on the admin thread

  Scrapes(asio::io_context& admin, const Metrics& metrics) : admin_(admin), metrics_(metrics) {}
  Scrapes(const Scrapes&) = delete;
  Scrapes& operator=(const Scrapes&) = delete;

  void request(Done done) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(done));
    if (waiting_.size() == 1) asio::post(admin_, [this] { answer(); });
  }

 private:
  void answer() {
    std::vector<Done> served;
    {
      const std::lock_guard lock(mutex_);
      served.swap(waiting_);
    }
    const std::string text = metrics_.text();
    for (const Done& done : served) done(text);
  }

  asio::io_context& admin_;
  const Metrics& metrics_;
  std::mutex mutex_;
  std::vector<Done> waiting_;
};

}  // namespace tally
