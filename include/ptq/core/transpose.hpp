// Matrices by rows.
#pragma once

#include <algorithm>

#include <ptq/core/tensor.hpp>
#include <ptq/kernels/transpose.hpp>

namespace ptq {

/// t in row-major order: t itself where it lies so. A matrix that lies by columns is transposed by all threads, where libtorch takes one.
/// Outside autograd.
[[nodiscard]] inline Tensor by_rows(const Tensor& t) {
  const bool columns = t.dim() == 2 && t.is_cpu() && t.stride(0) == 1 && t.stride(1) >= t.size(0) && t.numel() > 0;
  const bool real = t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble;
  if (t.is_contiguous() || !columns || !real) return t.contiguous();
  const Tensor y = at::empty(t.sizes(), t.options());
  const int64_t rows = t.size(0), cols = t.size(1);
  constexpr int64_t entries = 1 << 15;  // a thread's least work
  const auto turn = [&]<class T>(T) {
    const kernels::View<const T> from{t.const_data_ptr<T>(), cols, rows, t.stride(1)};
    const kernels::View<T> to{y.mutable_data_ptr<T>(), rows, cols, cols};
    at::parallel_for(0, rows, std::max<int64_t>(16, entries / cols), [&](int64_t begin, int64_t end) {
      if (kernels::transpose(from, to, {begin, end}) != kernels::Status::ok) fail("transposing ", shape_text(t), ": shapes do not fit");
    });
  };
  t.scalar_type() == at::kFloat ? turn(float{}) : turn(double{});
  return y;
}

}  // namespace ptq
