#include "daemon/stream.h"

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <cstring>
#include <utility>

#include "base/fail.h"

namespace tally {
namespace {

constexpr size_t kKeptWhenEmpty = 16 * 1024;  // of a queue that has drained: the rest of its memory goes back
constexpr size_t kMovedAt = Stream::kQueueMax / 4;
static_assert(kDatagramMax < 65'536);

}  // namespace

Stream::Stream(uint64_t id_, asio::ip::tcp::socket socket, asio::ip::address host_, std::optional<uint16_t> dialed_, MonoTime since_)
    : id(id_), host(std::move(host_)), dialed(dialed_.has_value()), since(since_), peer(dialed_), connected(!dialed), socket_(std::move(socket)) {}

size_t Stream::send(std::span<const uint8_t> bytes) {
  asio::error_code error;
  const size_t n = socket_.write_some(asio::buffer(bytes.data(), bytes.size()), error);
  if (!error) return n;
  broken_ = broken_ || error != asio::error::would_block;
  return 0;
}

Stream::Said Stream::say(std::span<const uint8_t> bytes) {
  CHECK_THAT(bytes.size() <= kDatagramMax);
  std::array<uint8_t, kFrameMax> frame;
  frame[0] = static_cast<uint8_t>(bytes.size() & 0xff);
  frame[1] = static_cast<uint8_t>(bytes.size() >> 8);
  std::ranges::copy(bytes, frame.begin() + kHeadBytes);
  std::span<const uint8_t> rest(frame.data(), kHeadBytes + bytes.size());
  if (connected && !waiting()) rest = rest.subspan(send(rest));
  if (rest.empty()) return Said::sent;
  if (broken_ || queue_.size() - sent_ + rest.size() > kQueueMax) return Said::dropped;
  if (sent_ > kMovedAt) {  // few bytes are moved for each that is sent
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
  queue_.insert(queue_.end(), rest.begin(), rest.end());
  return Said::queued;
}

bool Stream::flush() {
  if (broken_ || !waiting()) return true;
  sent_ += send(std::span(queue_).subspan(sent_));
  if (waiting()) return broken_;
  sent_ = 0;
  queue_.clear();
  if (queue_.capacity() > kKeptWhenEmpty) queue_.shrink_to_fit();
  return true;
}

Stream::Read Stream::read() {
  std::memmove(in_.data(), in_.data() + taken_, filled_ - taken_);
  filled_ -= std::exchange(taken_, size_t{0});
  asio::error_code error;
  const size_t n = socket_.read_some(asio::buffer(in_.data() + filled_, in_.size() - filled_), error);
  if (error == asio::error::would_block) return Read::nothing;
  if (error) return Read::over;
  filled_ += n;
  return Read::some;
}

bool Stream::too_long() const { return filled_ - taken_ >= kHeadBytes && frame_bytes() > kDatagramMax; }

std::optional<std::span<const uint8_t>> Stream::next() {
  if (filled_ - taken_ < kHeadBytes || too_long()) return std::nullopt;
  const size_t n = frame_bytes();
  if (filled_ - taken_ < kHeadBytes + n) return std::nullopt;
  const std::span<const uint8_t> frame(in_.data() + taken_ + kHeadBytes, n);
  taken_ += kHeadBytes + n;
  return frame;
}

}  // namespace tally
