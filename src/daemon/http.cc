#include "daemon/http.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/read_until.hpp>
#include <asio/steady_timer.hpp>
#include <asio/write.hpp>
#include <cctype>
#include <utility>

namespace tally {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);  // for a request, and for a response to be taken

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

bool contains_word(std::string_view text, std::string_view lower) {
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  return std::search(text.begin(), text.end(), lower.begin(), lower.end(), same) != text.end();
}

bool is_header(std::string_view line, std::string_view lower_name) {
  return line.size() > lower_name.size() && line[lower_name.size()] == ':' &&
         contains_word(line.substr(0, lower_name.size()), lower_name);
}

}  // namespace

bool parse_http_head(std::string_view head, HttpRequest& out) {
  const size_t end = head.find("\r\n");
  if (end == std::string_view::npos) return false;
  const std::string_view line = head.substr(0, end);
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return false;
  const std::string_view version = line.substr(last + 1);
  out.method = line.substr(0, first);
  out.target = line.substr(first + 1, last - first - 1);
  if (version.substr(0, 7) != "HTTP/1." || out.target.empty() || out.target[0] != '/') return false;
  out.keep_alive = version != "HTTP/1.0";
  for (head.remove_prefix(end + 2); !head.empty();) {
    const std::string_view header = head.substr(0, head.find("\r\n"));
    if (is_header(header, "connection") && contains_word(header, "close")) out.keep_alive = false;
    const bool sized =
        is_header(header, "content-length") && header.find_first_not_of(": 0", 14) != std::string_view::npos;
    if (sized || is_header(header, "transfer-encoding")) out.has_body = true;
    head.remove_prefix(std::min(head.size(), header.size() + 2));
  }
  return true;
}

std::string format_http(const HttpResponse& response, bool keep_alive, bool head_only) {
  std::string text = "HTTP/1.1 " + std::to_string(response.status) + " ";
  text += reason_phrase(response.status);
  text +=
      "\r\nContent-Type: " + response.type + "\r\nContent-Length: " + std::to_string(response.body.size());
  if (response.status == 405) text += "\r\nAllow: GET, HEAD";
  text += "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff";
  text += keep_alive ? "\r\n\r\n" : "\r\nConnection: close\r\n\r\n";
  return head_only ? text : text + response.body;
}

// Callbacks rather than a coroutine: asio 1.22 allocates coroutine frames in one way and frees them in
// another.
struct HttpServer::Connection {
  Connection(asio::io_context& io, Descriptor fd, std::shared_ptr<int> open_)
      : stream(io, fd.release()), patience(io), open(std::move(open_)) {}

  // Closes the stream unless the next step is reached in time; what waits on it then ends with an error.
  static void be_patient(const Shared& connection) {
    connection->patience.expires_after(kPatience);
    connection->patience.async_wait([connection](const asio::error_code& error) {
      asio::error_code ignored;
      if (!error) connection->stream.close(ignored);
    });
  }

  asio::posix::stream_descriptor stream;
  asio::steady_timer patience;
  const std::shared_ptr<int> open;
  std::string input, output;
};

HttpServer::HttpServer(asio::io_context& io, Listener listener, Handler handler)
    : io_(io),
      listener_(std::move(listener)),
      handler_(std::move(handler)),
      ready_(io, ::dup(listener_.fd())) {
  wait();
}

void HttpServer::wait() {
  ready_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& error) {
    if (error) return;
    accept_all();
    wait();
  });
}

void HttpServer::accept_all() {
  while (Descriptor fd =
             Descriptor(::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)))
    if (open_.use_count() <= kConnectionsMax) read(std::make_shared<Connection>(io_, std::move(fd), open_));
}

void HttpServer::read(const Shared& connection) {
  Connection::be_patient(connection);
  asio::async_read_until(connection->stream, asio::dynamic_buffer(connection->input, kHeadBytesMax),
                         "\r\n\r\n", [this, connection](const asio::error_code& error, size_t size) {
                           HttpRequest request;
                           request.keep_alive = false;
                           if (error == asio::error::not_found)
                             return answer(connection, {431, {}, {}}, request);
                           if (error) return static_cast<void>(connection->patience.cancel());
                           const std::string_view head = std::string_view(connection->input).substr(0, size);
                           if (!parse_http_head(head, request)) {
                             request.keep_alive = false;
                             return answer(connection, {400, {}, {}}, request);
                           }
                           connection->input.erase(0, size);
                           if (request.has_body) request.keep_alive = false;  // it is never read
                           answer(connection, respond(request), request);
                         });
}

void HttpServer::answer(const Shared& connection, const HttpResponse& response, const HttpRequest& request) {
  Connection::be_patient(connection);
  connection->output = format_http(response, request.keep_alive, request.method == "HEAD");
  asio::async_write(
      connection->stream, asio::buffer(connection->output),
      [this, connection, keep_alive = request.keep_alive](const asio::error_code& error, size_t) {
        if (keep_alive && !error) return read(connection);
        connection->patience.cancel();
      });
}

HttpResponse HttpServer::respond(const HttpRequest& request) const {
  if (request.method != "GET" && request.method != "HEAD")
    return {405, "text/plain; charset=utf-8", "GET or HEAD only\n"};
  return handler_(request.target.substr(0, request.target.find('?')));
}

}  // namespace tally
