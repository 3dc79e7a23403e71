// Answers -> HTTP replies.
//
// Thread rule: pure; a DateField belongs to one thread. The replies to decisions (auth, take) allocate
// nothing once the output has grown. Source of the fields: RFC 9110, draft-ietf-httpapi-ratelimit-headers-10
// (RateLimit, RateLimit-Policy), its draft 03 (X-RateLimit-*, the reset in seconds from now), RFC 9457
// (problems).
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/time.h"
#include "doors/commands.h"
#include "doors/http_form.h"

namespace tally::http {

// "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", made anew once a second.
class DateField {
 public:
  std::string_view at(WallTime now);

 private:
  int64_t second_ = -1;
  std::array<char, 37> line_{};
};

// One of several takes.
struct Taken {
  const Rule& rule;
  const Answer& answer;
  resp::Reason reason;
};

// Appends replies to a buffer that the caller owns. `date`: as DateField has it.
class Writer {
 public:
  Writer(std::string& out, Form form, std::string_view date) : out_(out), form_(form), date_(date) {}

  // The answer to a take or a peek by `limit`, the key's: 204, or 403 (429), and what is left in headers; or
  // 200 and JSON, by the form. Whole seconds and milliseconds are true ceilings; of a denial that ends by
  // itself at least 1.
  void answer(const Rule& rule, const Limit& limit, const Answer& answer, resp::Reason reason);
  // Of several, all or nothing: which refused (-1: none), and each.
  void all(std::optional<size_t> refused, std::span<const Taken> taken);
  void map(std::span<const resp::Field> fields);  // a JSON object
  void table(std::span<const resp::Row> rows);    // an object of objects
  void top(Duration span, std::span<const resp::TopRow> rows);  // {"span_ms", "keys": [{"rule", "key", "admitted", "limited"}]}
  void text(int status, std::string_view type, std::string_view body);
  void done();  // 204
  // application/problem+json; `detail` says what to do. `allow`: what a 405 names.
  void problem(int status, std::string_view detail, std::string_view allow = {});
  void go_on();  // 100: the body may be sent

 private:
  void auth(const Rule& rule, const Limit& limit, const Answer& answer, resp::Reason reason);
  void take(const Rule& rule, const Answer& answer, resp::Reason reason);
  void body(int status, std::string_view type, std::string_view more, std::string_view body);

  std::string& out_;
  const Form form_;
  const std::string_view date_;
};

}  // namespace tally::http
