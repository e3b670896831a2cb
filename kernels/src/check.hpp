#pragma once
// Argument checks that every entry point shares.

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

template <class T>
constexpr bool usable(const View<T>& x, Rows rows) {
  if (x.rows < 0 || x.cols < 0 || rows.begin < 0 || rows.end > x.rows || rows.begin > rows.end) return false;
  return rows.begin == rows.end || x.cols == 0 || (x.data != nullptr && x.stride >= x.cols);
}

template <class T>
constexpr bool absent_or_shaped(const View<T>& x, std::ptrdiff_t rows, std::ptrdiff_t cols) {
  return x.data == nullptr || (x.rows == rows && x.cols == cols && x.stride >= cols);
}

constexpr bool absent_or_holds(const Codes& codes, std::ptrdiff_t cols, std::int32_t lo, std::int32_t hi) {
  if (codes.data == nullptr) return true;
  return codes.stride >= cols && (codes.bytes == 4 || (codes.bytes == 1 && lo >= 0 && hi <= 255));
}

}  // namespace ptq::kernels
