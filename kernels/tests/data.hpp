#pragma once
// Data for the tests: the linear congruential generator of the worked examples, and matrices that hurt.

#include <ptq/kernels/status.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

/// x <- (1103515245 x + 12345) mod 2^31, uniform = x / 2^31, normal = sum of twelve uniforms - 6.
struct Generator {
  std::uint64_t state;

  double uniform() {
    state = (1103515245u * state + 12345u) & 0x7fffffffu;
    return static_cast<double>(state) / 2147483648.0;
  }
  double normal() {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum - 6;
  }
};

template <class T>
struct Matrix {
  std::ptrdiff_t rows = 0, cols = 0, stride = 0;
  std::vector<T> data;

  Matrix() = default;
  Matrix(std::ptrdiff_t r, std::ptrdiff_t c, std::ptrdiff_t padding = 0, T fill = T(0))
      : rows(r), cols(c), stride(c + padding), data(static_cast<std::size_t>(r * (c + padding) + 1), fill) {}
  T& operator()(std::ptrdiff_t r, std::ptrdiff_t c) { return data[static_cast<std::size_t>(r * stride + c)]; }
  const T& operator()(std::ptrdiff_t r, std::ptrdiff_t c) const { return data[static_cast<std::size_t>(r * stride + c)]; }
  ptq::kernels::View<T> view() { return {data.data(), rows, cols, stride}; }
  ptq::kernels::View<const T> view() const { return {data.data(), rows, cols, stride}; }
  ptq::kernels::View<const T> read() const { return {data.data(), rows, cols, stride}; }
};

/// Rows of every unpleasant kind: outlier, constants, zeros, one-signed, denormal, huge, exact ties, tiny width at a large offset.
template <class T>
Matrix<T> hostile(std::ptrdiff_t rows, std::ptrdiff_t cols, std::uint64_t seed, std::ptrdiff_t padding = 3) {
  Generator g{seed};
  Matrix<T> w(rows, cols, padding, static_cast<T>(777));
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    for (std::ptrdiff_t c = 0; c < cols; ++c) {
      const double n = g.normal();
      double x = 0.1 * n;
      switch (r % 12) {
        case 1:
          x = c == cols / 2 ? 60.0 : x;
          break;
        case 2:
          x = 0.37;
          break;
        case 3:
          x = 0;
          break;
        case 4:
          x = -0.21;
          break;
        case 5:
          x = std::abs(x) + 0.01;
          break;
        case 6:
          x = -std::abs(x) - 0.01;
          break;
        case 7:
          x = x * static_cast<double>(std::numeric_limits<T>::denorm_min()) * 100;
          break;
        case 8:
          x = x * static_cast<double>(std::numeric_limits<T>::max());
          break;
        case 9:
          x = c == 0 ? -1.0 : c + 1 == cols ? 2.75 : 0.125 * static_cast<double>(c % 21) - 0.875;
          break;
        case 10:
          x = 1000 + 1e-3 * n;
          break;
        case 11:
          x = c % 7 == 0 ? n * 1e4 : n * 1e-6;
          break;
        default:
          break;
      }
      w(r, c) = static_cast<T>(x);
    }
  }
  return w;
}
