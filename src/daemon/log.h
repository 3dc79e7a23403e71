// What the daemon says on stderr: one line an event, as text or as JSON.
//
// Thread rule: any thread; a line is one write. Never called by what lies below src/daemon, and never once a
// request. An event has a message that stays the same and fields that do not, so that it can be searched for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace tally {

enum class LogLevel : uint8_t { debug, info, warning, error };
enum class LogFormat : uint8_t { text, json };

struct LogField {
  LogField(std::string_view name_, std::string_view text) : name(name_), value(text), quoted(true) {}
  LogField(std::string_view name_, const std::string& text) : name(name_), value(text), quoted(true) {}
  LogField(std::string_view name_, const char* text) : name(name_), value(text), quoted(true) {}
  template <typename Number>
  requires std::is_arithmetic_v<Number> LogField(std::string_view name_, Number number)
      : name(name_), value(std::to_string(number)) {}

  std::string_view name;
  std::string value;
  bool quoted = false;
};
using LogFields = std::initializer_list<LogField>;

class Log {
 public:
  Log(LogLevel least, LogFormat format, int fd = 2) : least_(least), format_(format), fd_(fd) {}

  void debug(std::string_view message, LogFields fields = {}) { line(LogLevel::debug, message, fields); }
  void info(std::string_view message, LogFields fields = {}) { line(LogLevel::info, message, fields); }
  void warning(std::string_view message, LogFields fields = {}) { line(LogLevel::warning, message, fields); }
  void error(std::string_view message, LogFields fields = {}) { line(LogLevel::error, message, fields); }

 private:
  void line(LogLevel level, std::string_view message, LogFields fields);

  const LogLevel least_;
  const LogFormat format_;
  const int fd_;
};

bool parse_log_level(std::string_view text, LogLevel& out);
bool parse_log_format(std::string_view text, LogFormat& out);
std::string json_quoted(
    std::string_view text);  // with the quotes; bytes that are not UTF-8 are escaped one by one

}  // namespace tally
