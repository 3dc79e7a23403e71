#include "daemon/log.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>

namespace tally {
namespace {

constexpr std::string_view kLevelNames[] = {"debug", "info", "warning", "error"};

std::string_view level_name(LogLevel level) { return kLevelNames[static_cast<size_t>(level)]; }

std::string timestamp() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  tm parts{};
  ::gmtime_r(&t.tv_sec, &parts);
  char text[40];
  const size_t n = ::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  char whole[64];
  std::snprintf(whole, sizeof whole, "%.*s.%03ldZ", static_cast<int>(n), text, t.tv_nsec / 1'000'000);
  return whole;
}

// Bytes of the UTF-8 sequence that `text` begins with; 0 where it begins with none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const size_t n = first < 0x80                    ? 1
                   : first >= 0xc2 && first < 0xe0 ? 2
                   : first >= 0xe0 && first < 0xf0 ? 3
                   : first >= 0xf0 && first < 0xf5 ? 4
                                                   : 0;
  if (n == 0 || n > text.size()) return 0;
  for (size_t i = 1; i < n; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f))
    return 0;  // overlong, surrogates
  if ((first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) return 0;
  return n;
}

bool is_plain(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text)
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 127) return false;
  return true;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t n = utf8_length(text.substr(i));
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c == 0x7f || n == 0) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += text.substr(i, n);
    }
    i += n == 0 ? 1 : n;
  }
  return out + '"';
}

void Log::line(LogLevel level, std::string_view message, LogFields fields) {
  if (level < least_) return;
  std::string text;
  if (format_ == LogFormat::json) {
    text = "{\"time\":\"" + timestamp() + "\",\"level\":\"" + std::string(level_name(level)) +
           "\",\"message\":" + json_quoted(message);
    for (const LogField& f : fields)
      text += ',' + json_quoted(f.name) + ':' + (f.quoted ? json_quoted(f.value) : f.value);
    text += "}\n";
  } else {
    text = timestamp() + ' ' + std::string(level_name(level)) + ": " + std::string(message);
    for (const LogField& f : fields) {
      text += ' ';
      text += f.name;
      text += '=';
      text += !f.quoted || is_plain(f.value) ? f.value : json_quoted(f.value);
    }
    text += '\n';
  }
  // One write, so that lines of several threads and processes do not mix; nothing can be done where it fails.
  [[maybe_unused]] const ssize_t written = ::write(fd_, text.data(), text.size());
}

bool parse_log_level(std::string_view text, LogLevel& out) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (text != kLevelNames[i]) continue;
    out = static_cast<LogLevel>(i);
    return true;
  }
  return false;
}

bool parse_log_format(std::string_view text, LogFormat& out) {
  if (text != "text" && text != "json") return false;
  out = text == "json" ? LogFormat::json : LogFormat::text;
  return true;
}

}  // namespace tally
