// One connection of a process to its daemon: commands, and replies by a time.
//
// Thread rule: one owner at a time. Blocks until the time that is given, never longer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "base/time.h"

struct redisReader;

namespace tally::client {

// Goes on while the host is suspended, as the daemon's windows do.
MonoTime mono_now();

// A reply that is numbers, one or several, or an error.
struct Answered {
  std::vector<int64_t> numbers;
  std::string error;  // of the daemon; ""
};

class Connection {
 public:
  // The failure says the path, why, and what to do.
  static Result<std::unique_ptr<Connection>> open(const std::string& path, MonoTime deadline);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  static void append(std::string& to, const std::vector<std::string_view>& command);
  // After a failure the connection is of no use any more: a reply may still be on its way. `lost()`: it is
  // because the daemon went.
  Result<bool> send(std::string_view commands, MonoTime deadline);
  Result<Answered> read(MonoTime deadline);
  bool lost() const { return lost_; }

 private:
  Connection(std::string path, int fd);
  Result<bool> wait(short events, MonoTime deadline);
  Failure failed(int error);

  const std::string path_;
  const int fd_;
  bool lost_ = false;
  struct FreeReader {
    void operator()(redisReader* reader) const;
  };
  std::unique_ptr<redisReader, FreeReader> reader_;
};

}  // namespace tally::client
