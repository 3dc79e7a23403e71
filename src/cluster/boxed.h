// A value that may be there, beside the struct that has it: as std::optional, for what is large and mostly
// not there.
//
// Thread rule: as a std::unique_ptr.
#pragma once

#include <memory>
#include <utility>

namespace tally {

template <typename T>
class Boxed {
 public:
  template <typename... Args>
  T& emplace(Args&&... args) {
    value_ = std::make_unique<T>(std::forward<Args>(args)...);
    return *value_;
  }
  void reset() { value_.reset(); }
  bool has_value() const { return value_ != nullptr; }
  explicit operator bool() const { return has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return value_.get(); }
  const T* operator->() const { return value_.get(); }

 private:
  std::unique_ptr<T> value_;
};

}  // namespace tally
