#include "connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "daemon/log.h"

namespace tally::tool {
namespace {

constexpr int kDepthMax = 8;
constexpr int64_t kItemsMax = 1'000'000;

std::string what_to_do(int error) {
  switch (error) {
    case ENOENT:
    case ECONNREFUSED:
      return "Is tallyd running? Start it with: tallyd\nAnother socket: tally -s PATH, or TALLY_SOCKET=PATH";
    case EACCES:
    case EPERM:
      return "The socket is not open to this user: join its group, or set its mode (unix:PATH?mode=0666)";
    case EAGAIN:
      return "tallyd is there and does not answer: look at its log, and at its load";
    default:
      return "Look at tallyd's log; another socket: tally -s PATH, or TALLY_SOCKET=PATH";
  }
}

Failure unreachable(const std::string& where, int error) {
  std::string text = "cannot reach tallyd at " + where + ": ";
  text +=
      error == EAGAIN ? "no answer within " + std::to_string(kPatience.count()) + " s" : std::strerror(error);
  return Failure{text + " (errno " + std::to_string(error) + ")\n" + what_to_do(error)};
}

// The address of `where`, or a length of 0.
socklen_t address_of(const std::string& where, sockaddr_storage& out) {
  if (where.find('/') != std::string::npos) {
    auto& to = reinterpret_cast<sockaddr_un&>(out);
    if (where.size() >= sizeof to.sun_path) return 0;
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, where.data(), where.size());
    return sizeof to;
  }
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) return 0;
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(where.data() + colon + 1, where.data() + where.size(), port);
  if (error != std::errc() || end != where.data() + where.size()) return 0;
  std::string host = where.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  auto& v4 = reinterpret_cast<sockaddr_in&>(out);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    return sizeof v4;
  }
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) return 0;
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  return sizeof v6;
}

bool read_number(std::string_view text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

Result<size_t> parse_items(std::string_view bytes, size_t at, int64_t count, Reply& out, int depth) {
  if (count < 0 || count > kItemsMax || depth >= kDepthMax) return Failure{"a reply that is too large"};
  out.items.clear();
  for (int64_t i = 0; i < count; ++i) {
    const auto size = parse_reply(bytes.substr(at), out.items.emplace_back(), depth + 1);
    if (!size || size.value() == 0) return size;
    at += size.value();
  }
  return at;
}

}  // namespace

const Reply* Reply::find(std::string_view name) const {
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if (items[i].text == name) return &items[i + 1];
  return nullptr;
}

Result<size_t> parse_reply(std::string_view bytes, Reply& out, int depth) {
  const size_t end = bytes.find("\r\n");
  if (end == std::string_view::npos) return size_t{0};
  const std::string_view line = bytes.substr(1, end - 1);
  const size_t after = end + 2;
  int64_t n = 0;
  const bool is_number = read_number(line, n);
  switch (bytes[0]) {
    case '+':
      out.kind = Reply::Kind::text;
      break;
    case '-':
      out.kind = Reply::Kind::error;
      break;
    case '_':
      out.kind = Reply::Kind::null;
      break;
    case '#':
      out.kind = Reply::Kind::boolean;
      break;
    case ',':
      out.kind = Reply::Kind::number;
      break;
    case ':':
      out.kind = Reply::Kind::integer;
      break;
    case '$':
      out.kind = Reply::Kind::text;
      break;
    case '*':
      out.kind = Reply::Kind::list;
      break;
    case '%':
      out.kind = Reply::Kind::map;
      break;
    default:
      return Failure{"a reply that is not RESP"};
  }
  const bool counted = bytes[0] == ':' || bytes[0] == '$' || bytes[0] == '*' || bytes[0] == '%';
  if (counted && !is_number) return Failure{"a reply that is not RESP"};
  out.integer = bytes[0] == '#' ? line == "t" : n;
  if (out.kind == Reply::Kind::list) return parse_items(bytes, after, n, out, depth);
  if (out.kind == Reply::Kind::map) return parse_items(bytes, after, n > kItemsMax ? n : n * 2, out, depth);
  if (out.kind == Reply::Kind::number) out.number = std::strtod(std::string(line).c_str(), nullptr);
  if (bytes[0] != '$') {
    out.text = line;
    return after;
  }
  if (n < 0) return out.kind = Reply::Kind::null, after;
  if (bytes.size() < after + static_cast<size_t>(n) + 2) return size_t{0};
  out.text = bytes.substr(after, static_cast<size_t>(n));
  return after + static_cast<size_t>(n) + 2;
}

std::string to_text(const Reply& reply) {
  switch (reply.kind) {
    case Reply::Kind::null:
      return "-";
    case Reply::Kind::boolean:
      return reply.integer != 0 ? "yes" : "no";
    case Reply::Kind::integer:
      return std::to_string(reply.integer);
    case Reply::Kind::list: {
      std::string text;
      for (const Reply& item : reply.items) {
        if (!text.empty()) text += ' ';
        text += to_text(item);
      }
      return text;
    }
    default:
      return reply.text;
  }
}

std::string to_json(const Reply& reply) {
  switch (reply.kind) {
    case Reply::Kind::null:
      return "null";
    case Reply::Kind::boolean:
      return reply.integer != 0 ? "true" : "false";
    case Reply::Kind::integer:
      return std::to_string(reply.integer);
    case Reply::Kind::number:
      return std::isfinite(reply.number) ? reply.text : "null";
    case Reply::Kind::text:
    case Reply::Kind::error:
      return json_quoted(reply.text);
    case Reply::Kind::list:
    case Reply::Kind::map:
      break;
  }
  const bool is_map = reply.kind == Reply::Kind::map;
  std::string text(1, is_map ? '{' : '[');
  for (size_t i = 0; i < reply.items.size(); ++i) {
    if (i != 0) text += is_map && i % 2 == 1 ? ':' : ',';
    text += is_map && i % 2 == 0 ? json_quoted(reply.items[i].text) : to_json(reply.items[i]);
  }
  text += is_map ? '}' : ']';
  return text;
}

Result<Connection> Connection::open(const std::string& where) {
  sockaddr_storage to{};
  const socklen_t length = address_of(where, to);
  if (length == 0) return Failure{where + " is neither a socket's path nor a numeric HOST:PORT"};
  Descriptor fd(::socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval patience{};
  patience.tv_sec = kPatience.count();
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length) != 0)
    return unreachable(where, errno);
  Connection connection(where, std::move(fd));
  const auto hello = connection.ask({"HELLO", "3"});
  if (!hello) return Failure{hello.error()};
  if (hello.value().kind == Reply::Kind::error) return Failure{where + " answers: " + hello.value().text};
  return connection;
}

Result<bool> Connection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return unreachable(where_, errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

Result<Reply> Connection::ask(const std::vector<std::string>& command) {
  std::string bytes = "*" + std::to_string(command.size()) + "\r\n";
  for (const std::string& part : command) bytes += "$" + std::to_string(part.size()) + "\r\n" + part + "\r\n";
  if (const auto sent = send(bytes); !sent) return Failure{sent.error()};
  for (Reply reply;;) {
    const auto size = parse_reply(input_, reply);
    if (!size) return Failure{where_ + " gave " + size.error() + ": is it tallyd?"};
    if (size.value() != 0) {
      input_.erase(0, size.value());
      return reply;
    }
    char buffer[16'384];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return unreachable(where_, errno);
    if (n == 0) return Failure{"tallyd at " + where_ + " closed the connection: it may be stopping"};
    input_.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace tally::tool
