// The linear algebra of column solvers: Gram sums on one triangle, one factorisation a layer.
#pragma once

#include <algorithm>
#include <limits>

#include <ptq/core/affine.hpp>

namespace ptq {

/// Adds xᵀ x to the upper block triangle of `gram`; half the work of a full product. Call mirror() before reading the rest.
/// Strips of 1/8 of the width: 9/16 of the multiply-adds of xᵀ x. Tokens pass in chunks, whose transpose is the only copy.
inline void add_gram(Tensor& gram, const Tensor& x) {  // gram (n, n), x (tokens, n)
  const int64_t tokens = x.size(0), n = x.size(1), chunk = 2048;
  if (gram.dim() != 2 || gram.size(0) != n || gram.size(1) != n)
    fail("Gram matrix ", shape_text(gram), " does not fit inputs ", shape_text(x));
  const int64_t strip = std::max<int64_t>(64, (n + 7) / 8);
  for (int64_t first = 0; first < tokens; first += chunk) {
    const Tensor xt = x.narrow(0, first, std::min(chunk, tokens - first)).t().contiguous();  // (n, chunk)
    for (int64_t i = 0; i < n; i += strip) {
      const int64_t rows = std::min(strip, n - i);
      gram.narrow(0, i, rows).narrow(1, i, n - i).add_(affine(xt.narrow(0, i, rows), xt.narrow(0, i, n - i)));  // (rows, n - i)
    }
  }
}

/// Copies the upper triangle onto the lower one.
[[nodiscard]] inline Tensor mirror(const Tensor& upper) {
  const Tensor u = upper.triu();  // (n, n)
  return u + upper.triu(1).t();
}

/// H = R Rᵀ with R upper triangular: the Cholesky factor of the index-reversed matrix, reversed back. The upper Cholesky factor of H⁻¹ is
/// then U = R⁻¹, so no inverse is formed and no second factorisation can fail. `positive` tells whether H was positive definite beyond its
/// rounding errors, R_jj² > 16 ε H_jj for every column; R is meaningless if not.
struct UpperFactor {
  Tensor r;  // (n, n) upper
  bool positive = false;
};

[[nodiscard]] inline UpperFactor upper_factor(const Tensor& h) {
  const auto [l, info] = at::linalg_cholesky_ex(h.flip({0, 1}));
  const Tensor r = l.flip({0, 1}), left = r.diagonal().square() / h.diagonal();  // (n) what the columns after j do not explain of it
  const double epsilon = h.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  return {r, info.item<int>() == 0 && left.gt(16 * epsilon).all().item<bool>()};
}

}  // namespace ptq
