// GPTQ's column loop and the product between its blocks.

#include <cmath>

#include <ptq/core/columns.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

struct Layer {
  Tensor w, h;  // (rows, n), (n, n) damped
  Grid grid;    // 4 bits a row
  ColumnFactor factor;

  Layer(int64_t rows, int64_t n) : w(at::randn({rows, n}) * 0.02) {
    const Tensor mixing = at::randn({n / 4, n}),
                 x = at::mm(at::randn({2 * n, n / 4}), mixing) * (4.0 / static_cast<double>(n)) + matrix(2 * n, n, 0.1);
    h = at::mm(x.t(), x);
    grid = fit_grid(w, Scheme::parse("int4:channel", "benchmark", Role::weight));
    factor = factorise(
        h, {}, [](const Tensor&) { return Tensor(); }, "benchmark");
    h.diagonal().add_(factor.damp);
  }
};

/// Values by the same algorithm in tensor operations, one column at a time, updates of later blocks of 128 put off: Frantar et al.,
/// arXiv 2210.17323, algorithm 1. u (n, n) upper with H⁻¹ = Uᵀ U; in u's type.
Tensor by_columns(const Tensor& weight, const Tensor& u, const Grid& grid) {
  const int64_t n = weight.size(1);
  const Tensor scale = grid.scale.to(u.scalar_type()).squeeze(1), zero = grid.zero.to(u.scalar_type()).squeeze(1);  // (rows)
  Tensor w = weight.to(u.scalar_type(), false, true), q = at::empty_like(w);
  for (int64_t begin = 0; begin < n; begin += 128) {
    const int64_t width = std::min<int64_t>(128, n - begin), end = begin + width;
    Tensor part = w.narrow(1, begin, width).clone(), errors = at::empty_like(part);  // (rows, width)
    const Tensor corner = u.narrow(0, begin, width).narrow(1, begin, width);
    for (int64_t j = 0; j < width; ++j) {
      const Tensor x = part.select(1, j);  // (rows)
      const Tensor y = scale * (at::clamp(at::round(x / scale) + zero, grid.lowest, grid.highest) - zero);
      const Tensor e = (x - y) / corner[j][j];
      q.select(1, begin + j).copy_(y);
      part.narrow(1, j, width - j).addr_(e, corner[j].narrow(0, j, width - j), 1, -1);
      errors.select(1, j).copy_(e);
    }
    if (end < n) w.narrow(1, end, n - end).addmm_(errors, u.narrow(0, begin, width).narrow(1, end, n - end), 1, -1);
  }
  return q;
}

/// Upper U with H⁻¹ = Uᵀ U, in float64, then in h's type.
Tensor upper_of_inverse(const Tensor& h) {
  return at::linalg_cholesky(at::cholesky_inverse(at::linalg_cholesky(h.to(at::kDouble))), /*upper=*/true);
}

/// tr (W − Q) H (W − Q)ᵀ in float64.
double loss_of(const Tensor& error, const Tensor& h) {
  const Tensor e = error.to(at::kDouble);
  return (at::mm(e, h.to(at::kDouble)) * e).sum().item<double>();
}

/// All columns of a layer. Work: rows · n² operations. `err` is |loss / loss of the float64 loop − 1|.
void loop(benchmark::State& state, int64_t rows, int64_t n) {
  const Layer layer(rows, n);
  const Tensor u = upper_of_inverse(layer.h), narrow = u.to(at::kFloat);
  ColumnGrid how;
  how.scheme = layer.grid.scheme, how.fixed = layer.grid;
  ColumnResult result;
  double ratio = 0, differing = 0;
  Case c;
  c.ours = [&] { result = ColumnResult(), result = round_columns(layer.w, layer.factor, how, {}); };
  c.peer = [&] { benchmark::DoNotOptimize(by_columns(layer.w, narrow, layer.grid)); };
  c.error = [&] {
    const Tensor exact = by_columns(layer.w, u, layer.grid), w = layer.w.to(at::kDouble);
    ratio = loss_of(w - dequantize(result.codes, layer.grid), layer.h) / loss_of(w - exact, layer.h);
    differing = dequantize(result.codes, layer.grid).sub(exact).abs().gt(layer.grid.scale / 2).to(at::kDouble).mean().item<double>();
    return std::abs(ratio - 1);
  };
  c.tolerance = 1e-3;
  c.ceiling = Ceiling::multiply, c.work = static_cast<double>(rows) * static_cast<double>(n) * static_cast<double>(n);
  c.goal = n == 2048 ? 4 : 0;
  measure(state, c);
  state.counters["loss_ratio"] = ratio, state.counters["codes_differing"] = differing;
}

/// The products between blocks alone: their share of the loop.
void trailing(benchmark::State& state, int64_t rows, int64_t n) {
  const Layer layer(rows, n);
  ptq::detail::ColumnRun run;
  run.w = layer.w, run.e = at::randn({rows, n}) * 1e-3;
  Tensor last;
  Case c;
  c.ours = [&] {
    for (int64_t begin = 0; begin < n; begin += 128) last = ptq::detail::block_start(run, layer.factor, begin, std::min(begin + 128, n));
  };
  c.error = [&] {
    const int64_t begin = n - last.size(1);
    const Tensor exact = layer.w.narrow(1, begin, n - begin).to(at::kDouble) +
                         at::mm(run.e.narrow(1, 0, begin).to(at::kDouble),
                                layer.factor.unit.narrow(0, 0, begin).narrow(1, begin, n - begin).to(at::kDouble));
    return ((last - exact).norm() / exact.norm()).item<double>();
  };
  c.tolerance = 1e-5;
  c.ceiling = Ceiling::multiply, c.work = static_cast<double>(rows) * static_cast<double>(n) * static_cast<double>(n - 128);
  measure(state, c);
}

}  // namespace

void register_columns() {
  add("columns/gptq/1024x1024/multiply/quick", [](benchmark::State& s) { loop(s, 1024, 1024); });
  add("columns/gptq/2048x2048/multiply", [](benchmark::State& s) { loop(s, 2048, 2048); });
  add(
      "columns/gptq/4096x4096/multiply", [](benchmark::State& s) { loop(s, 4096, 4096); }, 3);
  add("columns/between_blocks/2048x2048/multiply", [](benchmark::State& s) { trailing(s, 2048, 2048); });
  add(
      "columns/between_blocks/4096x4096/multiply", [](benchmark::State& s) { trailing(s, 4096, 4096); }, 3);
}
