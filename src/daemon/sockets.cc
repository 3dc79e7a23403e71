#include "daemon/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "daemon/paths.h"

namespace tally {
namespace {

constexpr int kBacklog = 4096;  // the kernel takes the smaller of this and net.core.somaxconn

Failure failure(const std::string& what, int error) { return Failure{what + ": " + std::strerror(error)}; }

// 0: somebody listens there; else the errno of connecting.
int probe(const sockaddr_un& to) {
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno;
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return 0;
  return errno == EAGAIN ? 0 : errno;  // EAGAIN: a full backlog, so somebody is there
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// Two daemons that start at once must not both find the path stale: whoever holds this checks, removes and
// binds alone. Tried for two seconds; who cannot have it goes on (anybody may lock a shared directory, and
// that must not stop a start).
Descriptor lock_directory(const std::string& directory) {
  Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int attempt = 0; fd && attempt < 100; ++attempt) {
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) break;
    ::usleep(20'000);
  }
  return fd;
}

// Makes the path free for bind, or says why it is not.
Result<bool> clear_path(const std::string& path, const sockaddr_un& to) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return true;
    return failure("cannot use " + path, errno);
  }
  if (!S_ISSOCK(found.st_mode))
    return Failure{path + " is there and is not a socket; remove it or listen elsewhere (--listen-resp)"};
  const int error = probe(to);
  if (error == 0)
    return Failure{"another daemon is serving " + path +
                   "; stop it, or give this one another --name or --listen-resp"};
  if (error != ECONNREFUSED) return failure("cannot tell whether somebody serves " + path, error);
  if (::unlink(path.c_str()) != 0) return failure("cannot remove the stale socket " + path, errno);
  return true;
}

}  // namespace

Result<Listener> Listener::open(const Address& address) {
  return address.kind == Address::Kind::unix_socket ? open_unix(address) : open_tcp(address);
}

Result<Listener> Listener::open_unix(const Address& address) {
  const std::string& path = address.path;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof to.sun_path)
    return Failure{"the socket path " + path + " is longer than the " +
                   std::to_string(sizeof to.sun_path - 1) +
                   " bytes that a Unix socket may have; choose a shorter one"};
  std::memcpy(to.sun_path, path.data(), path.size());
  if (const auto made = make_directories(parent_of(path)); !made) return Failure{made.error()};

  const Descriptor start_lock = lock_directory(parent_of(path));
  if (const auto cleared = clear_path(path, to); !cleared) return Failure{cleared.error()};

  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return failure("cannot make a socket", errno);
  // Nobody but the owner may connect before the mode is set: the umask at bind gives 0600.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to);
  const int error = errno;
  ::umask(before);
  if (bound != 0) return failure("cannot bind " + path, error);
  Listener listener(address, std::move(fd));
  struct stat made {};
  if (::stat(path.c_str(), &made) == 0) {
    listener.device_ = made.st_dev;
    listener.inode_ = made.st_ino;
  }
  if (::listen(listener.fd(), kBacklog) != 0) return failure("cannot listen on " + path, errno);
  if (::chmod(path.c_str(), address.mode) != 0) return failure("cannot set the mode of " + path, errno);
  return listener;
}

Result<Listener> Listener::open_tcp(const Address& address) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = v6.sin6_port = htons(address.port);
  const bool is_v4 = ::inet_pton(AF_INET, address.host.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && ::inet_pton(AF_INET6, address.host.c_str(), &v6.sin6_addr) != 1)
    return Failure{"cannot listen on " + address.text() +
                   ": the host must be a numeric address, like 127.0.0.1"};
  auto* to = is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6);
  socklen_t length = is_v4 ? sizeof v4 : sizeof v6;

  Descriptor fd(::socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return failure("cannot make a socket", errno);
  const int yes = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (!is_v4) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
  if (::bind(fd.get(), to, length) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    const int error = errno;
    const char* help =
        error == EADDRINUSE ? "; another program listens there: stop it or choose another port" : "";
    return Failure{"cannot listen on " + address.text() + ": " + std::strerror(error) + help};
  }
  Address actual = address;
  if (::getsockname(fd.get(), to, &length) == 0) actual.port = ntohs(is_v4 ? v4.sin_port : v6.sin6_port);
  return Listener(actual, std::move(fd));
}

Listener::Listener(Listener&& other) noexcept
    : address_(std::move(other.address_)),
      fd_(std::move(other.fd_)),
      device_(other.device_),
      inode_(other.inode_) {
  other.inode_ = 0;
}

Listener::~Listener() { close(); }

void Listener::close() {
  if (!fd_) return;
  struct stat there {};
  // Only while it is still ours: somebody may have removed it and bound anew.
  if (inode_ != 0 && ::lstat(address_.path.c_str(), &there) == 0 && there.st_dev == device_ &&
      there.st_ino == inode_)
    ::unlink(address_.path.c_str());
  fd_.reset();
}

size_t raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<size_t>(limit.rlim_cur);
}

}  // namespace tally
