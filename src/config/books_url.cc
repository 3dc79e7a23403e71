#include "config/books_url.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "config/json_tree.h"

namespace tally {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::array<std::string_view, 3> kSchemes{"redis://", "redis-sentinel://", "redis-cluster://"};  // by kind
constexpr uint16_t kRedisPort = 6379, kSentinelPort = 26379;
constexpr size_t kPlacesMax = 16, kPrefixMax = 64;

Failure bad_url(std::string_view text, const std::string& why) {
  // What stands before the '@' is nobody's to read.
  const size_t scheme = text.find("://"), at = text.rfind('@');
  const std::string shown = scheme != std::string_view::npos && at != std::string_view::npos && at > scheme
                                ? std::string(text.substr(0, scheme + 3)) + "..." + std::string(text.substr(at))
                                : std::string(text);
  return {"must be \"peers\" or where Redis is, such as \"redis://10.0.0.5:6379/0\", \"unix:/run/redis/redis.sock\", "
          "\"redis-sentinel://10.0.0.5:26379,10.0.0.6:26379/mymaster\" or \"redis-cluster://10.0.0.5:6379,10.0.0.6:6379\", got " +
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
std::string read_place(std::string_view text, uint16_t otherwise, RedisAddress& place) {
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
  const auto* scheme = std::ranges::find_if(kSchemes, [&](std::string_view one) { return rest.starts_with(one); });
  if (scheme == kSchemes.end()) return wrong("its scheme is not known; rediss:// is not served (docs/redis.md)");
  url.kind = static_cast<BooksUrl::Kind>(scheme - kSchemes.begin());
  const bool sentinel = url.kind == BooksUrl::Kind::sentinel;
  rest.remove_prefix(scheme->size());
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
  if (url.kind == BooksUrl::Kind::cluster && url.database != 0) return wrong("a Redis Cluster has the database 0 and no other: leave the number out");
  return url;
}

std::string RedisAddress::text() const {
  if (port == 0) return host;
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

std::vector<std::string> BooksUrl::login() const {
  if (password.empty()) return {};
  if (user.empty()) return {"AUTH", password};
  return {"AUTH", user, password};
}

std::string BooksUrl::text() const {
  const std::string options = prefix == "tally" ? "" : "?prefix=" + prefix;
  if (places.front().port == 0) {
    const std::string db = database == 0 ? "" : (options.empty() ? "?db=" : "&db=") + std::to_string(database);
    return std::string(kUnix) + places.front().host + options + db;
  }
  std::string out(kSchemes[static_cast<size_t>(kind)]);
  if (!user.empty() || !password.empty()) out += encoded(user) + (password.empty() ? "" : ":" + encoded(password)) + "@";
  for (size_t i = 0; i < places.size(); ++i) out += (i == 0 ? "" : ",") + places[i].text();
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
