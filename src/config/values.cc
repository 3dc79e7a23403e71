#include "config/values.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/nearest.h"
#include "config/config.h"
#include "config/json_tree.h"
#include "core/calendar.h"

namespace tally {
namespace {

struct Unit {
  std::string_view name;
  int64_t ns;
};
constexpr std::array kUnits = {Unit{"ns", 1},
                               Unit{"us", 1'000},
                               Unit{"ms", 1'000'000},
                               Unit{"s", 1'000'000'000},
                               Unit{"m", 60'000'000'000},
                               Unit{"h", 3'600'000'000'000},
                               Unit{"d", 86'400'000'000'000}};
constexpr std::string_view kUnitList = "ns, us, ms, s, m, h or d";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

const Unit* unit_of(std::string_view name) {
  for (const Unit& unit : kUnits)
    if (unit.name == name) return &unit;
  return nullptr;
}

// `digits` "12" or "1.5" times `unit`, exactly; nullopt where that is no whole number of steps or beyond
// int64.
std::optional<int64_t> scaled(std::string_view digits, int64_t unit) {
  constexpr __int128 kMax = INT64_MAX;
  const size_t point = digits.find('.');
  __int128 value = 0;
  for (const char c : digits.substr(0, point)) {
    value = value * 10 + (c - '0');
    if (value > kMax) return std::nullopt;
  }
  value *= unit;
  if (point != std::string_view::npos) {
    __int128 part = unit;
    for (const char c : digits.substr(point + 1)) {
      if (c == '0' && part % 10 != 0) continue;  // a zero behind the last step adds nothing
      if (part % 10 != 0) return std::nullopt;
      part /= 10;
      value += part * (c - '0');
    }
  }
  return value > kMax ? std::nullopt : std::optional(static_cast<int64_t>(value));
}

// The length of "12" or "1.5" at the front; 0 where there is none.
size_t number_length(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && is_digit(text[n])) ++n;
  if (n == 0 || n + 1 >= text.size() || text[n] != '.' || !is_digit(text[n + 1])) return n;
  for (++n; n < text.size() && is_digit(text[n]);) ++n;
  return n;
}

Failure bad_duration(std::string_view text, std::string_view why) {
  return {"must be a duration such as \"100ms\" or \"1m\", got " + quoted(text) + ": " + std::string(why)};
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  if (text == "0") return Duration(0);
  if (text.starts_with('-')) return bad_duration(text, "it is negative");
  const size_t n = number_length(text);
  if (n == 0) return bad_duration(text, "it must begin with a digit");
  const std::string_view name = text.substr(n);
  if (name.empty()) return bad_duration(text, "the unit is missing (" + std::string(kUnitList) + ")");
  const Unit* unit = unit_of(name);
  if (unit == nullptr)
    return bad_duration(text,
                        "no unit " + quoted(name) + ", only " + std::string(kUnitList) + " (m is minutes)");
  const auto ns = scaled(text.substr(0, n), unit->ns);
  if (!ns) return bad_duration(text, "it is no whole number of nanoseconds up to 292 years");
  return Duration(*ns);
}

std::string format_duration(Duration d) {
  if (d.count() == 0) return "0s";
  const Unit* best = &kUnits[0];
  for (const Unit& unit : kUnits)
    if (d.count() % unit.ns == 0) best = &unit;
  return std::to_string(d.count() / best->ns) + std::string(best->name);
}

namespace {

struct WindowWord {
  std::string_view word;
  Duration window;
};
constexpr std::array kWindowWords = {WindowWord{"second", std::chrono::seconds(1)},
                                     WindowWord{"minute", std::chrono::minutes(1)},
                                     WindowWord{"hour", std::chrono::hours(1)},
                                     WindowWord{"day", std::chrono::hours(24)},
                                     WindowWord{"week", kWeek},
                                     WindowWord{"month", kMonth},
                                     WindowWord{"year", kYear}};

}  // namespace

Result<Duration> parse_window(std::string_view text) {
  Nearest nearest(text);
  std::string words;
  for (const WindowWord& w : kWindowWords) {
    if (text == w.word) return w.window;
    nearest.offer(w.word);
    words += (words.empty() ? "" : ", ") + std::string(w.word);
  }
  if (!text.empty() && is_digit(text[0])) {
    const auto duration = parse_duration(text);
    if (duration && is_calendar(duration.value()))
      return bad_duration(text, "this length stands for \"" + std::string(calendar_name(duration.value())) + "\": write that, or another length");
    return duration;
  }
  std::string message = "must be a duration such as \"100ms\" or \"1m\", or one of " + words + ", got " + quoted(text);
  if (!nearest.best().empty()) message += "; did you mean " + quoted(nearest.best()) + "?";
  return Failure{std::move(message)};
}

std::string format_window(Duration window) {
  return is_calendar(window) ? std::string(calendar_name(window)) : format_duration(window);
}

Result<Rate> parse_rate(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return Failure{"must be a rate such as \"50/s\", \"1000/m\" or \"10/100ms\", got " + quoted(text) + ": " +
                   std::string(why)};
  };
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return bad("there is no '/'");
  const std::string_view count_text = text.substr(0, slash);
  Rate rate;
  const auto [end, failed] =
      std::from_chars(count_text.data(), count_text.data() + count_text.size(), rate.count);
  if (failed != std::errc() || end != count_text.data() + count_text.size() ||
      !kLimitRange.contains(rate.count))
    return bad("before the '/' stands a whole number, " + kLimitRange.text());
  std::string period(text.substr(slash + 1));
  if (!period.empty() && !is_digit(period[0]) && period[0] != '-') period.insert(0, "1");
  const auto duration = parse_duration(period);
  if (!duration || duration.value().count() == 0)
    return bad("after the '/' stands a unit (" + std::string(kUnitList) +
               ") or a duration such as \"100ms\"");
  rate.period = duration.value();
  if (rate.period > kWindowMax)
    return bad("the time after the '/' is longer than " + format_duration(kWindowMax));
  if (rate.period.count() < rate.count) return bad("more than 1 in a nanosecond");
  return rate;
}

std::string format_rate(Rate rate) {
  std::string period = format_duration(rate.period);
  if (period.size() > 1 && period[0] == '1' && !is_digit(period[1])) period.erase(0, 1);
  return std::to_string(rate.count) + "/" + period;
}

Duration emission_of(Rate rate) {
  if (rate.count == 0) return Duration(0);
  const int64_t ns = rate.period.count();
  return Duration(ns / rate.count + (ns % rate.count != 0 ? 1 : 0));
}

namespace {

Failure bad_overcount(std::string_view got, std::string_view why = "") {
  std::string message =
      "must be a percentage such as \"5%\", a fraction from 0 (strict) to 1, or \"unbounded\", got " +
      std::string(got);
  if (!why.empty()) message += ": " + std::string(why);
  return {message};
}
constexpr std::string_view kTooFine = "finer than a millionth (0.0001%)";

}  // namespace

Result<Overcount> parse_overcount(std::string_view text) {
  if (text == "unbounded") return Overcount{kPartsPerMillion, true};
  if (!text.ends_with('%')) {
    const std::string_view near =
        text.empty() || is_digit(text[0]) ? "" : nearest_of(text, std::array{std::string_view("unbounded")});
    return bad_overcount(quoted(text), near.empty() ? "" : "did you mean \"" + std::string(near) + "\"?");
  }
  const std::string_view digits = text.substr(0, text.size() - 1);
  if (digits.empty() || number_length(digits) != digits.size()) return bad_overcount(quoted(text));
  const auto ppm = scaled(digits, kPartsPerMillion / 100);
  if (!ppm) {
    const bool large = digits.substr(0, digits.find('.')).size() > 3;
    return large ? Result<Overcount>(Overcount{kPartsPerMillion, true})
                 : bad_overcount(quoted(text), kTooFine);
  }
  if (*ppm > kPartsPerMillion) return Overcount{kPartsPerMillion, true};
  return Overcount{static_cast<uint32_t>(*ppm), false};
}

Result<Overcount> overcount_of(double fraction) {
  char got[32];
  std::snprintf(got, sizeof got, "%.9g", fraction);
  if (!(fraction >= 0)) return bad_overcount(got);
  if (fraction > 1) {
    std::string why;
    if (fraction <= 100) why = "did you mean \"" + std::string(got) + "%\"?";
    return bad_overcount(got, why);
  }
  const double parts = fraction * kPartsPerMillion;
  if (std::abs(parts - std::round(parts)) > 1e-6) return bad_overcount(got, kTooFine);
  return Overcount{static_cast<uint32_t>(std::llround(parts)), false};
}

std::string format_overcount(Overcount e) {
  if (e.unbounded) return "unbounded";
  constexpr uint32_t kPercent = kPartsPerMillion / 100;
  std::string out = std::to_string(e.ppm / kPercent);
  if (const uint32_t rest = e.ppm % kPercent; rest != 0) {
    std::string digits = std::to_string(kPercent + rest).substr(1);
    digits.erase(digits.find_last_not_of('0') + 1);
    out += "." + digits;
  }
  return out + "%";
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t n) {
      return i + n < text.size() ? static_cast<unsigned char>(text[i + n]) : 0u;
    };
    const unsigned first = byte(0);
    const size_t length = first < 0x80                    ? 1
                          : first >= 0xc2 && first < 0xe0 ? 2
                          : (first & 0xf0) == 0xe0        ? 3
                          : first >= 0xf0 && first < 0xf5 ? 4
                                                          : 0;
    if (length == 0) return false;
    for (size_t n = 1; n < length; ++n)
      if ((byte(n) & 0xc0) != 0x80) return false;
    // Longer than needed, a surrogate, or beyond U+10FFFF (RFC 3629).
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
        (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f))
      return false;
    i += length;
  }
  return true;
}

