// What other threads want done on a worker's thread: functions, in the order in which they came.
//
// Thread rule: post() from any thread; the rest from the worker's, whose loop watches fd().
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "daemon/descriptor.h"

namespace tally {

class Inbox {
 public:
  using Function = std::function<void()>;

  Inbox() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

  int fd() const { return event_.get(); }
  void post(Function function) {
    {
      const std::lock_guard lock(mutex_);
      posted_.push_back(std::move(function));
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = ::write(event_.get(), &one, sizeof one);
  }
  // After fd() was readable. What is posted meanwhile makes it readable again.
  void run() {
    uint64_t n;
    [[maybe_unused]] const ssize_t got = ::read(event_.get(), &n, sizeof n);
    std::vector<Function> functions;
    {
      const std::lock_guard lock(mutex_);
      functions.swap(posted_);
    }
    for (const Function& function : functions) function();
  }

 private:
  Descriptor event_;
  std::mutex mutex_;
  std::vector<Function> posted_;
};

}  // namespace tally
