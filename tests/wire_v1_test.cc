// The first version of the peer wire, kept: what it wrote (tests/wire_v1.txt) is read as the same values by
// every later build, and written as the same bytes as long as that is its version.
#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "cluster/wire.h"
#include "wire_text.h"

using namespace tally;
using namespace tally::test;

namespace {

struct Kept {
  std::string name;
  Bytes bytes;
  std::string says;
};

Bytes from_hex(const std::string& hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

// "id HEX" first; then a comment with a name, the bytes, and a line for the header and for each entry, up to
// an empty line.
std::vector<Kept> kept(IdKey& id) {
  std::ifstream in(TALLY_SOURCE_DIR "/tests/wire_v1.txt");
  REQUIRE(in.good());
  std::vector<Kept> all;
  std::string line, name;
  bool in_block = false;
  while (std::getline(in, line)) {
    if (line.starts_with("id ")) {
      const Bytes bytes = from_hex(line.substr(3));
      REQUIRE(bytes.size() == id.size());
      std::copy(bytes.begin(), bytes.end(), id.begin());
    } else if (line.starts_with("#")) {
      name = line;
    } else if (line.empty()) {
      in_block = false;
    } else if (!in_block) {
      all.push_back({name, from_hex(line), ""});
      in_block = true;
    } else {
      all.back().says += line + "\n";
    }
  }
  return all;
}

}  // namespace

TEST_CASE("what version 1 wrote is read as the same values for ever") {
  IdKey id{};
  std::set<size_t> kinds;
  for (const Kept& datagram : kept(id)) {
    CAPTURE(datagram.name);
    Datagram out;
    REQUIRE(decode(datagram.bytes, id, out) == DecodeError::none);
    CHECK(text_of(out) == datagram.says);
    for (const Entry& entry : out.entries) kinds.insert(entry.index());
  }
  CHECK(kinds.size() >= 12);  // the kinds of the first version
}

TEST_CASE("version 1 is written as it always was") {
  static_assert(kWireVersion == 1, "the next version leaves this test out, and keeps the one above");
  IdKey id{};
  for (const Kept& datagram : kept(id)) {
    CAPTURE(datagram.name);
    Datagram out;
    REQUIRE(decode(datagram.bytes, id, out) == DecodeError::none);
    DatagramWriter writer(out.header, id);
    for (const Entry& entry : out.entries) REQUIRE(writer.add(entry));
    CHECK(writer.finish() == datagram.bytes);
  }
}
