#include "doors/http_replies.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "doors/rate_headers.h"

namespace tally::http {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

// "HTTP/1.1 204 No Content\r\n"
constexpr std::string_view status_line(int status) {
  switch (status) {
    case 200:
      return "HTTP/1.1 200 OK\r\n";
    case 204:
      return "HTTP/1.1 204 No Content\r\n";
    case 400:
      return "HTTP/1.1 400 Bad Request\r\n";
    case 403:
      return "HTTP/1.1 403 Forbidden\r\n";
    case 404:
      return "HTTP/1.1 404 Not Found\r\n";
    case 405:
      return "HTTP/1.1 405 Method Not Allowed\r\n";
    case 408:
      return "HTTP/1.1 408 Request Timeout\r\n";
    case 409:
      return "HTTP/1.1 409 Conflict\r\n";
    case 411:
      return "HTTP/1.1 411 Length Required\r\n";
    case 413:
      return "HTTP/1.1 413 Content Too Large\r\n";
    case 414:
      return "HTTP/1.1 414 URI Too Long\r\n";
    case 417:
      return "HTTP/1.1 417 Expectation Failed\r\n";
    case 429:
      return "HTTP/1.1 429 Too Many Requests\r\n";
    case 431:
      return "HTTP/1.1 431 Request Header Fields Too Large\r\n";
    case 501:
      return "HTTP/1.1 501 Not Implemented\r\n";
    case 503:
      return "HTTP/1.1 503 Service Unavailable\r\n";
    case 505:
      return "HTTP/1.1 505 HTTP Version Not Supported\r\n";
    default:
      return "HTTP/1.1 500 Internal Server Error\r\n";
  }
}

std::string_view phrase(int status) {
  const std::string_view line = status_line(status);
  return line.substr(13, line.size() - 15);
}

// What stands in every reply.
constexpr std::string_view kCommon = "Cache-Control: no-store\r\n";

std::string_view connection_field(Form form) {
  return form.close ? "Connection: close\r\n" : form.says_kept ? "Connection: keep-alive\r\n" : "";
}

// Puts a reply of bounded length together, for one append.
class Text {
 public:
  Text& operator<<(std::string_view bytes) {
    end_ += bytes.copy(end_, bytes.size());
    return *this;
  }
  Text& operator<<(int64_t n) {
    end_ = std::to_chars(end_, bytes_.data() + bytes_.size(), n).ptr;
    return *this;
  }
  Text& field(std::string_view name) { return *this << name << ": "; }
  void end_field() { *this << "\r\n"; }
  // "name", as JSON and structured fields have strings. Rules' names are printable ASCII.
  Text& quoted(std::string_view name) {
    *end_++ = '"';
    for (const char c : name) {
      if (c == '"' || c == '\\') *end_++ = '\\';
      *end_++ = c;
    }
    *end_++ = '"';
    return *this;
  }
  std::string_view view() const { return {bytes_.data(), static_cast<size_t>(end_ - bytes_.data())}; }

