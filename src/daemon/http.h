// A small HTTP/1.1 listener for the metrics, the probes and the page: GET and HEAD, keep-alive, nothing else.
//
// Thread rule: the admin thread's loop. Every connection has a bounded request, a time to say it in, and
// there are kConnectionsMax of them at most. Not the door for decisions: that one will be a worker's.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "daemon/sockets.h"

namespace tally {

struct HttpResponse {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

// The first line and what of the headers matters here.
struct HttpRequest {
  std::string method, target;
  bool keep_alive = true;
  bool has_body = false;
};
// `head`: all up to and including the empty line. False: not HTTP.
bool parse_http_head(std::string_view head, HttpRequest& out);
std::string format_http(const HttpResponse& response, bool keep_alive, bool head_only);

class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const std::string& path)>;

  HttpServer(asio::io_context& io, Listener listener, Handler handler);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  const Address& address() const { return listener_.address(); }

  static constexpr long kConnectionsMax = 64;
  static constexpr size_t kHeadBytesMax = 8'192;

 private:
  struct Connection;
  using Shared = std::shared_ptr<Connection>;  // held by what the connection waits for, and by nothing else
  void wait();
  void accept_all();
  void read(const Shared& connection);
  void answer(const Shared& connection, const HttpResponse& response, const HttpRequest& request);
  HttpResponse respond(const HttpRequest& request) const;

  asio::io_context& io_;
  Listener listener_;
  Handler handler_;
  asio::posix::stream_descriptor ready_;
  std::shared_ptr<int> open_ = std::make_shared<int>();  // one more owner for each connection that is open
};

}  // namespace tally
