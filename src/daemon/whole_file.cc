#include "daemon/whole_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "daemon/descriptor.h"

namespace tally {
namespace {

constexpr size_t kReadAtOnce = 64 * 1024;

Failure system_failure(const std::string& what) { return Failure{what + ": " + std::strerror(errno)}; }

bool write_whole(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

Result<bool> sync_directory_of(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/'));
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return system_failure("cannot sync " + directory);
  return true;
}

}  // namespace

Result<std::optional<std::string>> read_whole_file(const std::string& path, size_t most) {
  const Descriptor fd(::open(
      path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a FIFO is opened at once, too, to be refused
  if (!fd && errno == ENOENT) return std::optional<std::string>();
  if (!fd) return system_failure("cannot open " + path);
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return system_failure("cannot read " + path);
  if (!S_ISREG(found.st_mode)) return Failure{path + ": is not a regular file"};
  std::string text;
  while (text.size() <= most) {
    const size_t have = text.size();
    text.resize(std::min(have + kReadAtOnce, most + 1));
    const ssize_t n = ::read(fd.get(), text.data() + have, text.size() - have);
    text.resize(have + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_failure("cannot read " + path);
    if (n == 0) break;
  }
  return std::optional(std::move(text));
}

Result<std::string> read_existing_file(const std::string& path, size_t most) {
  auto text = read_whole_file(path, most);
  if (!text) return Failure{text.error()};
  if (!text.value()) return Failure{path + ": cannot be read: " + std::strerror(ENOENT)};
  return std::move(*text.value());
}

Result<bool> replace_file(const std::string& path, std::string_view contents) {
  const std::string temporary = path + ".new";
  const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return system_failure("cannot create " + temporary);
  if (!write_whole(fd.get(), contents)) return system_failure("cannot write " + temporary);
  if (::fsync(fd.get()) != 0) return system_failure("cannot sync " + temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return system_failure("cannot replace " + path);
  return sync_directory_of(path);
}

Result<bool> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return false;
    return system_failure("cannot remove " + path);
  }
  if (const auto synced = sync_directory_of(path); !synced) return synced;
  return true;
}

}  // namespace tally
