// Random numbers that anybody can draw again: the data of printed tables.
#pragma once

#include <ptq/core/tensor.hpp>

namespace ptq::test {

/// x ← (1103515245 x + 12345) mod 2³¹, advance then use; a normal is the sum of 12 uniforms minus 6.
class Generator {
 public:
  explicit Generator(uint64_t seed) : x_(seed) {}
  Tensor normal(int64_t rows, int64_t cols) {
    const Tensor t = at::empty({rows, cols}, at::kDouble);
    for (int64_t i = 0; i < rows * cols; ++i) {
      double sum = -6;
      for (int k = 0; k < 12; ++k) x_ = (1103515245 * x_ + 12345) % (uint64_t{1} << 31), sum += static_cast<double>(x_) / 0x1p31;
      t.mutable_data_ptr<double>()[i] = sum;
    }
    return t;
  }

 private:
  uint64_t x_;
};

}  // namespace ptq::test
