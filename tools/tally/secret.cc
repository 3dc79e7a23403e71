// tally secret: makes the file that the hosts of a fleet share, and takes the steps of a rotation.
//
// The file is never seen half written, and never by others: a new one is created with 0600 and O_EXCL; a
// change is a file of its own beside it, with the mode and owner of the one before, synced, and then renamed
// over it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxopts.hpp>
#include <string>

#include "config/secret_text.h"
#include "daemon/descriptor.h"
#include "daemon/log.h"
#include "daemon/secret_file.h"
#include "planning.h"

namespace tally::tool {
namespace {

constexpr int kDone = 0, kUsage = 2, kBadFile = 78;
constexpr std::array kSteps = {RotationStep::add, RotationStep::use, RotationStep::drop};
constexpr std::array<std::string_view, 3> kStepNames = {"add", "use", "drop"};

Failure system_failure(const std::string& what) { return Failure{what + ": " + std::strerror(errno)}; }

Result<bool> write_synced(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_failure(path + ": cannot be written");
    text.remove_prefix(static_cast<size_t>(n));
  }
  if (::fsync(fd) != 0) return system_failure(path + ": cannot be synced");
  return true;
}

Result<bool> sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return system_failure(folder + ": cannot be synced");
  return true;
}

Result<bool> create(const std::string& path, const Secret& secret) {
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd && errno == EEXIST)
    return Failure{path + ": is there already, and is never overwritten; \"tally secret --rotate " + path +
                   "\" changes its keys"};
  if (!fd) return system_failure(path + ": cannot be created");
  std::string text = format_secret(secret);
  auto written = ::fchmod(fd.get(), 0600) == 0 ? write_synced(fd.get(), text, path)
                                               : system_failure(path + ": cannot be made 0600");
  wipe(text);
  if (!written) {
    ::unlink(path.c_str());
    return written;
  }
  return sync_folder_of(path);
}

Result<bool> replace(const std::string& path, const SecretFile& before, const Secret& secret) {
  std::string temporary = path + ".XXXXXX";
  const Descriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));  // 0600
  if (!fd) return system_failure(temporary + ": cannot be created");
  std::string text = format_secret(secret);
  const auto fill = [&]() -> Result<bool> {
    struct stat found {};
    if (::fstat(fd.get(), &found) != 0) return system_failure(temporary + ": cannot be looked at");
    if ((found.st_uid != before.owner || found.st_gid != before.group) &&
        ::fchown(fd.get(), before.owner, before.group) != 0)
      return system_failure(temporary + ": cannot be given to the owner of " + path);
    if (::fchmod(fd.get(), before.mode) != 0)
      return system_failure(temporary + ": cannot have the mode of " + path);
    if (const auto written = write_synced(fd.get(), text, temporary); !written) return written;
    if (::rename(temporary.c_str(), path.c_str()) != 0) return system_failure(path + ": cannot be replaced");
    return true;
  };
  const auto filled = fill();
  wipe(text);
  if (filled) return sync_folder_of(path);
  ::unlink(temporary.c_str());
  return filled;
}

int fail(const std::string& message, int code) {
  return std::fprintf(stderr, "tally: %s\n", message.c_str()), code;
}

std::string json_key(const std::optional<SealKey>& key) {
  return key ? json_quoted(key->fingerprint_text()) : "null";
}

void print_json(const std::string& path, std::string_view step, bool changed, const Secret& secret) {
  std::printf("{\"file\":%s,\"step\":%s,\"changed\":%s,\"seal\":%s,\"next\":%s,\"old\":%s}\n",
              json_quoted(path).c_str(), json_quoted(step).c_str(), changed ? "true" : "false",
              json_key(secret.seal).c_str(), json_key(secret.next).c_str(), json_key(secret.old).c_str());
}

