// The secret file on the disk: opened, looked at, read.
//
// Thread rule: any; blocks on the disk. What was read is wiped before this returns.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/secret.h"

namespace tally {

struct SecretFile {
  std::optional<Secret> secret;  // where errors is empty
  std::vector<std::string>
      errors;          // whole lines with their places, ready to be shown; nothing of the keys is in them
  mode_t mode = 0600;  // of the file
  uid_t owner = 0;
  gid_t group = 0;
};
// Refuses what is no regular file, what group or others can do anything with, and what belongs neither to
// root nor to this user: whoever could have written it could speak as a host of the fleet.
SecretFile read_secret_file(const std::string& path);

}  // namespace tally
