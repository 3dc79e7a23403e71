// Frames of a connection: bounded on both sides, whatever the other end does or does not.
#include "daemon/stream.h"

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>
#include <memory>
#include <vector>

#include "doctest/doctest.h"

using namespace tally;
using asio::ip::tcp;

namespace {

// A stream and the raw socket at its other end.
struct Ends {
  asio::io_context io;
  tcp::acceptor door{io, {asio::ip::address_v4::loopback(), 0}};
  tcp::socket raw{io};
  std::unique_ptr<Stream> stream;

  Ends() {
    raw.connect(door.local_endpoint());
    tcp::socket socket = door.accept();
    socket.non_blocking(true);
    stream = std::make_unique<Stream>(1, std::move(socket), asio::ip::address_v4::loopback(), std::nullopt, MonoTime{});
  }
  void put(const std::vector<uint8_t>& bytes) { asio::write(raw, asio::buffer(bytes)); }
  Stream::Read read() {
    stream->socket().wait(tcp::socket::wait_read);
    return stream->read();
  }
  std::vector<uint8_t> get(size_t n) {
    std::vector<uint8_t> bytes(n);
    asio::read(raw, asio::buffer(bytes));
    return bytes;
  }
};

std::vector<uint8_t> frame(size_t n, uint8_t fill) {
  std::vector<uint8_t> bytes(n + 2, fill);
  bytes[0] = static_cast<uint8_t>(n & 0xff);
  bytes[1] = static_cast<uint8_t>(n >> 8);
  return bytes;
}

}  // namespace

TEST_CASE("frames come out as they went in, however they were cut on the way") {
  Ends ends;
  const auto whole = frame(1'000, 7);
  ends.put({whole[0]});
  CHECK(ends.read() == Stream::Read::some);
  CHECK_FALSE(ends.stream->next());
  ends.put({whole.begin() + 1, whole.begin() + 500});
  CHECK(ends.read() == Stream::Read::some);
  CHECK_FALSE(ends.stream->next());
  const std::vector<uint8_t> rest(whole.begin() + 500, whole.end());
  ends.put(rest);
  ends.put(frame(0, 0));
  ends.put(frame(kDatagramMax, 9));
  std::vector<size_t> sizes;
  while (sizes.size() < 3) {
    REQUIRE(ends.read() == Stream::Read::some);
    while (const auto next = ends.stream->next()) sizes.push_back(next->size());
  }
  CHECK(sizes == std::vector<size_t>{1'000, 0, kDatagramMax});
  CHECK(ends.stream->read() == Stream::Read::nothing);
  CHECK_FALSE(ends.stream->too_long());
  ends.raw.close();
  CHECK(ends.read() == Stream::Read::over);
}

TEST_CASE("a frame that is longer than any datagram is seen by its length alone") {
  for (const size_t n : {kDatagramMax + 1, size_t{65'535}}) {
    Ends ends;
    const auto bytes = frame(n, 1);
    ends.put({bytes[0], bytes[1]});
    REQUIRE(ends.read() == Stream::Read::some);
    CHECK(ends.stream->too_long());
    CHECK_FALSE(ends.stream->next());
  }
}

TEST_CASE("what a reader does not take is queued up to a bound, then dropped, and no frame is cut") {
  Ends ends;
  const std::vector<uint8_t> bytes(kDatagramMax, 5);
  size_t accepted = 0, dropped = 0;
  while (dropped < 100) {
    if (ends.stream->say(bytes) == Stream::Said::dropped)
      ++dropped;
    else
      ++accepted;
    REQUIRE(accepted < 1'000'000);
  }
  CHECK(accepted * Stream::kFrameMax > Stream::kQueueMax - Stream::kFrameMax);
  for (size_t i = 0; i < accepted; ++i) {
    ends.stream->flush();
    REQUIRE(ends.get(Stream::kFrameMax) == frame(kDatagramMax, 5));
  }
  CHECK(ends.stream->flush());
  CHECK(ends.stream->say({}) == Stream::Said::sent);
  CHECK(ends.get(2) == std::vector<uint8_t>{0, 0});
}

TEST_CASE("nobody waits for room in a connection that is broken, and reading finds its end") {
  Ends ends;
  const std::vector<uint8_t> bytes(kDatagramMax, 5);
  while (ends.stream->say(bytes) != Stream::Said::dropped) continue;
  CHECK_FALSE(ends.stream->flush());
  ends.raw.set_option(asio::socket_base::linger(true, 0));
  ends.raw.close();
  ends.stream->socket().wait(tcp::socket::wait_write);
  CHECK(ends.stream->flush());
  CHECK(ends.stream->say(bytes) == Stream::Said::dropped);
  CHECK(ends.read() == Stream::Read::over);
}

TEST_CASE("a reader that stays slow for long makes the queue no longer, and gets every frame that was not dropped") {
  Ends ends;
  size_t accepted = 0, read = 0;
  for (size_t round = 0; round < 20'000; ++round) {
    const std::vector<uint8_t> bytes(1'000, static_cast<uint8_t>(accepted));
    if (ends.stream->say(bytes) != Stream::Said::dropped) ++accepted;
    ends.stream->flush();
    if (round % 4 == 3) {
      REQUIRE(ends.get(1'002) == frame(1'000, static_cast<uint8_t>(read)));
      ++read;
    }
  }
  for (; read < accepted; ++read) {
    ends.stream->flush();
    REQUIRE(ends.get(1'002) == frame(1'000, static_cast<uint8_t>(read)));
  }
}
