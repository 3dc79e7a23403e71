// One TCP connection between two nodes: datagrams as frames, each a length (2 bytes, the lower first) and as many bytes. A frame of no
// bytes says that its sender hears the other end by UDP.
//
// Thread rule: the cluster thread's. Nothing here waits, and nothing grows: what does not fit into the queue is dropped, as a datagram would
// be, and what arrives is read only as it is taken.
#pragma once

#include <array>
#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/time.h"
#include "cluster/wire.h"

namespace tally {

class Stream {
 public:
  static constexpr size_t kHeadBytes = 2;
  static constexpr size_t kFrameMax = kHeadBytes + kDatagramMax;
  static constexpr size_t kQueueMax = 256 * 1024;

  // `socket` does not block. `host`: who is at the other end, plain. `dialed`: the peer that was called; nullopt: it was accepted.
  Stream(uint64_t id, asio::ip::tcp::socket socket, asio::ip::address host, std::optional<uint16_t> dialed, MonoTime since);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  enum class Said : uint8_t { sent, queued, dropped };
  Said say(std::span<const uint8_t> bytes);  // requires at most kDatagramMax of them
  // Sends of the queue what there is room for. True: all of it, or there will never be room: the connection is broken, as read() will say.
  bool flush();
  bool waiting() const { return sent_ < queue_.size(); }  // for room

  enum class Read : uint8_t { some, nothing, over };
  Read read();  // once, at most what there is room for
  // The next whole frame; its bytes are valid until read(). nullopt: there is none yet, or it is longer than any of ours (too_long).
  std::optional<std::span<const uint8_t>> next();
  bool too_long() const;

  const uint64_t id;
  const asio::ip::address host;
  const bool dialed;
  const MonoTime since;
  std::optional<uint16_t> peer;  // who is there: whom we called, or who has said so
  bool connected;                // a dialed one: not yet
  bool watching_room = false;    // somebody waits until there is some
  asio::ip::tcp::socket& socket() { return socket_; }

 private:
  size_t send(std::span<const uint8_t> bytes);  // what went out
  size_t frame_bytes() const { return size_t{in_[taken_]} | size_t{in_[taken_ + 1]} << 8; }

  asio::ip::tcp::socket socket_;
  std::vector<uint8_t> queue_;
  size_t sent_ = 0;  // of the queue
  bool broken_ = false;
  std::array<uint8_t, 2 * kFrameMax> in_;
  size_t taken_ = 0, filled_ = 0;
};

}  // namespace tally
