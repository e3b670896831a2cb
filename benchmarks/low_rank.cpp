// Truncated singular value decompositions of rounding errors.

#include <cmath>

#include <ptq/core/grid.hpp>
#include <ptq/core/low_rank.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// Rank `rank` of the error of 4-bit rounding, against linalg_svd. Its spectrum is flat, the hardest case. The error is how much farther
/// than the best of that rank the result is, ‖E − U σ Vᵀ‖ over the optimum, minus 1; the optimum is linalg_svd's.
void truncated(benchmark::State& state, int64_t n, int64_t rank, double goal) {
  const Tensor w = matrix(n, n, 0.02);
  const Tensor e = w - fake_quantize(w, fit_grid(w, Scheme::parse("int4:g64", "weights", Role::weight)));
  TruncatedSvd s;
  Case c;
  c.ours = [&] { s = truncated_svd(e, rank); };
  c.peer = [&] { benchmark::DoNotOptimize(at::linalg_svd(e, /*full_matrices=*/false)); };
  c.error = [&] {
    const Tensor best = at::linalg_svdvals(e).to(at::kDouble).narrow(0, rank, n - rank);
    const Tensor left = e.to(at::kDouble) - at::mm(s.u.to(at::kDouble) * s.sigma, s.v.to(at::kDouble).t());
    state.counters["steps"] = static_cast<double>(s.steps);
    return std::sqrt((left.square().sum() / best.square().sum()).item<double>()) - 1;
  };
  c.tolerance = 0.005;
  c.ceiling = Ceiling::multiply, c.work = 8 * static_cast<double>(n * n * rank);  // two steps of two products
  c.goal = goal;
  measure(state, c);
}

}  // namespace

void register_low_rank() {
  add(
      "low_rank/svd64/1024x1024/multiply/quick", [](benchmark::State& s) { truncated(s, 1024, 64, 0); }, 3);
  add(
      "low_rank/svd64/2048x2048/multiply", [](benchmark::State& s) { truncated(s, 2048, 64, 10); }, 3);
  add(
      "low_rank/svd64/4096x4096/multiply", [](benchmark::State& s) { truncated(s, 4096, 64, 25); }, 1);
}
