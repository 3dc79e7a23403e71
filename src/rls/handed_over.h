// The connections that gRPC was given. It does not tell when one is over; but a descriptor is the same
// connection for as long as it is the same inode.
//
// Thread rule: any thread; it locks.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <mutex>
#include <vector>

namespace tally::rls {

class HandedOver {
 public:
  void add(int fd);  // open still
  size_t open();     // one system call for each that is remembered; those that are over are forgotten

 private:
  struct Connection {
    int fd;
    ino_t inode;
  };
  std::mutex mutex_;
  std::vector<Connection> connections_;
};

}  // namespace tally::rls
