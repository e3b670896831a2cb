// Statistics and factorisation of Hessians.

#include <cmath>

#include <ptq/core/linalg.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// ‖a − b‖ / ‖b‖ in float64.
double relative(const Tensor& a, const Tensor& b) {
  const Tensor exact = b.to(at::kDouble);
  return ((a.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

/// H += xᵀ x on one triangle against the whole product. Work: n² + n multiply-adds a token, two operations each.
void gram(benchmark::State& state, int64_t tokens, int64_t n) {
  const Tensor x = matrix(tokens, n, 1);
  Tensor h = at::zeros({n, n});
  Case c;
  c.ours = [&] { add_gram(h, x); };
  c.peer = [&] { benchmark::DoNotOptimize(at::mm(x.t(), x)); };
  c.error = [&] {
    const Tensor some = at::arange(0, n, std::max<int64_t>(1, n / 64)), wide = x.to(at::kDouble);  // 64 rows spread over H
    return relative(mirror(h).index_select(0, some), at::mm(wide.index_select(1, some).t(), wide));
  };
  c.tolerance = 1e-5;
  c.ceiling = Ceiling::multiply, c.work = static_cast<double>(tokens) * static_cast<double>(n * (n + 1));
  c.goal = n >= 2048 ? 1.7 : 0;
  measure(state, c);
}

/// R with H = R Rᵀ and M = R diag(R)⁻¹, against Cholesky, inverse, Cholesky of the inverse. Work: n³/3 operations.
void factor(benchmark::State& state, int64_t n) {
  const Tensor x = matrix(4 * n, n, 1);
  Tensor h = at::mm(x.t(), x);
  h.diagonal().add_(h.diagonal().mean() * 0.01);
  Tensor r, m;
  Case c;
  c.ours = [&] {
    const UpperFactor f = upper_factor(h);
    if (!f.positive) fail("the benchmark's Hessian is not positive definite");
    r = f.r.diagonal();
    m = (f.r / r).contiguous();
  };
  c.peer = [&] { benchmark::DoNotOptimize(at::linalg_cholesky(at::cholesky_inverse(at::linalg_cholesky(h)), /*upper=*/true)); };
  c.error = [&] {
    const Tensor full = m.to(at::kDouble) * r.to(at::kDouble);
    return relative(at::mm(full, full.t()), h) + full.tril(-1).abs().max().item<double>();
  };
  c.tolerance = 1e-5;
  c.ceiling = Ceiling::multiply, c.work = std::pow(static_cast<double>(n), 3) / 3;
  c.goal = n == 2048 ? 3 : 0;
  measure(state, c);
}

}  // namespace

void register_linear_algebra() {
  add("hessian/gram/2048x1024/multiply/quick", [](benchmark::State& s) { gram(s, 2048, 1024); });
  add("hessian/gram/8192x2048/multiply", [](benchmark::State& s) { gram(s, 8192, 2048); });
  add("hessian/factor/1024/multiply/quick", [](benchmark::State& s) { factor(s, 1024); });
  add("hessian/factor/2048/multiply", [](benchmark::State& s) { factor(s, 2048); });
  add("hessian/factor/4096/multiply", [](benchmark::State& s) { factor(s, 4096); });
}
