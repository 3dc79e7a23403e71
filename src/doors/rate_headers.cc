#include "doors/rate_headers.h"

#include <utility>

namespace tally {
namespace {

class Pairs {
 public:
  Pairs& field(std::string_view name) {
    headers.push_back({std::string(name), ""});
    return *this;
  }
  void end_field() {}
  // A String of RFC 8941, section 3.3.3.
  Pairs& quoted(std::string_view text) {
    std::string& value = headers.back().value;
    value += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') value += '\\';
      value += c;
    }
    value += '"';
    return *this;
  }
  Pairs& operator<<(std::string_view text) {
    headers.back().value += text;
    return *this;
  }

  std::vector<Header> headers;
};

}  // namespace

std::vector<Header> rate_headers(std::string_view name, const Limit& limit, const Answer& answer, resp::Reason reason) {
  Pairs pairs;
  tell_rate_headers(pairs, name, limit, answer, reason);
  return std::move(pairs.headers);
}

}  // namespace tally
