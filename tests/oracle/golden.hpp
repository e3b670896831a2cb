// Golden files of the learned methods: results in float64, the reference, and float32.
#pragma once

#include <string>

#include <ptq/core/grid.hpp>
#include <ptq/io/hdf5_tensor.hpp>

#include "catch.hpp"
#include "data.hpp"

namespace ptq::test {

/// How close a precision has to come: steps relative, values relative to the largest entry.
struct Precise {
  const char* name;
  at::ScalarType dtype;
  double step, value;
};

inline constexpr Precise golden_precisions[] = {{"f64", at::kDouble, 1e-14, 1e-13}, {"f32", at::kFloat, 2.4e-7, 5e-7}};

inline double largest(const Tensor& t) { return t.abs().max().item<double>(); }

/// max |a − b| over max |b|.
inline double far(const Tensor& a, const Tensor& b) {
  const Tensor wide = b.to(at::kDouble);
  return largest(a.to(at::kDouble) - wide) / largest(wide);
}

inline void check_step(const Tensor& mine, const Tensor& golden, const Precise& p) {
  CHECK(at::allclose(mine.reshape({-1}), golden.reshape({-1}), p.step, 0));
}
inline void check_equal(const Tensor& mine, const Tensor& golden) {
  CHECK(at::equal(mine.to(at::kInt).reshape({-1}), golden.to(at::kInt).reshape({-1})));
}

}  // namespace ptq::test
