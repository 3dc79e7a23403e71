// nlohmann-json 3.11.2 decides what is JSON: numbers, escapes, UTF-8. It tells no place but that of a syntax
// error, and there the end of the token with everything that was read since the last string. So a cursor of
// our own walks the same text in step with the parser's events: between two events lie only white space,
// comments, commas and colons, and what an event stands for begins at the next other byte. The cursor may
// trust the text, because the parser has accepted everything up to the event; only after an error it walks
// text that nobody accepted, and there it stops at the end.
//
// Rejected: counting in an iterator that feeds the parser (it reads one byte ahead after numbers, so it knows
// where tokens end but not where they begin), and a JSON parser of our own (numbers and UTF-8 are easy to get
// wrong).
#include "config/json_tree.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace tally {
namespace {

using nlohmann::json;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '+' ||
         c == '-' || c == '.';
}

class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {
    if (text.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
  }

  // White space and comments; false where a comment never ends (the cursor is at its start).
  bool skip_blank() {
    while (at_ < text_.size()) {
      if (is_space(text_[at_])) {
        ++at_;
      } else if (text_.substr(at_, 2) == "//") {
        at_ = std::min(text_.find_first_of("\r\n", at_), text_.size());
      } else if (text_.substr(at_, 2) == "/*") {
        const size_t end = text_.find("*/", at_ + 2);
        if (end == std::string_view::npos) return false;
        at_ = end + 2;
      } else {
        return true;
      }
    }
    return true;
  }

  // To the next key or value or bracket; returns where it begins.
  size_t skip_to_event() {
    while (skip_blank() && at_ < text_.size() && (text_[at_] == ',' || text_[at_] == ':')) ++at_;
    return at_;
  }

  // Past a token that the parser has accepted: it may end in the middle of a word ("truex", "01").
  void skip_token() {
    const char c = peek();
    if (c == '"') return skip_string();
    if (c == '-' || is_digit(c)) return skip_number();
    at_ = std::min(at_ + (c == 't' || c == 'n' ? 4 : c == 'f' ? 5 : 1), text_.size());
  }

  // What a reader takes for one token.
  void skip_word() {
    if (!is_word(peek())) return skip_token();
    while (is_word(peek())) ++at_;
  }

  size_t at() const { return at_; }
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  std::string_view token() const {  // the one that begins here
    Cursor end = *this;
    end.skip_word();
    return text_.substr(at_, end.at_ - at_);
  }

 private:
  void skip_digits() {
    while (is_digit(peek())) ++at_;
  }
  void skip_number() {
    if (peek() == '-') ++at_;
    if (peek() == '0')
      ++at_;
    else
      skip_digits();
    if (peek() == '.') {
      ++at_;
      skip_digits();
    }
    if (peek() != 'e' && peek() != 'E') return;
    ++at_;
    if (peek() == '+' || peek() == '-') ++at_;
    skip_digits();
  }
  void skip_string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n'; ++at_)
      if (text_[at_] == '\\') ++at_;
    at_ = std::min(at_ + 1, text_.size());
  }

  std::string_view text_;
  size_t at_ = 0;
};

// What the grammar allows next.
enum class Expect : uint8_t { value, first_value, first_key, key, colon, comma, end };

class Builder final : public json::json_sax_t {
 public:
  Builder(std::string_view text, JsonText& out) : text_(text), out_(out), cursor_(text) {}

  bool null() override {
    return scalar(JsonNode::Kind::null, [](JsonNode&) {});
  }
  bool boolean(bool value) override {
    return scalar(JsonNode::Kind::boolean, [&](JsonNode& n) { n.truth = value; });
  }
  bool number_integer(number_integer_t value) override {
    return scalar(JsonNode::Kind::integer, [&](JsonNode& n) {
      n.negative = value < 0;
      n.magnitude = n.negative ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
      n.text = std::to_string(value);
    });
  }
  bool number_unsigned(number_unsigned_t value) override {
    return scalar(JsonNode::Kind::integer, [&](JsonNode& n) {
      n.magnitude = value;
      n.text = std::to_string(value);
    });
  }
  bool number_float(number_float_t value, const string_t& written) override {
    return scalar(JsonNode::Kind::real, [&](JsonNode& n) {
      n.real = value;
      n.text = written;
    });
  }
  bool string(string_t& value) override {
    return scalar(JsonNode::Kind::string, [&](JsonNode& n) { n.text = std::move(value); });
  }
  bool binary(binary_t&) override { return false; }  // JSON text has none