 private:
  // Three names of 64 bytes, all escaped; a dozen numbers; some 400 bytes of what does not change.
  std::array<char, 1024> bytes_;
  char* end_ = bytes_.data();
};

int64_t at_least_0(int64_t n) { return std::max<int64_t>(n, 0); }
// What a denial says; -1: it never ends by itself.
int64_t at_least_1(int64_t wait) { return wait < 0 ? -1 : std::max<int64_t>(wait, 1); }

nlohmann::ordered_json json_of(std::span<const resp::Field> fields) {
  auto object = nlohmann::ordered_json::object();
  for (const resp::Field& field : fields)
    object[field.name] =
        std::visit([](const auto& value) { return nlohmann::ordered_json(value); }, field.value);
  return object;
}

std::string text_of(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

constexpr std::string_view kJson = "application/json";

void write_take(Text& text, const Rule& rule, const Answer& answer, resp::Reason reason) {
  const bool limited = resp::is_limited(reason);
  text << "{\"allowed\":" << (limited ? "false" : "true") << ",\"limit\":" << answer.limit
       << ",\"remaining\":" << answer.remaining
       << ",\"retry_after_ms\":" << (limited ? at_least_1(resp::milliseconds_up(answer.retry_after)) : -1)
       << ",\"reset_after_ms\":" << at_least_0(resp::milliseconds_up(answer.reset_after)) << ",\"reason\":\""
       << resp::name_of(reason) << "\",\"rule\":";
  text.quoted(rule.name) << "}";
}

}  // namespace

std::string_view DateField::at(WallTime now) {
  using namespace std::chrono;
  const int64_t second = nanos(now) / kSecond;
  if (second != second_) {
    constexpr std::string_view kDays = "SunMonTueWedThuFriSat",
                               kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
    second_ = second;
    const sys_days day{days(second / 86'400)};
    const year_month_day date(day);
    const auto two = [](char* at, unsigned n) {
      at[0] = static_cast<char>('0' + n / 10 % 10);
      at[1] = static_cast<char>('0' + n % 10);
    };
    std::memcpy(line_.data(), "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", line_.size());
    std::memcpy(&line_[6], &kDays[3 * weekday(day).c_encoding()], 3);
    two(&line_[11], static_cast<unsigned>(date.day()));
    std::memcpy(&line_[14], &kMonths[3 * (static_cast<unsigned>(date.month()) - 1)], 3);
    const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
    two(&line_[18], year / 100);
    two(&line_[20], year);
    const auto of_day = static_cast<unsigned>(second % 86'400);
    two(&line_[23], of_day / 3'600);
    two(&line_[26], of_day / 60 % 60);
    two(&line_[29], of_day % 60);
  }
  return {line_.data(), line_.size()};
}

void Writer::answer(const Rule& rule, const Limit& limit, const Answer& answer, resp::Reason reason) {
  if (form_.kind == Form::Kind::auth) return auth(rule, limit, answer, reason);
  take(rule, answer, reason);
}

void Writer::auth(const Rule& rule, const Limit& limit, const Answer& answer, resp::Reason reason) {
  const bool limited = resp::is_limited(reason);
  Text text;
  text << status_line(!limited         ? 204
                      : form_.too_many ? 429
                                       : 403)
       << date_ << kCommon << connection_field(form_);
  tell_rate_headers(text, rule.name, limit, answer, reason);
  if (limited) text << "Content-Length: 0\r\n";
  text << "\r\n";
  out_ += text.view();
}

void Writer::take(const Rule& rule, const Answer& answer, resp::Reason reason) {
  Text text;
  write_take(text, rule, answer, reason);
  body(200, kJson, {}, (text << "\n").view());
}

void Writer::all(std::optional<size_t> refused, std::span<const Taken> taken) {
  std::string all = refused ? "{\"allowed\":false,\"refused\":" + std::to_string(*refused)
                            : "{\"allowed\":true,\"refused\":-1";
  all += ",\"takes\":";
  for (const Taken& one : taken) {
    Text text;
    write_take(text << (&one == taken.data() ? "[" : ","), one.rule, one.answer, one.reason);
    all += text.view();
  }
  body(200, kJson, {}, all += "]}\n");
}

void Writer::map(std::span<const resp::Field> fields) { body(200, kJson, {}, text_of(json_of(fields))); }

void Writer::table(std::span<const resp::Row> rows) {
  auto object = nlohmann::ordered_json::object();
  for (const resp::Row& row : rows) object[row.name] = json_of(row.fields);
  body(200, kJson, {}, text_of(object));
}

void Writer::top(Duration span, std::span<const resp::TopRow> rows) {
  auto object = nlohmann::ordered_json::object();
  object["span_ms"] = resp::milliseconds_up(span);
  auto& keys = object["keys"] = nlohmann::ordered_json::array();
  for (const resp::TopRow& row : rows)
    keys.push_back({{"rule", row.rule}, {"key", row.key}, {"admitted", row.admitted}, {"limited", row.limited}});
  body(200, kJson, {}, text_of(object));
}

void Writer::text(int status, std::string_view type, std::string_view text) { body(status, type, {}, text); }

void Writer::done() {
  ((out_ += status_line(204)) += date_).append(kCommon).append(connection_field(form_)) += "\r\n";
}

void Writer::problem(int status, std::string_view detail, std::string_view allow) {
  std::string more;
  if (!allow.empty()) more.append("Allow: ").append(allow).append("\r\n");
  if (status == 503) more = "Retry-After: 1\r\n";
  nlohmann::ordered_json problem;
  problem["title"] = phrase(status);
  problem["status"] = status;
  problem["detail"] = detail;
  body(status, "application/problem+json", more, text_of(problem));
}

void Writer::go_on() { out_ += "HTTP/1.1 100 Continue\r\n\r\n"; }

// `more`: whole fields.
void Writer::body(int status, std::string_view type, std::string_view more, std::string_view body) {
  Text text;
  text << status_line(status) << date_ << kCommon << connection_field(form_)
       << "X-Content-Type-Options: nosniff\r\nContent-Type: " << type
       << "\r\nContent-Length: " << static_cast<int64_t>(body.size()) << "\r\n"
       << more << "\r\n";
  out_ += text.view();
  if (!form_.head_only) out_ += body;
}

}  // namespace tally::http
