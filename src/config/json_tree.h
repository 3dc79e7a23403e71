// JSON with comments -> a tree in which every key and value knows where it stands in the text.
//
// Thread rule: pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tally {

inline constexpr size_t kJsonDepthMax = 32;                // nested arrays and objects
inline constexpr size_t kJsonBytesMax = 16 * 1024 * 1024;  // of one text

struct JsonMember;

struct JsonNode {
  enum class Kind : uint8_t { null, boolean, integer, real, string, array, object } kind = Kind::null;
  size_t offset = 0;  // where the value begins
  bool truth = false;
  bool negative = false;   // integer: below 0
  uint64_t magnitude = 0;  // integer: without its sign
  double real = 0;
  std::string text;  // string: decoded; integer and real: as written
  std::vector<JsonNode> items;
  std::vector<JsonMember> members;  // in order, keys unique
};

struct JsonMember {
  std::string key;
  size_t key_offset = 0;  // of its opening quote
  JsonNode value;
};

struct JsonPlace {
  int line = 0;    // from 1
  int column = 0;  // from 1, in bytes; a byte order mark does not count
};

// Lines end with \n (so \r\n too).
class LineIndex {
 public:
  explicit LineIndex(std::string_view text);
  JsonPlace place(size_t offset) const;

 private:
  std::vector<size_t> starts_;
};

struct JsonError {
  size_t offset = 0;
  std::string path;
  std::string message;
};

struct JsonText {
  JsonNode root;
  LineIndex lines;
  std::optional<JsonError> syntax;    // the text is no JSON: the tree ends here
  std::vector<JsonError> duplicates;  // second keys of one name; the first one counts
};

// Never throws, whatever the bytes.
JsonText read_json(std::string_view text);

// "a.b" and "a[3]", with what is unprintable made visible.
std::string member_path(std::string_view parent, std::string_view key);
std::string item_path(std::string_view parent, size_t index);
// Any bytes as something to read in a message: in double quotes, escaped, shortened.
std::string quoted(std::string_view text);

}  // namespace tally
