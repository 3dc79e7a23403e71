#include "config/books_url.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "config/json_tree.h"

namespace tally {
namespace {

constexpr std::string_view kRedis = "redis://", kSentinel = "redis-sentinel://", kUnix = "unix:";
constexpr uint16_t kRedisPort = 6379, kSentinelPort = 26379;
constexpr size_t kPlacesMax = 16, kPrefixMax = 64;

Failure bad_url(std::string_view text, const std::string& why) {
  // What stands before the '@' is nobody's to read.
  const size_t scheme = text.find("://"), at = text.rfind('@');
  const std::string shown = scheme != std::string_view::npos && at != std::string_view::npos && at > scheme
                                ? std::string(text.substr(0, scheme + 3)) + "..." + std::string(text.substr(at))
                                : std::string(text);
  return {"must be \"peers\" or where Redis is, such as \"redis://10.0.0.5:6379/0\", \"unix:/run/redis/redis.sock\" or "
          "\"redis-sentinel://10.0.0.5:26379,10.0.0.6:26379/mymaster\", got " +
          quoted(std::string_view(shown)) + ": " + why};
}

template <typename N>
std::optional<N> number(std::string_view text) {
  N n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return n;
}

bool is_plain(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'; }

std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    uint8_t byte = 0;
    if (i + 2 >= text.size() || std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr != &text[i + 1] + 2) return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::string encoded(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (is_plain(c)) {
      out += c;
      continue;
    }
    out += '%';
    out += kHex[static_cast<uint8_t>(c) >> 4];
    out += kHex[static_cast<uint8_t>(c) & 15];
  }
  return out;
}

std::string_view cut(std::string_view& rest, char at) {
  const size_t end = std::min(rest.find(at), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

// "" where it is fine.
std::string read_place(std::string_view text, uint16_t otherwise, BooksUrl::Place& place) {
  std::string_view host = text, port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return "']' is missing";
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return "behind ']' comes \":PORT\"";
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  if (host.empty() || !std::ranges::all_of(host, [](char c) { return is_plain(c) || c == ':'; })) return "a host is an address or a name";
  place.host = host;
  place.port = otherwise;
  if (port.empty()) return "";
  const auto n = number<uint16_t>(port.substr(1));
  if (!n || *n == 0) return "a port is a number from 1 to 65535";
  place.port = *n;
  return "";
}

std::string read_options(std::string_view options, BooksUrl& url) {
  while (!options.empty()) {
    std::string_view value = cut(options, '&');
    const std::string_view name = cut(value, '=');
    if (name == "prefix") {
      const bool allowed = !value.empty() && value.size() <= kPrefixMax && std::ranges::all_of(value, [](char c) { return is_plain(c) || c == ':'; });
      if (!allowed) return "a prefix has 1 to 64 letters, digits, '-', '_', '.' or ':'";
      url.prefix = value;
    } else if (name == "db") {
      const auto n = number<uint32_t>(value);
      if (!n) return "a database is a number";
      url.database = *n;
    } else {
      return "there is no option " + quoted(name) + "; there are \"prefix\" and \"db\"";
    }
  }
  return "";
}

}  // namespace

Result<BooksUrl> parse_books_url(std::string_view text) {
  BooksUrl url;
  std::string_view rest = text;
  const auto wrong = [&](const std::string& why) { return bad_url(text, why); };
  if (rest.starts_with(kUnix)) {
    rest.remove_prefix(kUnix.size());
    const std::string_view path = cut(rest, '?');
    if (!path.starts_with('/')) return wrong("a path is absolute");
    url.places.push_back({std::string(path), 0});
    if (const std::string why = read_options(rest, url); !why.empty()) return wrong(why);
    return url;
  }
  if (rest.starts_with(kSentinel)) url.kind = BooksUrl::Kind::sentinel;
  else if (!rest.starts_with(kRedis)) return wrong("its scheme is not known; redis-cluster:// and rediss:// are not served (docs/redis.md)");
  const bool sentinel = url.kind == BooksUrl::Kind::sentinel;
  rest.remove_prefix(sentinel ? kSentinel.size() : kRedis.size());
  std::string_view path = cut(rest, '?');
  if (const std::string why = read_options(rest, url); !why.empty()) return wrong(why);
  std::string_view hosts = cut(path, '/');
  if (const size_t at = hosts.rfind('@'); at != std::string_view::npos) {
    std::string_view password = hosts.substr(0, at);
    const auto user = decoded(cut(password, ':'));
    const auto secret = decoded(password);
    if (!user || !secret) return wrong("'%' is followed by two hexadecimal digits");
    url.user = *user;
    url.password = *secret;
    hosts.remove_prefix(at + 1);
  }
  do {
    const std::string why = read_place(cut(hosts, ','), sentinel ? kSentinelPort : kRedisPort, url.places.emplace_back());
    if (!why.empty()) return wrong(why);
  } while (!hosts.empty());
  if (url.places.size() > kPlacesMax) return wrong("at most 16 hosts");
  if (sentinel) {
    url.service = cut(path, '/');
    if (url.service.empty()) return wrong("the name of the master is missing: redis-sentinel://HOST:26379/NAME");
  }
  if (!path.empty()) {
    const auto n = number<uint32_t>(path);
    if (!n) return wrong("behind '/' comes the number of a database");
    url.database = *n;
  }
  return url;
}

std::string BooksUrl::text() const {
  const std::string options = prefix == "tally" ? "" : "?prefix=" + prefix;
  if (places.front().port == 0) {
    const std::string db = database == 0 ? "" : (options.empty() ? "?db=" : "&db=") + std::to_string(database);
    return std::string(kUnix) + places.front().host + options + db;
  }
  std::string out(kind == Kind::sentinel ? kSentinel : kRedis);
  if (!user.empty() || !password.empty()) out += encoded(user) + (password.empty() ? "" : ":" + encoded(password)) + "@";
  for (size_t i = 0; i < places.size(); ++i) {
    const bool v6 = places[i].host.find(':') != std::string::npos;
    out += (i == 0 ? "" : ",") + (v6 ? "[" + places[i].host + "]" : places[i].host) + ":" + std::to_string(places[i].port);
  }
  if (kind == Kind::sentinel) out += "/" + service;
  if (database != 0) out += "/" + std::to_string(database);
  return out + options;
}

std::string BooksUrl::text_without_secret() const {
  BooksUrl copy = *this;
  if (!copy.password.empty()) copy.password = "...";
  return copy.text();
}

}  // namespace tally
