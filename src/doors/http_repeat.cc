#include "doors/http_repeat.h"

#include <algorithm>
#include <cstring>

namespace tally::http {
namespace {

// A key of which the parser and read_request would make nothing else. In a query: no blank or control
// character, nothing that is to be decoded, no end of the value. In a field: no control character; blanks
// only inside.
bool is_plain(std::string_view key, bool in_query) {
  unsigned odd = 0;
  if (!in_query) {
    for (const char c : key)
      odd |= static_cast<unsigned>((static_cast<unsigned char>(c) < 0x20) | (c == 0x7f));
    return odd == 0 && key.front() != ' ' && key.back() != ' ';
  }
  for (const char c : key)
    odd |= static_cast<unsigned>((c <= 0x20) | (static_cast<unsigned char>(c) >= 0x7f) | (c == '%') |
                                 (c == '+') | (c == '&'));
  return odd == 0;
}

}  // namespace

void Repeat::remember(std::string_view bytes, const Message& message, const resp::Request& request,
                      const resp::Env& env) {
  using Kind = resp::Request::Kind;
  forget();
  if (request.http.kind != Form::Kind::auth || (request.kind != Kind::take && request.kind != Kind::peek))
    return;
  if (!message.body.empty() || request.close || request.key.data() < bytes.data() ||
      request.key.data() >= bytes.data() + bytes.size())
    return;
  const auto head = static_cast<size_t>(request.key.data() - bytes.data());
  const std::string_view tail = bytes.substr(head + request.key.size());
  if (head > head_.size() || tail.size() > tail_.size()) return;
  in_query_ = request.key.data() < message.path.data() + message.path.size() + 1 + message.query.size();
  if (!is_plain(request.key, in_query_) || (!in_query_ && tail.front() != '\r')) return;
  std::memcpy(head_.data(), bytes.data(), head);
  std::memcpy(tail_.data(), tail.data(), tail.size());
  head_size_ = static_cast<uint16_t>(head);
  tail_size_ = static_cast<uint16_t>(tail.size());
  request_ = request;
  request_.key = {};
  rules_number_ = env.rules_number;
}

size_t Repeat::read(std::string_view input, const resp::Env& env, resp::Request& request) const {
  if (rules_number_ != env.rules_number || input.size() < size_t{head_size_} + 1 + tail_size_ ||
      std::memcmp(input.data(), head_.data(), head_size_) != 0)
    return 0;
  const char* const key = input.data() + head_size_;
  const size_t room = std::min(input.size(), kHeadBytesMax) - head_size_ - tail_size_;
  const size_t most = std::min(env.key_bytes_max, room);
  const void* end = std::memchr(key, tail_[0], most + 1);
  if (end == nullptr) return 0;
  const std::string_view found(key, static_cast<size_t>(static_cast<const char*>(end) - key));
  if (found.empty() || !is_plain(found, in_query_) || std::memcmp(end, tail_.data(), tail_size_) != 0)
    return 0;
  request = request_;
  request.key = found;
  if (request.rule->overrides != nullptr) [[unlikely]]
    apply_rule(request);
  return head_size_ + found.size() + tail_size_;
}

}  // namespace tally::http