bool is_unsigned_decimal(std::string_view text) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  return std::all_of(text.begin(), text.end(), is_digit);
}

namespace {

Failure bad_endpoint(std::string_view text, std::string_view why) {
  return {"must be a numeric address and a port such as \"127.0.0.1:8381\" or \"[::1]:8381\", got " +
          quoted(text) + ": " + std::string(why)};
}

// Host to Endpoint, or what is wrong with it.
std::string read_host(std::string_view host, bool bracketed, Endpoint& out) {
  out.host = std::string(host);
  if (bracketed) {
    in6_addr six;
    char canonical[INET6_ADDRSTRLEN];
    if (inet_pton(AF_INET6, out.host.c_str(), &six) != 1) return "not an IPv6 address between the brackets";
    inet_ntop(AF_INET6, &six, canonical, sizeof canonical);
    if (host != canonical) return "write the address as [" + std::string(canonical) + "]";
    out.loopback = IN6_IS_ADDR_LOOPBACK(&six);
    return "";
  }
  in_addr four;
  if (inet_pton(AF_INET, out.host.c_str(), &four) != 1) {
    if (host.empty()) return "the address is missing";
    return host.find(':') != std::string_view::npos ? "an IPv6 address stands in brackets"
                                                    : "here stand numeric addresses only, no names";
  }
  out.loopback = (ntohl(four.s_addr) >> 24) == 127;
  return "";
}

}  // namespace

