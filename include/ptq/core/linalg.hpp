// The linear algebra of column solvers: Gram sums on one triangle, one factorisation a layer.
#pragma once

#include <algorithm>
#include <limits>

#include <ptq/core/affine.hpp>
#include <ptq/core/transpose.hpp>

namespace ptq {

/// Adds xᵀ x to the upper block triangle of `gram`; half the work of a full product. Call mirror() before reading the rest.
/// Strips of 1/8 of the width: 9/16 of the multiply-adds of xᵀ x. Tokens pass in chunks, whose transpose is the only copy.
inline void add_gram(Tensor& gram, const Tensor& x) {  // gram (n, n), x (tokens, n)
  const int64_t tokens = x.size(0), n = x.size(1), chunk = 2048;
  if (gram.dim() != 2 || gram.size(0) != n || gram.size(1) != n)
    fail("Gram matrix ", shape_text(gram), " does not fit inputs ", shape_text(x));
  const int64_t strip = std::max<int64_t>(64, (n + 7) / 8);
  for (int64_t first = 0; first < tokens; first += chunk) {
    const Tensor xt = by_rows(x.narrow(0, first, std::min(chunk, tokens - first)).t());  // (n, chunk)
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

namespace detail {

/// R of a small matrix; undefined when it is not positive definite.
inline Tensor upper_factor_unblocked(const Tensor& h) {  // h (n, n)
  const auto [l, info] = at::linalg_cholesky_ex(h.flip({0, 1}));
  return info.item<int>() == 0 ? l.flip({0, 1}) : Tensor();
}

}  // namespace detail

/// Blocks of columns J from the last to the first, I the rows above, K the columns done: R_JJ R_JJᵀ = H_JJ − R_JK R_JKᵀ and
/// R_IJ = (H_IJ − R_IK R_JKᵀ) R_JJ⁻ᵀ, so that nearly all work is products x Wᵀ.
[[nodiscard]] inline UpperFactor upper_factor(const Tensor& h) {
  const int64_t n = h.size(0), block = 128;
  Tensor r = at::zeros({n, n}, h.options());
  for (int64_t end = n; end > 0;) {
    const int64_t begin = (end - 1) / block * block, width = end - begin;
    Tensor rest = h.narrow(0, 0, end).narrow(1, begin, width);  // (end, width)
    if (end < n) {
      const Tensor done = r.narrow(0, 0, end).narrow(1, end, n - end).contiguous();  // (end, n - end)
      rest = rest - affine(done, done.narrow(0, begin, width));
    }
    const Tensor corner = detail::upper_factor_unblocked(rest.narrow(0, begin, width));  // (width, width)
    if (!corner.defined()) return {r, false};
    r.narrow(0, begin, width).narrow(1, begin, width).copy_(corner);
    if (begin > 0)
      r.narrow(0, 0, begin)
          .narrow(1, begin, width)
          .copy_(at::linalg_solve_triangular(corner.t(), rest.narrow(0, 0, begin), /*upper=*/false, /*left=*/false));
    end = begin;
  }
  const Tensor left = r.diagonal().square() / h.diagonal();  // (n) what the columns after j do not explain of it
  const double epsilon = h.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  return {r, left.gt(16 * epsilon).all().item<bool>()};
}

/// X with X R Rᵀ = B, R (n, n) upper triangular, B (rows, n): Y Rᵀ = B from the last block of columns to the first, then X R = Y forwards;
/// between blocks products x Wᵀ.
[[nodiscard]] inline Tensor solve_with_factor(const Tensor& r, const Tensor& b) {
  const int64_t n = r.size(0), block = 256;
  const auto square = [&](int64_t begin, int64_t width) { return r.narrow(0, begin, width).narrow(1, begin, width); };
  Tensor x = b.clone(at::MemoryFormat::Contiguous);  // (rows, n)
  for (int64_t end = n; end > 0;) {
    const int64_t begin = (end - 1) / block * block, width = end - begin;
    Tensor now = x.narrow(1, begin, width);
    if (end < n) now.sub_(affine(x.narrow(1, end, n - end), r.narrow(0, begin, width).narrow(1, end, n - end)));
    now.copy_(at::linalg_solve_triangular(square(begin, width).t(), now, /*upper=*/false, /*left=*/false));
    end = begin;
  }
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t width = std::min(block, n - begin);
    Tensor now = x.narrow(1, begin, width);
    if (begin > 0) now.sub_(affine(x.narrow(1, 0, begin), r.narrow(0, 0, begin).narrow(1, begin, width).t()));
    now.copy_(at::linalg_solve_triangular(square(begin, width), now, /*upper=*/true, /*left=*/false));
  }
  return x;
}

}  // namespace ptq
