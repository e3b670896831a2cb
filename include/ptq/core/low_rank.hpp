// The largest singular values of a matrix and their vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

#include <ptq/core/affine.hpp>
#include <ptq/core/transpose.hpp>

namespace ptq {

/// M ≈ U diag(σ) Vᵀ.
struct TruncatedSvd {
  Tensor u;             // (rows, rank) orthonormal columns; zero where σ is
  Tensor sigma;         // (rank) double, descending
  Tensor v;             // (cols, rank) orthonormal columns
  double energy = 0;    ///< ‖M‖²
  double residual = 0;  ///< ‖M − U diag(σ) Vᵀ‖², from the singular values found
  int64_t steps = 0;    ///< of subspace iteration; 0: linalg_svd
};

/// How a truncated SVD is computed.
struct SvdOptions {
  double tolerance = 0.001;  ///< of the residual's norm above the optimum, as the iteration estimates it; 0: linalg_svd
  int64_t max_steps = 24;
  uint64_t seed = 0;
};

namespace detail {

/// Entries uniform in [−1, 1); the same on every machine.
inline Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  Tensor t = at::empty({rows, cols}, at::kDouble);
  double* x = t.mutable_data_ptr<double>();
  for (int64_t i = 0; i < t.numel(); ++i) x[i] = static_cast<double>(random() >> 11) * 0x1p-52 - 1;
  return t;
}

/// Orthonormal columns that span those of y, in float64, (rows, l): y L⁻ᵀ with yᵀ y = L Lᵀ, twice; Householder's where y has no full rank.
/// Yamamoto et al.: roundoff error analysis of the CholeskyQR2 algorithm, Electronic Transactions on Numerical Analysis 44, 2015.
inline Tensor orthonormal(const Tensor& y) {
  Tensor q = y.to(at::kDouble);
  for (int round = 0; round < 2; ++round) {
    const auto [l, info] = at::linalg_cholesky_ex(at::mm(q.t(), q));
    const Tensor d = l.diagonal();
    if (info.item<int>() != 0 || !(d.min() > 1e-6 * d.max()).item<bool>()) return std::get<0>(at::linalg_qr(y.to(at::kDouble), "reduced"));
    q = at::linalg_solve_triangular(l.t(), q, /*upper=*/true, /*left=*/false);
  }
  return q;
}

/// y diag(1/σ), with zero columns where σ is negligible or zero.
inline Tensor divide_columns(const Tensor& y, const Tensor& sigma) {  // y (rows, k), sigma (k) double, descending
  const double floor = sigma.numel() ? sigma[0].item<double>() * 1e-14 : 0;
  return y.to(at::kDouble) * at::where(sigma > floor, sigma.reciprocal(), at::zeros_like(sigma));
}

inline TruncatedSvd full_svd(const Tensor& m, int64_t rank) {
  const auto [u, sigma, vt] = at::linalg_svd(m, /*full_matrices=*/false);
  TruncatedSvd s;
  const Tensor square = sigma.to(at::kDouble).square();
  s.u = u.narrow(1, 0, rank).contiguous(), s.v = vt.narrow(0, 0, rank).t().contiguous();
  s.sigma = sigma.narrow(0, 0, rank).to(at::kDouble).contiguous();
  s.energy = square.sum().item<double>(), s.residual = square.narrow(0, rank, square.numel() - rank).sum().item<double>();
  return s;
}

}  // namespace detail

/// The `rank` largest singular values (at most min(rows, cols)) and their vectors. m (rows, cols) finite, float32 or float64.
///
/// Subspace iteration with l = rank + max(16, rank/2) columns, Halko, Martinsson, Tropp: arXiv 0909.4061, algorithm 4.4, on the right side:
///   Y = M Z,  Yᵀ Y = W diag(σ²) Wᵀ,  Z ← orth(Mᵀ Y W diag(1/σ)).
/// σ from Y are those of M in the subspace Z, so c = Σ_{i≤rank} σ_i² is what has been captured, never more than the optimum. It stops when
/// what a geometric series of the gains would still add is below 2 · tolerance of the residual ‖M‖² − c. Products run in the type of m, all
/// of width l in float64. The same seed gives the same result. Where l exceeds half of min(rows, cols), or that is at most 256: linalg_svd.
[[nodiscard]] inline TruncatedSvd truncated_svd(const Tensor& m, int64_t rank, const SvdOptions& options = {},
                                                const std::string& what = "a matrix for the singular value decomposition") {
  if (m.dim() != 2) fail(what, ": ", shape_text(m), " is no matrix");
  if (!at::isFloatingType(m.scalar_type()) || at::isReducedFloatingType(m.scalar_type()))
    fail(what, ": ", shape_text(m), " must be float32 or float64");
  if (rank < 0) fail(what, ": rank ", rank, " is negative");
  require_finite(m, what);
  const int64_t rows = m.size(0), cols = m.size(1), least = std::min(rows, cols);
  rank = std::min(rank, least);
  const int64_t l = rank + std::max<int64_t>(16, rank / 2);
  if (options.tolerance <= 0 || least <= 256 || 2 * l > least) return detail::full_svd(m, rank);

  TruncatedSvd s;
  const Tensor whole = m.contiguous(), turned = by_rows(m.t());  // both orders, for products x Wᵀ
  s.energy = m.to(at::kDouble).square().sum().item<double>();
  Tensor z = detail::orthonormal(detail::random_matrix(cols, l, options.seed));  // (cols, l)
  double captured = 0, gain = 0;
  for (;;) {
    const Tensor y = affine(whole, z.t().to(m.scalar_type())).to(at::kDouble);     // (rows, l)
    const auto [lambda, vectors] = at::linalg_eigh(at::mm(y.t(), y));              // ascending
    const Tensor sigma = lambda.flip(0).clamp_min(0).sqrt(), w = vectors.flip(1);  // (l), (l, l)
    const double now = sigma.narrow(0, 0, rank).square().sum().item<double>(), gained = now - captured;
    const double ratio = gain > 0 ? std::clamp(gained / gain, 0.5, 0.95) : 1;  // slower later than at first
    ++s.steps;
    const double to_come = ratio < 1 ? gained * ratio / (1 - ratio) : s.energy;
    captured = now, gain = gained;
    if (s.steps >= options.max_steps || to_come <= 2 * options.tolerance * (s.energy - captured) || s.energy == 0) {
      const Tensor top = w.narrow(1, 0, rank);  // (l, rank)
      s.sigma = sigma.narrow(0, 0, rank).contiguous();
      s.v = at::mm(z, top).to(m.scalar_type());
      s.u = detail::divide_columns(at::mm(y, top), s.sigma).to(m.scalar_type());
      s.residual = std::max(0.0, s.energy - captured);
      return s;
    }
    const Tensor u = detail::divide_columns(at::mm(y, w), sigma).to(m.scalar_type());  // (rows, l)
    z = detail::orthonormal(affine(turned, u.t()));
  }
}

}  // namespace ptq