  bool start_object(size_t) override { return open(JsonNode::Kind::object, Expect::first_key); }
  bool start_array(size_t) override { return open(JsonNode::Kind::array, Expect::first_value); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Level& level = levels_.back();
    level.key_offset = cursor_.skip_to_event();
    cursor_.skip_token();
    level.key = std::move(name);
    expect_ = Expect::colon;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override;

 private:
  struct Level {
    JsonNode node;
    std::unordered_map<std::string, size_t> keys;  // and where each stands
    std::string key;                               // of the value that comes next
    size_t key_offset = 0;
  };

  template <typename Fill>
  bool scalar(JsonNode::Kind kind, Fill fill) {
    JsonNode node;
    node.kind = kind;
    node.offset = cursor_.skip_to_event();
    cursor_.skip_token();
    fill(node);
    put(std::move(node));
    return true;
  }

  bool open(JsonNode::Kind kind, Expect next) {
    const size_t offset = cursor_.skip_to_event();
    if (levels_.size() >= kJsonDepthMax) {
      fail(offset, "nested deeper than " + std::to_string(kJsonDepthMax) + " levels");
      return false;
    }
    cursor_.skip_token();
    levels_.emplace_back();
    levels_.back().node.kind = kind;
    levels_.back().node.offset = offset;
    expect_ = next;
    return true;
  }

  bool close() {
    cursor_.skip_to_event();
    cursor_.skip_token();
    JsonNode node = std::move(levels_.back().node);
    levels_.pop_back();
    put(std::move(node));
    return true;
  }

  void put(JsonNode node) {
    expect_ = levels_.empty() ? Expect::end : Expect::comma;
    if (levels_.empty()) {
      out_.root = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == JsonNode::Kind::array) {
      level.node.items.push_back(std::move(node));
    } else if (level.keys.try_emplace(level.key, level.key_offset).second) {
      level.node.members.push_back({std::move(level.key), level.key_offset, std::move(node)});
    } else {
      duplicate(level);
    }
  }

  void duplicate(const Level& level) {
    const JsonPlace place = out_.lines.place(level.keys.at(level.key));
    out_.duplicates.push_back({level.key_offset, member_path(path(), level.key),
                               "duplicate key: it stands at " + std::to_string(place.line) + ":" +
                                   std::to_string(place.column) + " already"});
  }

  std::string path() const {  // of the innermost open value
    std::string p;
    for (size_t i = 0; i + 1 < levels_.size(); ++i) {
      const Level& level = levels_[i];
      p = level.node.kind == JsonNode::Kind::array ? item_path(p, level.node.items.size())
                                                   : member_path(p, level.key);
    }
    return p;
  }

  void fail(size_t offset, std::string message) {
    out_.syntax = JsonError{std::min(offset, text_.size()), path(), std::move(message)};
  }

  void explain(size_t comma, std::string_view parser_says, size_t error_offset);
  void explain_end();
  void explain_word(std::string_view word);
  std::string expected() const;

  std::string_view text_;
  JsonText& out_;
  Cursor cursor_;
  std::vector<Level> levels_;
  Expect expect_ = Expect::value;
};

// `position` counts the bytes read up to the end of the token that is wrong. Walks there from the last event,
// keeping track of what the grammar wants, so that the message can name the token by its beginning.
bool Builder::parse_error(size_t position, const std::string&, const json::exception& error) {
  const size_t error_offset = position == 0 ? 0 : position - 1;
  size_t comma = text_.size();  // the last comma passed
  for (;;) {
    if (!cursor_.skip_blank()) {
      fail(cursor_.at(), "syntax error: this comment never ends");
      return false;
    }
    Cursor after = cursor_;
    after.skip_word();
    if (cursor_.at_end() || after.at() > error_offset) break;
    if (cursor_.peek() == ',') {
      comma = cursor_.at();
      const bool in_object = !levels_.empty() && levels_.back().node.kind == JsonNode::Kind::object;
      expect_ = in_object ? Expect::key : Expect::value;
    } else if (cursor_.peek() == ':') {
      expect_ = Expect::value;
    } else {
      break;
    }
    cursor_ = after;
  }
  explain(comma, error.what(), error_offset);
  return false;
}

void Builder::explain(size_t comma, std::string_view parser_says, size_t error_offset) {
  const char c = cursor_.peek();
  if (cursor_.at_end()) return explain_end();
  if ((c == '}' || c == ']') && comma < text_.size() && (expect_ == Expect::key || expect_ == Expect::value))
    return fail(comma, std::string("syntax error: a comma before '") + c + "'; remove it");
  if (c == '\'') return fail(cursor_.at(), "syntax error: strings stand in double quotes");
  if (c == '"' && parser_says.find("invalid string") != std::string_view::npos) {
    const size_t from = parser_says.find("invalid string");
    if (error_offset >= text_.size() || text_[error_offset] == '\n')
      return fail(cursor_.at(), "syntax error: this string has no closing quote on its line");
    return fail(error_offset, "syntax error: " + std::string(parser_says.substr(
                                                     from, parser_says.find("; last read") - from)));
  }
  if (parser_says.find("number overflow") != std::string_view::npos)
    return fail(cursor_.at(), "syntax error: the number " + quoted(cursor_.token()) + " is too large");
  if (is_word(c)) return explain_word(cursor_.token());
  const std::string token =
      c == '"' ? "string " + std::string(quoted(cursor_.token().substr(1, cursor_.token().size() - 2)))
               : quoted(cursor_.token());
  fail(cursor_.at(), "syntax error: unexpected " + token + "; " + expected());
}

void Builder::explain_end() {
  if (levels_.empty())
    return fail(text_.size(), "syntax error: the text is empty; a configuration begins with '{'");
  const Level& level = levels_.back();
  const JsonPlace place = out_.lines.place(level.node.offset);
  fail(text_.size(), std::string("syntax error: the text ends here, but the '") +
                         (level.node.kind == JsonNode::Kind::array ? '[' : '{') + "' at " +
                         std::to_string(place.line) + ":" + std::to_string(place.column) + " is not closed");
}

void Builder::explain_word(std::string_view word) {
  const bool wants_key = expect_ == Expect::key || expect_ == Expect::first_key;
  const bool wants_value = expect_ == Expect::value || expect_ == Expect::first_value;
  std::string message = "syntax error: ";
  if (wants_key)
    message += "keys stand in double quotes: " + quoted(word);
  else if (wants_value && (word[0] == '+' || word[0] == '-' || word[0] == '.' || is_digit(word[0])))
    message += quoted(word) + " is not a number";
  else if (wants_value)
    message += "unknown word " + quoted(word) + "; expected a value: a string stands in double quotes";
  else
    message += "unexpected " + quoted(word) + "; " + expected();
  if (is_digit(cursor_.peek()) && cursor_.at() > 0 && is_digit(text_[cursor_.at() - 1]))
    message += " (numbers have no leading zeros)";
  fail(cursor_.at(), message);
}

std::string Builder::expected() const {
  switch (expect_) {
    case Expect::value:
      return "expected a value";
    case Expect::first_value:
      return "expected a value or ']'";
    case Expect::first_key:
      return "expected a key in double quotes or '}'";
    case Expect::key:
      return "expected a key in double quotes";
    case Expect::colon:
      return "expected ':' after the key";
    case Expect::end:
      return "expected the end of the text";
    case Expect::comma:
      break;
  }
  const bool in_array = !levels_.empty() && levels_.back().node.kind == JsonNode::Kind::array;
  return std::string("expected ',' or '") + (in_array ? "]'" : "}'");
}

}  // namespace

