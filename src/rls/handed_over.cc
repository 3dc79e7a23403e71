#include "rls/handed_over.h"

#include <sys/stat.h>

namespace tally::rls {

void HandedOver::add(int fd) {
  struct stat about {};
  if (::fstat(fd, &about) != 0) return;
  const std::lock_guard lock(mutex_);
  connections_.push_back({fd, about.st_ino});
}

size_t HandedOver::open() {
  const std::lock_guard lock(mutex_);
  std::erase_if(connections_, [](const Connection& connection) {
    struct stat about {};
    return ::fstat(connection.fd, &about) != 0 || about.st_ino != connection.inode;
  });
  return connections_.size();
}

}  // namespace tally::rls
