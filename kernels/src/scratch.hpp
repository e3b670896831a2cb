#pragma once
// Carves arrays out of scratch that the caller provides; without a base it only counts the bytes.

#include <cstddef>
#include <cstdint>

namespace ptq::kernels {

class Scratch {
 public:
  explicit Scratch(void* base = nullptr) : base_(reinterpret_cast<std::uintptr_t>(base)), at_((base_ + 63) / 64 * 64) {}

  /// n elements and `padding` bytes behind them that may be read, aligned to 64 bytes.
  template <class T>
  T* take(std::ptrdiff_t n, std::size_t padding = 64) {
    T* const p = reinterpret_cast<T*>(at_);
    at_ += (static_cast<std::size_t>(n) * sizeof(T) + padding + 63) / 64 * 64;
    return p;
  }
  /// Bytes needed at any alignment of the base.
  std::size_t bytes() const { return at_ - base_ + 64; }

 private:
  std::uintptr_t base_, at_;
};

}  // namespace ptq::kernels
