#include "daemon/redis_slots.h"

#include <charconv>
#include <string>

#include "daemon/redis_reply.h"

namespace tally {
namespace {

constexpr uint16_t kSlots = 16384;
constexpr uint16_t kPolynomial = 0x1021;  // CRC-16/XMODEM

uint16_t crc16(std::string_view bytes) {
  uint16_t crc = 0;
  for (const char byte : bytes) {
    crc ^= static_cast<uint16_t>(static_cast<uint8_t>(byte) << 8);
    for (int bit = 0; bit < 8; ++bit)
      crc = static_cast<uint16_t>((crc & 0x8000) != 0 ? crc << 1 ^ kPolynomial : crc << 1);
  }
  return crc;
}

std::optional<uint16_t> small_number(long long n, long long below) {
  return n >= 0 && n < below ? std::optional(static_cast<uint16_t>(n)) : std::nullopt;
}

// "" and nil: the server that was asked; "?": it does not know.
std::optional<RedisAddress> address_of(std::string_view host, long long port, const RedisAddress& asked) {
  const auto number = small_number(port, 65536);
  if (host == "?" || !number || *number == 0) return std::nullopt;
  return RedisAddress{host.empty() ? asked.host : std::string(host), *number};
}

std::optional<SlotRange> read_range(const redisReply& range, const RedisAddress& asked) {
  if (range.type != REDIS_REPLY_ARRAY || range.elements < 3) return std::nullopt;
  const redisReply &first = *range.element[0], &last = *range.element[1], &master = *range.element[2];
  if (first.type != REDIS_REPLY_INTEGER || last.type != REDIS_REPLY_INTEGER ||
      master.type != REDIS_REPLY_ARRAY || master.elements < 2)
    return std::nullopt;
  const redisReply &host = *master.element[0], &port = *master.element[1];
  if ((host.type != REDIS_REPLY_STRING && host.type != REDIS_REPLY_NIL) || port.type != REDIS_REPLY_INTEGER)
    return std::nullopt;
  const auto from = small_number(first.integer, kSlots), to = small_number(last.integer, kSlots);
  auto address = address_of(text_of(host), port.integer, asked);
  if (!from || !to || !address) return std::nullopt;
  return SlotRange{*from, *to, std::move(*address)};
}

}  // namespace

uint16_t slot_of(std::string_view name) {
  const size_t open = name.find('{'), close = name.find('}', open == std::string_view::npos ? 0 : open);
  const bool tagged = open != std::string_view::npos && close != std::string_view::npos && close > open + 1;
  return crc16(tagged ? name.substr(open + 1, close - open - 1) : name) % kSlots;
}

std::vector<SlotRange> read_slots(const redisReply& reply, const RedisAddress& asked) {
  std::vector<SlotRange> ranges;
  for (size_t i = 0; reply.type == REDIS_REPLY_ARRAY && i < reply.elements; ++i)
    if (auto range = read_range(*reply.element[i], asked)) ranges.push_back(std::move(*range));
  return ranges;
}

std::optional<RedisAddress> read_master(const redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2) return std::nullopt;
  const std::string_view host = text_of(*reply.element[0]), port = text_of(*reply.element[1]);
  RedisAddress master{std::string(host), 0};
  std::from_chars(port.data(), port.data() + port.size(), master.port);
  return host.empty() || master.port == 0 ? std::nullopt : std::optional(std::move(master));
}

// MOVED SLOT HOST:PORT, where the host may be "" or have colons of its own.
std::optional<Redirection> read_redirection(std::string_view error, const RedisAddress& asked) {
  const bool moved = error.starts_with("MOVED ");
  if (!moved && !error.starts_with("ASK ")) return std::nullopt;
  const std::string_view place = error.substr(error.rfind(' ') + 1);
  const size_t colon = place.rfind(':');
  uint16_t port = 0;
  if (colon == std::string_view::npos ||
      std::from_chars(place.data() + colon + 1, place.data() + place.size(), port).ptr !=
          place.data() + place.size())
    return std::nullopt;
  auto address = address_of(place.substr(0, colon), port, asked);
  if (!address) return std::nullopt;
  return Redirection{moved, std::move(*address)};
}

}  // namespace tally
