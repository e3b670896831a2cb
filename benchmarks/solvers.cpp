// Whole solves of one layer: AWRQ against the published form of its loop, AWRQ and CLAQ against GPTQ.

#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptq.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// A square layer and the statistics of its inputs, of few directions and noise; the cross term as 8-bit inputs leave it.
struct Layer {
  Tensor w;  // (n, n)
  Statistics stats;
  Scheme scheme = Scheme::parse("int4:channel", "benchmark", Role::weight);

  explicit Layer(int64_t n) : w(at::randn({n, n}) * 0.02) {
    const Tensor x =
        at::mm(at::randn({2 * n, n / 4}), at::randn({n / 4, n})) * (4.0 / static_cast<double>(n)) + 0.1 * at::randn({2 * n, n});
    const Tensor rounded = (x / 0.02).round() * 0.02;
    stats.hessian = at::mm(rounded.t(), rounded), stats.cross = at::mm((x - rounded).t(), rounded);
    stats.sequences = 1, stats.tokens = 2 * n;
  }
  template <class P>
  [[nodiscard]] Solution solve(const P& solver) const {
    Shared shared;
    Problem p;
    p.place = "benchmark", p.weight = w, p.scheme = scheme, p.stats = &stats, p.shared = &shared;
    return solver.solve(p);
  }
  /// tr (W − Q) H (W − Q)ᵀ.
  [[nodiscard]] double loss(const Tensor& q) const {
    const Tensor e = (w - q).to(at::kDouble);
    return (at::mm(e, stats.hessian.to(at::kDouble)) * e).sum().item<double>();
  }
};

/// Released AWRQ at one column a block: W[:, j:] += (q_j − w_j) U_j,j: / U_jj over the whole rest of the matrix. u: H⁻¹ = Uᵀ U.
Tensor one_column_form(const Tensor& target, const Tensor& u, const Grid& grid) {
  const int64_t n = target.size(1);
  Tensor w = target.clone();
  for (int64_t j = 0; j < n; ++j) {
    const Tensor x = w.narrow(1, j, 1);  // (rows, 1)
    const Tensor q = grid.scale * (at::clamp(at::round(x / grid.scale) + grid.zero, grid.lowest, grid.highest) - grid.zero);
    const Tensor step = at::mm(q - x, (u[j].narrow(0, j, n - j) / u[j][j]).unsqueeze(0));  // (rows, n − j)
    w.narrow(1, j, n - j).add_(step);
  }
  return w;
}

void awrq_loop(benchmark::State& state, int64_t n) {
  const Layer layer(n);
  const Awrq awrq;
  const ColumnFactor f = awrq.factor(layer.stats, "benchmark");
  const Tensor target = layer.w + awrq.shift(layer.w, layer.stats, f);
  const Tensor r = f.unit * f.loss_weight.sqrt().to(at::kFloat);
  const Tensor u = at::linalg_solve_triangular(r, at::eye(n), /*upper=*/true);
  ColumnGrid how;
  how.scheme = layer.scheme, how.fixed = fit_grid(layer.w, layer.scheme);
  ColumnResult result;
  Tensor theirs;
  Case c;
  c.ours = [&] { result = ColumnResult(), result = round_columns(target, f, how, {}); };
  c.peer = [&] { theirs = one_column_form(target, u, how.fixed); };
  c.error = [&] {
    const Tensor e = (target - one_column_form(target, u, how.fixed)).to(at::kDouble), h = layer.stats.hessian.to(at::kDouble);
    const Tensor mine = result.error.to(at::kDouble);
    return std::abs((at::mm(mine, h) * mine).sum().item<double>() / (at::mm(e, h) * e).sum().item<double>() - 1);
  };
  c.tolerance = 1e-2;
  c.goal = n == 2048 ? 30 : 0;
  measure(state, c);
}

/// A solver beside GPTQ; `most`: times GPTQ's time that it may take.
template <class P>
void beside_gptq(benchmark::State& state, int64_t n, const P& solver, double most, double loss_bound) {
  const Layer layer(n);
  Solution mine;
  Case c;
  c.ours = [&] { mine = Solution(), mine = layer.solve(solver); };
  c.peer = [&] { benchmark::DoNotOptimize(layer.solve(Gptq{})); };
  c.error = [&] { return layer.loss(mine.linear.weight()) / layer.loss(layer.solve(Gptq{}).linear.weight()); };
  c.tolerance = loss_bound;
  c.goal = 1 / most;
  measure(state, c);
}

}  // namespace

void register_solvers() {
  add(
      "solvers/awrq_loop/1024x1024/multiply", [](benchmark::State& s) { awrq_loop(s, 1024); }, 3);
  add(
      "solvers/awrq_loop/2048x2048/multiply", [](benchmark::State& s) { awrq_loop(s, 2048); }, 2);
  add(
      "solvers/awrq/2048x2048/multiply", [](benchmark::State& s) { beside_gptq(s, 2048, Awrq{}, 2.5, 2); }, 3);
  const auto claq = [](const char* name, const Claq& solver, double most) {
    add(
        name, [solver, most](benchmark::State& s) { beside_gptq(s, 2048, solver, most, 1); }, 3);
  };
  claq("solvers/claq_lloyd/2048x2048/multiply", {.kmeans = KMeans::lloyd}, 3);
  claq("solvers/claq_coarse/2048x2048/multiply", {}, 10);
  claq("solvers/claq_coarse_block/2048x2048/multiply", {.block = 128, .schedule = CodebookSchedule::block}, 6);
  claq("solvers/claq_lloyd_warm/2048x2048/multiply", {.kmeans = KMeans::lloyd, .schedule = CodebookSchedule::warm}, 3);
}
