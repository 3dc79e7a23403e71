// The Lua that runs in Redis. Embedded from the .lua files beside this at configuration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tally {

enum class BooksScript : uint8_t {
  apply,    // apply.lua behind kLedgerScript: reports in, grants out (batch.h)
  life,     // life.lua
  central,  // central.lua: one decision (central_call.h)
};
constexpr size_t kBooksScripts = 3;

std::string text_of(BooksScript script);  // as Redis gets it

extern const std::string_view kLedgerScript;  // ledger.lua and format.lua: defines `ledger`; needs `struct`, as Redis has it

}  // namespace tally
