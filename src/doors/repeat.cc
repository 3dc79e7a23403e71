#include "doors/repeat.h"

#include <cstring>

namespace tally::resp {
namespace {

constexpr size_t kKeyDigitsMax = 4;
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

void Repeat::remember(std::string_view command, const Request& request, const Env& env) {
  using Kind = Request::Kind;
  forget();
  if (command.front() != '*' || (request.kind != Kind::take && request.kind != Kind::peek && request.kind != Kind::give)) return;
  const auto key_at = static_cast<size_t>(request.key.data() - command.data());
  const size_t head = command.rfind('$', key_at - 1) + 1;  // in front of the key there is its length alone
  const std::string_view tail = command.substr(key_at + request.key.size());
  if (head > head_.size() || tail.size() > tail_.size()) return;
  std::memcpy(head_.data(), command.data(), head);
  std::memcpy(tail_.data(), tail.data(), tail.size());
  head_size_ = static_cast<uint8_t>(head);
  tail_size_ = static_cast<uint8_t>(tail.size());
  request_ = request;
  request_.key = {};
  rules_number_ = env.rules_number;
}

size_t Repeat::read(std::string_view input, const Env& env, Request& request) const {
  if (rules_number_ != env.rules_number || input.size() < head_size_ + kKeyDigitsMax + 2 || std::memcmp(input.data(), head_.data(), head_size_) != 0) return 0;
  const char* p = input.data() + head_size_;
  const char* const digits = p;
  size_t size = 0;
  while (p < digits + kKeyDigitsMax && is_digit(*p)) size = size * 10 + static_cast<size_t>(*p++ - '0');
  if (size == 0 || *digits == '0' || size > env.key_bytes_max || p[0] != '\r' || p[1] != '\n') return 0;
  p += 2;
  if (static_cast<size_t>(input.data() + input.size() - p) < size + tail_size_ || std::memcmp(p + size, tail_.data(), tail_size_) != 0) return 0;
  request.kind = request_.kind;
  request.form = request_.form;
  request.barrier = request.close = false;
  request.fault = Fault::none;
  request.version = request_.version;
  request.cost = request_.cost;
  request.most = request_.most;
  request.rule = request_.rule;
  request.key = {p, size};
  request.keys.clear();
  request.parts.clear();
  request.http = {};
  if (request.rule->overrides != nullptr) [[unlikely]] {
    apply_rule(request);
  } else {
    request.limit = request_.limit;
    request.treatment = Treatment::limited;
  }
  return static_cast<size_t>(p + size - input.data()) + tail_size_;
}

}  // namespace tally::resp
