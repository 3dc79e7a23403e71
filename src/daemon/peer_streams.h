// The TCP connections between the nodes: those that were accepted, those that were opened, and whose each is.
//
// Thread rule: the cluster thread's after construction; it runs `io` as well. Who is at the other end of an accepted connection is
// nobody's guess: it is unknown until a good frame names a node that is at that IP address (the caller says so, by is_of). What is
// unknown is little, gets nothing said, and goes after some seconds, or when newer ones come and there are too many.
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/fail.h"
#include "daemon/address_book.h"
#include "daemon/stream.h"
#include "daemon/transport.h"

namespace tally {

class PeerStreams {
 public:
  static constexpr size_t kUnknownMax = 128;  // accepted, and nothing good has come yet

  // `own`: where the node's UDP socket is. What is opened comes from that IP address.
  PeerStreams(asio::io_context& io, AddressBook::Endpoint own) : io_(io), own_(std::move(own)), acceptor_(io) {}
  PeerStreams(const PeerStreams&) = delete;
  PeerStreams& operator=(const PeerStreams&) = delete;

  Result<bool> listen();  // at the same address and port as UDP

  // Hands over the frames of a bounded part of what has arrived. `take` returns false where a frame was malformed: the connection is
  // closed then. True: there may be more.
  using Take = std::function<bool(Stream&, std::span<const uint8_t>)>;
  bool receive(const Take& take, MonoTime now);
  // From now on that stream, an accepted one, is that node's; an older one of its is closed.
  void is_of(Stream& stream, uint16_t rank);

  bool say(uint16_t to, std::span<const uint8_t> bytes);  // false: there is no connection to it
  void answer(Stream& stream, std::span<const uint8_t> bytes);
  Transport::Line line(uint16_t rank) const;
  void dial(uint16_t rank, const AddressBook::Endpoint& at);
  void close(uint16_t rank);  // those to it
  void look(MonoTime now);    // closes what takes too long; call some times a second

  struct Counts {
    uint64_t accepted = 0, dialed = 0;  // that are open
    uint64_t queue_full = 0;            // frames that were dropped
    uint64_t malformed = 0, over = 0, unknown = 0, crowded = 0, replaced = 0, failed = 0, unused = 0;  // closed, by reason
  };
  Counts counts() const;

 private:
  struct Lines {
    Stream* dialed = nullptr;
    Stream* accepted = nullptr;
  };

  void watch_acceptor();
  bool accept_some();
  void adopt(asio::ip::tcp::socket socket, const asio::ip::tcp::endpoint& from);
  void watch(Stream& stream);
  void watch_room(Stream& stream);
  void on_connected(uint64_t id, bool fine);
  Stream* best(uint16_t rank) const;
  Stream* find(uint64_t id) const;
  void put(Stream& stream, std::span<const uint8_t> bytes);
  bool read(Stream& stream, const Take& take, int& left);
  void end(Stream& stream, uint64_t& reason);

  asio::io_context& io_;
  const AddressBook::Endpoint own_;
  asio::ip::tcp::acceptor acceptor_;
  bool watching_acceptor_ = false;
  bool acceptable_ = false;  // as it was watched
  uint64_t last_id_ = 0;
  MonoTime now_{};  // as last told
  std::map<uint64_t, std::unique_ptr<Stream>> streams_;
  std::set<uint64_t> unknown_, dialing_;
  std::vector<Lines> lines_;       // by rank
  std::deque<uint64_t> readable_;  // each at most once
  Counts counts_;
};

}  // namespace tally
