// The orders that a daemon knows (cluster/orders.h), beside the state file, so that a restart forgets none.
//
// Thread rule: as each says; the file blocks on the disk.
//
// The format is the wire's (entry_file.h), under the public key: the file says what whoever may read it could ask the daemon.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "cluster/wire.h"

namespace tally {

std::string format_orders(const std::vector<KeyOrder>& orders);      // pure
Result<std::vector<KeyOrder>> parse_orders(std::string_view text);  // pure, total; the error says what is wrong, not where

Result<std::vector<KeyOrder>> read_orders(const std::string& path);  // none where there is no file
Result<bool> write_orders(const std::string& path, const std::vector<KeyOrder>& orders);  // makes its directory

}  // namespace tally