int make(const std::string& path, bool json) {
  const Secret secret = Secret::random();
  if (const auto made = create(path, secret); !made) return fail(made.error(), kBadFile);
  if (json) return print_json(path, "make", true, secret), kDone;
  std::printf(
      "made %s with the key %s\n"
      "now: bring it to every host, mode 0600, owned by tallyd's user or root;\n"
      "     set \"cluster\": {\"secret_file\": %s} on all, and restart their tallyd\n",
      path.c_str(), secret.seal.fingerprint_text().c_str(), json_quoted(path).c_str());
  return kDone;
}

void tell(RotationStep step, bool changed, const Secret& secret) {
  const std::string seal = secret.seal.fingerprint_text();
  const char* again = changed ? "" : " (it was so before: nothing changed)";
  switch (step) {
    case RotationStep::add:
      std::printf("sealed with %s; the next key, %s, is accepted%s\n", seal.c_str(),
                  secret.next->fingerprint_text().c_str(), again);
      break;
    case RotationStep::use:
      std::printf("sealed with %s; the old key, %s, is accepted%s\n", seal.c_str(),
                  secret.old->fingerprint_text().c_str(), again);
      break;
    case RotationStep::drop:
      std::printf("sealed with %s; no other key is accepted%s\n", seal.c_str(), again);
      break;
  }
  std::printf("now: bring the file to every host and send SIGHUP to their tallyd%s\n",
              step == RotationStep::drop ? "; that is the end of the rotation"
                                         : "; when all have it, the next --rotate");
}

int rotate_file(const std::string& path, const std::string& wanted, bool json) {
  const auto* named = std::find(kStepNames.begin(), kStepNames.end(), wanted);
  if (!wanted.empty() && named == kStepNames.end())
    return fail("--step: must be add, use or drop, got " + wanted, kUsage);
  // The file itself, not a link to it, is what is replaced.
  char* const resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return fail(path + ": cannot be opened: " + std::strerror(errno), kBadFile);
  const std::string real = resolved;
  std::free(resolved);
  const SecretFile file = read_secret_file(real);
  for (const std::string& error : file.errors) std::fprintf(stderr, "tally: %s\n", error.c_str());
  if (!file.secret) return kBadFile;
  Secret secret = *file.secret;
  const RotationStep step =
      wanted.empty() ? next_step(secret) : kSteps[static_cast<size_t>(named - kStepNames.begin())];
  const auto changed = rotate(secret, step);
  if (!changed) return fail(path + ": " + changed.error(), kBadFile);
  if (changed.value())
    if (const auto replaced = replace(real, file, secret); !replaced) return fail(replaced.error(), kBadFile);
  if (json)
    print_json(path, kStepNames[static_cast<size_t>(step)], changed.value(), secret);
  else
    tell(step, changed.value(), secret);
  return kDone;
}

}  // namespace

int run_secret_command(int argc, char** argv) {
  cxxopts::Options options("tally secret",
                           "Makes the secret that the hosts of a fleet share, or rotates its key\n");
  options.custom_help("[--rotate [--step add|use|drop]] [--json] FILE");
  options.add_options()                                                                             //
      ("rotate", "take the next step: add a key that is accepted; seal with it; drop the old one")  //
      ("step", "that step; nothing changes where it was taken already", cxxopts::value<std::string>(),
       "add|use|drop")        //
      ("json", "print JSON")  //
      ("h,help", "print this help");
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0) return std::printf("%s", options.help({""}).c_str()), kDone;
  const std::vector<std::string>& files = args.unmatched();  // as they are: a list of cxxopts would be cut at commas
  if (files.size() != 1) return fail("usage: tally secret [--rotate [--step add|use|drop]] FILE", kUsage);
  const std::string step = args.count("step") != 0 ? args["step"].as<std::string>() : std::string();
  if (args.count("rotate") == 0 && !step.empty()) return fail("--step goes with --rotate", kUsage);
  const bool json = args.count("json") != 0;
  return args.count("rotate") != 0 ? rotate_file(files.front(), step, json) : make(files.front(), json);
}

}  // namespace tally::tool
