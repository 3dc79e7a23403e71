// Two kinds of failure, kept apart.
//
// CHECK is for our own bugs: always on, says where, aborts. Nothing that arrives from outside may reach a
// CHECK. Result is for the world: a value, or a message that says what is wrong and what to do about it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace tally {

[[noreturn]] inline void check_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "tally: bug: CHECK(%s) failed at %s:%d\n", what, file, line);
  std::abort();
}

#define CHECK_THAT(condition) \
  ((condition) ? static_cast<void>(0) : ::tally::check_failed(#condition, __FILE__, __LINE__))

struct Failure {
  std::string message;
};

template <typename T>
class Result {
 public:
  Result(T value) : held_(std::move(value)) {}           // NOLINT: implicit, so that `return value;` reads well
  Result(Failure failure) : held_(std::move(failure)) {}  // NOLINT: likewise

  explicit operator bool() const { return std::holds_alternative<T>(held_); }
  T& value() {
    CHECK_THAT(std::holds_alternative<T>(held_));
    return std::get<T>(held_);
  }
  const T& value() const {
    CHECK_THAT(std::holds_alternative<T>(held_));
    return std::get<T>(held_);
  }
  const std::string& error() const {
    CHECK_THAT(std::holds_alternative<Failure>(held_));
    return std::get<Failure>(held_).message;
  }

 private:
  std::variant<T, Failure> held_;
};

}  // namespace tally
