#include "daemon/paths.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace tally {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] == '/' ? value
                                             : "";  // the base directory rules: what is relative is ignored
}

}  // namespace

Result<std::string> default_socket_path(const std::string& name) {
  const std::string file = name.empty() ? "tallyd.sock" : "tallyd-" + name + ".sock";
  if (::geteuid() == 0) return "/run/tallyd/" + file;
  const std::string dir = environment("XDG_RUNTIME_DIR");
  if (dir.empty())
    return Failure{
        "no place for the socket: XDG_RUNTIME_DIR is not set; set it, or say --listen-resp unix:PATH"};
  return dir + "/" + file;
}

Result<std::string> default_state_dir() {
  if (::geteuid() == 0) return std::string("/var/lib/tallyd");
  if (const std::string dir = environment("XDG_STATE_HOME"); !dir.empty()) return dir + "/tallyd";
  if (const std::string home = environment("HOME"); !home.empty()) return home + "/.local/state/tallyd";
  return Failure{
      "no place for the state file: neither XDG_STATE_HOME nor HOME is set; set one, or node.state_dir in "
      "the "
      "configuration"};
}

std::string state_file_name(const std::string& name) { return (name.empty() ? "tallyd" : name) + ".state"; }

Result<bool> make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1); !path.empty(); end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0755) != 0 && errno != EEXIST)
      return Failure{"cannot create the directory " + part + ": " + std::strerror(errno)};
    if (end == std::string::npos) break;
  }
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return Failure{"cannot use " + path + ": " + std::strerror(errno)};
  if (!S_ISDIR(found.st_mode)) return Failure{path + " is there and is not a directory"};
  return true;
}

bool is_file_name(const std::string& name) {
  if (name.empty() || name.size() > 64 || name[0] == '.') return false;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '_' && c != '-') return false;
  return true;
}

}  // namespace tally