LineIndex::LineIndex(std::string_view text) {
  starts_.push_back(text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
  for (size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1))
    starts_.push_back(at + 1);
}

JsonPlace LineIndex::place(size_t offset) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), offset);
  if (after == starts_.begin()) return {1, 1};
  return {static_cast<int>(after - starts_.begin()), static_cast<int>(offset - *(after - 1)) + 1};
}

JsonText read_json(std::string_view text) {
  if (text.size() > kJsonBytesMax)
    return {
        {}, LineIndex(""), JsonError{0, "", "larger than " + std::to_string(kJsonBytesMax) + " bytes"}, {}};
  JsonText out{{}, LineIndex(text), {}, {}};
  // The parser takes a NUL for the end and would ignore whatever follows it.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    out.syntax = JsonError{nul, "", "syntax error: a NUL byte; is this a text file?"};
    return out;
  }
  Builder builder(text, out);
  const bool complete =
      json::sax_parse(text.begin(), text.end(), &builder, json::input_format_t::json, true, true);
  if (!complete && !out.syntax) out.syntax = JsonError{0, "", "syntax error"};
  return out;
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 64;
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  if (text.size() > kShown) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80)
      out.pop_back();  // half a letter
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
    out += "...";
  }
  return out + "\"";
}

std::string member_path(std::string_view parent, std::string_view key) {
  const std::string shown = quoted(key);
  std::string path(parent);
  if (!path.empty()) path += '.';
  return path + shown.substr(1, shown.size() - 2);
}

std::string item_path(std::string_view parent, size_t index) {
  return std::string(parent) + "[" + std::to_string(index) + "]";
}

}  // namespace tally
