// The Lua that runs in Redis. Embedded from the .lua files beside this at configuration.
#pragma once

#include <string_view>

namespace tally {

extern const std::string_view kLedgerScript;  // ledger.lua: defines `ledger`
extern const std::string_view kApplyScript;   // apply.lua, to be run behind it
extern const std::string_view kCentralScript; // central.lua

}  // namespace tally
