// Listening sockets: made, checked, and put away again.
//
// Thread rule: main's.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fail.h"
#include "config/config.h"
#include "daemon/descriptor.h"

namespace tally {

// A listening socket, non-blocking. A Unix socket's file is removed at the end, if it is still this one.
class Listener {
 public:
  // Unix: refuses where somebody answers on the path, replaces a socket that nobody listens on any more,
  // leaves anything that is not a socket alone, sets the mode. TCP: SO_REUSEADDR. The error says what to do.
  static Result<Listener> open(const Address& address);
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  ~Listener();

  int fd() const { return fd_.get(); }
  const Address& address() const { return address_; }  // port 0 as the kernel chose it
  // Nobody can connect any more. A second daemon may take the path over at once.
  void close();

 private:
  Listener(Address address, Descriptor fd) : address_(std::move(address)), fd_(std::move(fd)) {}
  static Result<Listener> open_unix(const Address& address);
  static Result<Listener> open_tcp(const Address& address);

  Address address_;
  Descriptor fd_;
  dev_t device_ = 0;  // of the socket's file
  ino_t inode_ = 0;
};

// As many descriptors as the system lets this process have; returns how many.
size_t raise_descriptor_limit();

}  // namespace tally
