#include "files.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

namespace tally::tool {
namespace {

namespace fs = std::filesystem;

Failure failed(const std::string& path, const std::string& what, int error) {
  return {path + ": " + what + ": " + std::strerror(error)};
}

// Where a link leads, so that the link stays one.
std::string target_of(const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(path, error);
  return error ? path : whole.string();
}

bool is_special(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  return !error && fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::error_code error;
  if (fs::is_directory(path, error)) return failed(path, "cannot be read", EISDIR);
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (stream && stream.peek() != std::ifstream::traits_type::eof()) text << stream.rdbuf();
  if (!stream.is_open() || stream.bad()) return failed(path, "cannot be read", errno != 0 ? errno : EIO);
  return text.str();
}

Result<bool> may_write(const std::string& path) {
  const std::string target = target_of(path);
  std::error_code error;
  if (fs::is_directory(target, error)) return failed(path, "cannot be written", EISDIR);
  const std::string place = is_special(target) ? target : folder_of(target);
  if (access(place.c_str(), W_OK) != 0) return failed(path, "cannot be written", errno);
  return true;
}

Result<bool> write_file(const std::string& path, const std::string& text) {
  const std::string target = target_of(path);
  const bool special = is_special(target);
  const std::string written = special ? target : target + ".tmp-" + std::to_string(getpid());
  errno = 0;
  std::ofstream stream(written, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (stream.fail() || (!special && std::rename(written.c_str(), target.c_str()) != 0)) {
    const int error = errno != 0 ? errno : EIO;
    if (!special) unlink(written.c_str());
    return failed(path, "cannot be written", error);
  }
  return true;
}

}  // namespace tally::tool
