#include "daemon/http.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/read_until.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
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

struct HttpServer::Connection {
  Connection(asio::io_context& io, Descriptor fd) : stream(io, fd.release()), patience(io) {}

  void be_patient() {
    patience.expires_after(kPatience);
    patience.async_wait([this](const asio::error_code& error) {
      asio::error_code ignored;
      if (!error) stream.close(ignored);
    });
  }

  asio::posix::stream_descriptor stream;
  asio::steady_timer patience;
};

HttpServer::HttpServer(asio::io_context& io, Listener listener, Handler handler)
    : io_(io),
      listener_(std::move(listener)),
      handler_(std::move(handler)),
      ready_(io, ::dup(listener_.fd())) {
  wait();
}

HttpServer::~HttpServer() = default;

void HttpServer::stop() {
  asio::error_code ignored;
  ready_.close(ignored);
  listener_.close();
  for (Connection& connection : connections_) connection.stream.close(ignored);
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
             Descriptor(::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC))) {
    if (connections_.size() >= kConnectionsMax) continue;
    const auto place = connections_.emplace(connections_.end(), io_, std::move(fd));
    asio::co_spawn(io_, serve(*place), [this, place](std::exception_ptr) { connections_.erase(place); });
  }
}

asio::awaitable<void> HttpServer::serve(Connection& connection) {
  std::string input;
  asio::error_code error;
  for (bool keep_alive = true; keep_alive;) {
    connection.be_patient();
    const size_t size =
        co_await asio::async_read_until(connection.stream, asio::dynamic_buffer(input, kHeadBytesMax),
                                        "\r\n\r\n", asio::redirect_error(asio::use_awaitable, error));
    HttpRequest request;
    HttpResponse response;
    if (error == asio::error::not_found) {
      response.status = 431;
      keep_alive = false;
    } else if (error) {
      break;
    } else if (!parse_http_head(std::string_view(input).substr(0, size), request)) {
      response.status = 400;
      keep_alive = false;
    } else {
      response = respond(request);
      keep_alive =
          request.keep_alive && !request.has_body;  // a body is never read: the connection ends after it
    }
    input.erase(0, size);
    connection.be_patient();
    const std::string bytes = format_http(response, keep_alive, request.method == "HEAD");
    co_await asio::async_write(connection.stream, asio::buffer(bytes),
                               asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
  }
  connection.patience.cancel();
}

HttpResponse HttpServer::respond(const HttpRequest& request) const {
  if (request.method != "GET" && request.method != "HEAD")
    return {405, "text/plain; charset=utf-8", "GET or HEAD only\n"};
  return handler_(request.target.substr(0, request.target.find('?')));
}

}  // namespace tally
