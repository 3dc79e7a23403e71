#include "daemon/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "config/secret_text.h"
#include "daemon/descriptor.h"

namespace tally {
namespace {

std::string octal(mode_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777));
  return text;
}

// "": it may be used.
std::string objection(const struct stat& found) {
  if (!S_ISREG(found.st_mode)) return "is not a regular file";
  if ((found.st_mode & 077) != 0)
    return "may be used by others than its owner (mode " + octal(found.st_mode) + "): chmod 600";
  if (found.st_uid != 0 && found.st_uid != ::geteuid())
    return "belongs to another user (" + std::to_string(found.st_uid) +
           "): it must be root's or this user's (" + std::to_string(::geteuid()) + ")";
  return "";
}

}  // namespace

SecretFile read_secret_file(const std::string& path) {
  SecretFile out;
  const auto fail = [&](const std::string& why) {
    out.errors.push_back(path + ": " + why);
    return std::move(out);
  };
  // Without blocking: a pipe in its place must not hold anything up.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return fail(std::string("cannot be opened: ") + std::strerror(errno));
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0)
    return fail(std::string("cannot be looked at: ") + std::strerror(errno));
  if (const std::string why = objection(found); !why.empty()) return fail(why);
  out.mode = found.st_mode & 07777;
  out.owner = found.st_uid;
  out.group = found.st_gid;

  std::string text(kSecretFileBytesMax + 1, '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      wipe(text);
      return fail(std::string("cannot be read: ") + std::strerror(error));
    }
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  ParsedSecret parsed = parse_secret(std::string_view(text).substr(0, have));
  wipe(text);
  for (const Problem& problem : parsed.errors) out.errors.push_back(format_problem(path, problem));
  out.secret = std::move(parsed.secret);
  return out;
}

}  // namespace tally
