// The search for a range by the error to the power 2.4, 80 candidates a row, as GPTQ's released code does.

#include <ptq/core/grid.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

struct Found {
  Tensor scale, zero;  // (rows, 1)
};

/// The same in tensor operations, in w's type.
Found composite(const Tensor& w) {
  const Tensor low = at::clamp_max(w.amin(1, true), 0), high = at::clamp_min(w.amax(1, true), 0);  // (rows, 1)
  Found best;
  Tensor least = at::full_like(low, std::numeric_limits<double>::infinity());
  for (int i = 0; i < 80; ++i) {
    const double p = 1 - i / 100.0;
    const Tensor s = (high * p - low * p) / 15, z = at::round(-(low * p) / s);
    if (i == 0) best = {s, z};
    const Tensor miss = at::div(w, s).round_().add_(z).clamp_(0, 15).sub_(z).mul_(s).sub_(w).abs_().pow_(2.4).sum(1, true);
    const Tensor better = miss < least;
    least = at::where(better, miss, least);
    best = {at::where(better, s, best.scale), at::where(better, z, best.zero)};
  }
  return best;
}

/// Σ |w − q|^2.4 of each row on a grid, in float64.
Tensor power_error(const Tensor& w, const Tensor& scale, const Tensor& zero) {
  const Tensor x = w.to(at::kDouble), s = scale.to(at::kDouble), z = zero.to(at::kDouble);
  return (s * (at::clamp(at::round(x / s) + z, 0, 15) - z) - x).abs().pow(2.4).sum(1);  // (rows)
}

/// `err`: how much worse the worst row's grid is than that of the float64 search.
void search(benchmark::State& state, int64_t rows, int64_t n) {
  const Tensor w = matrix(rows, n, 0.02);
  const Scheme scheme = Scheme::parse("int4:channel:search", "benchmark", Role::weight);
  Grid grid;
  Case c;
  c.ours = [&] { grid = Grid(), grid = fit_grid(w, scheme); };
  c.peer = [&] { benchmark::DoNotOptimize(composite(w)); };
  c.error = [&] {
    const Found exact = composite(w.to(at::kDouble));
    return (power_error(w, grid.scale, grid.zero) / power_error(w, exact.scale, exact.zero)).max().item<double>() - 1;
  };
  c.tolerance = 1e-4;
  c.items = static_cast<double>(w.numel()) * 80;
  measure(state, c);
}

}  // namespace

void register_search() {
  add("grid/search/512x1024/cache/quick", [](benchmark::State& s) { search(s, 512, 1024); });
  add(
      "grid/search/2048x2048/cache", [](benchmark::State& s) { search(s, 2048, 2048); }, 5);
}
