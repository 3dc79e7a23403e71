// Entries of the wire in a file: datagrams of a node to itself, each with its length (two bytes,
// little-endian) before it.
//
// Thread rule: pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/fail.h"
#include "cluster/wire.h"

namespace tally {

class EntryFileWriter {
 public:
  EntryFileWriter(const Header& header, const IdKey& key)
      : header_(header), key_(key), writer_(header, key) {}
  void add(const Entry& entry);
  std::string finish();  // once

 private:
  void end_datagram();

  const Header header_;
  const IdKey key_;
  DatagramWriter writer_;
  std::string text_;
};

// Hands over each datagram; what `take` returns, other than "", ends it. The error says what is wrong, not
// where the file is.
Result<bool> read_entries(std::string_view text, const IdKey& key,
                          const std::function<std::string(const Datagram&)>& take);

}  // namespace tally