Result<Endpoint> parse_endpoint(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || (text.ends_with(']') && text.starts_with('[')))
    return bad_endpoint(text, "the port is missing");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  Endpoint endpoint;
  if (host.size() > 64 || host.find('\0') != std::string_view::npos)
    return bad_endpoint(text, "this is no address");
  if (const std::string wrong = read_host(host, bracketed, endpoint); !wrong.empty())
    return bad_endpoint(text, wrong);
  const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (!is_unsigned_decimal(port) || failed != std::errc() || end != port.data() + port.size())
    return bad_endpoint(text, "the port must be 0 to 65535");
  return endpoint;
}

namespace {

Result<Address> parse_unix_address(std::string_view text) {
  Address address;
  const size_t question = text.find('?');
  address.path = std::string(text.substr(0, question));
  if (!address.path.starts_with('/'))
    return Failure{"a Unix socket needs an absolute path such as \"unix:/run/tallyd/tallyd.sock\", got " +
                   quoted(text)};
  if (address.path.ends_with('/'))
    return Failure{"the path of a Unix socket ends with a name, got " + quoted(text)};
  if (address.path.size() > kUnixPathMax)
    return Failure{"the path of a Unix socket has at most " + std::to_string(kUnixPathMax) + " bytes, got " +
                   std::to_string(address.path.size())};
  if (!is_utf8(address.path)) return Failure{"the path of a Unix socket must be UTF-8"};
  for (const char c : address.path)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      return Failure{"control characters in the path of a Unix socket: " + quoted(text)};
  if (question == std::string_view::npos) return address;
  constexpr std::string_view kMode = "mode=";
  const std::string_view option = text.substr(question + 1);
  const std::string_view digits = option.starts_with(kMode) ? option.substr(kMode.size()) : "";
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), address.mode, 8);
  if (digits.empty() || failed != std::errc() || end != digits.data() + digits.size() || address.mode > 0777)
    return Failure{"after the path of a Unix socket may stand \"?mode=0660\" (octal, up to 0777), got " +
                   quoted(text)};
  return address;
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) return parse_unix_address(text.substr(kUnix.size()));
  if (text.starts_with('/')) return parse_unix_address(text);
  auto endpoint = parse_endpoint(text);
  if (!endpoint) {
    if (text.find(':') == std::string_view::npos)
      return Failure{"must be \"unix:/PATH\", an absolute path, or \"ADDRESS:PORT\", got " + quoted(text)};
    return Failure{endpoint.error()};
  }
  Address address;
  address.kind = Address::Kind::tcp;
  address.host = endpoint.value().host;
  address.port = endpoint.value().port;
  return address;
}

std::string Address::text() const {
  if (kind == Kind::unix_socket) {
    char octal[16];
    std::snprintf(octal, sizeof octal, "?mode=%04o", mode);
    return "unix:" + path + octal;
  }
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string Range::text() const { return std::to_string(low) + " to " + std::to_string(high); }
std::string DurationRange::text() const { return format_duration(low) + " to " + format_duration(high); }

}  // namespace tally
