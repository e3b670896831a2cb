// The column engine that solvers share: order the columns, round one, feed its error forward.
//
// With H = R Rᵀ (R upper), M = R diag(R)⁻¹ and E = W − Q, the value rounded in column j is w_j + Σ_{i<j} E_i M_ij. This is the recursion of
// GPTQ (Frantar et al., arXiv 2210.17323, eq. 2 and 3) in the factor of H instead of H⁻¹: one factorisation, no division in the loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

#include <ptq/core/column_factor.hpp>
#include <ptq/core/grid.hpp>
#include <ptq/kernels/columns.hpp>

namespace ptq {

/// Levels of one or more columns in place of a uniform grid, and the entries that are kept as they are.
struct ColumnLevels {
  Tensor levels;  // (columns, K) ascending
  Tensor keep;    // (columns, rows) bool; undefined: none
};

/// How grids come about while columns are rounded.
struct ColumnGrid {
  std::function<Grid(const Tensor& columns, const Scheme&)> fit;  ///< fits one grid a row to (rows, group) current values
  Scheme scheme;
  bool dynamic = false;  ///< groups are fitted when reached, on compensated weights, and are consecutive in solver order
  bool stale = false;    ///< as published: groups smaller than a block are all fitted at the block's start
  Tensor first_fit;      // (rows, k) what grids of the first block's groups are fitted to instead (AWRQ as released); usually undefined
  Grid fixed;            ///< otherwise: the grid over original columns

  /// Instead of all that: levels of the columns from step `step` on, given the values they hold then, (columns, rows). One column at a
  /// time on the values it is rounded from, or `levels_ahead`: all columns of a block at its start, on the weights current there.
  std::function<ColumnLevels(int64_t step, const Tensor& values)> levels;
  bool levels_ahead = false;
};

struct ColumnResult {
  Tensor codes;        // (rows, n) uint8, original order
  Grid grid;           ///< group_of set where groups are not consecutive original columns
  Tensor error;        // (rows, n) target − Q, original order
  Tensor seen;         // (rows, n) the compensated values that were rounded, original order; when asked for
  Tensor column_loss;  // (n) double Σ_rows (x − q)² R_jj², solver order
  Tensor levels;       // (n, K) ascending, original order, where levels took the place of a grid; shorter columns repeat their last
  Tensor keep;         // (rows, n) bool, original order; undefined: no entry was kept
};

struct ColumnOptions {
  int64_t block = 128;
  bool keep_seen = false;
  bool fast = false;   ///< the products between blocks in bfloat16, summed in float32
  bool joint = false;  ///< the columns of a block are rounded together, without feedback among them (AWRQ's vector blocks)
  Tensor first;        // (rows, k) rounded in place of the values of the first k steps (AWRQ as released); usually undefined
  Tensor divisor;      // (rows, n) whole divisor of a learned rounding, original order; usually undefined
};

namespace detail {

/// Block edges: at multiples of `block`, restarted at every multiple of `group` (0: none).
inline std::vector<int64_t> block_edges(int64_t n, int64_t block, int64_t group) {
  std::vector<int64_t> edges{0};
  while (edges.back() < n) {
    const int64_t at = edges.back();
    edges.push_back(std::min({n, at + block, group > 0 ? (at / group + 1) * group : n}));
  }
  return edges;
}

/// The state of one run in solver order; all matrices (rows, n).
struct ColumnRun {
  Tensor w, divisor;         // target; whole divisors or undefined
  Tensor q, e, codes, seen;  // outputs; codes int32, seen may be undefined
  Tensor group_of;           // (n) int32: group of each column
  Grid grid;
  Tensor loss;           // (n) double
  Tensor levels, sizes;  // (n, K), (n) int32 levels before the last repeats; where levels take the place of the grid
  Tensor keep;           // (rows, n) bool
  Tensor e16, unit16;    // (rows, n), (n, n) bfloat16 copies of the errors so far and of M; undefined: exact
};

/// Rounds columns [begin, begin + x.size(1)) of every row; x: their compensated values, m: M of the block, unit upper triangular.
inline void round_block(ColumnRun& run, const Tensor& x, int64_t begin, const Tensor& m) {
  const int64_t rows = x.size(0), width = x.size(1), n = run.w.size(1);
  const Tensor thresholds = run.grid.levels.defined() ? minifloat_thresholds(run.grid.levels) : Tensor();
  by_scalar(x, "column rounding", [&]<class T>(T) {
    const auto part = [&](const Tensor& t) { return kernels::View<T>{t.defined() ? t.data_ptr<T>() + begin : nullptr, rows, width, n}; };
    kernels::ColumnBlock<T> block;
    block.w = part(run.w);
    block.x = view<T>(x);
    block.m = {m.const_data_ptr<T>(), width, width, m.stride(0)};
    if (run.levels.defined()) {
      block.table = {run.levels.const_data_ptr<T>() + begin * run.levels.size(1), run.levels.size(1),
                     run.sizes.const_data_ptr<int32_t>() + begin, static_cast<int32_t>(run.levels.size(1))};
    } else {
      block.grid = raw<T>(run.grid);
      block.grid.g_idx = run.group_of.const_data_ptr<int32_t>() + begin;
    }
    if (thresholds.defined())
      block.table = {run.grid.levels.const_data_ptr<T>(), 0, nullptr, run.grid.highest + 1, thresholds.const_data_ptr<T>()};
    if (run.keep.defined()) block.keep = {reinterpret_cast<const uint8_t*>(run.keep.const_data_ptr<bool>()) + begin, rows, width, n};
    if (run.divisor.defined()) block.divisor = part(run.divisor);
    block.loss_weight = nullptr;
    block.q = part(run.q);
    block.e = part(run.e);
    if (run.seen.defined()) block.seen = part(run.seen);
    block.codes = kernels::Codes(run.codes.mutable_data_ptr<int32_t>() + begin, n);
    const size_t bytes = kernels::column_block_workspace<T>(width);
    std::mutex guard;
    const int64_t grain = std::max<int64_t>(32, 16384 / width);  // a thread's share is worth waking it
    const auto status = over_rows(rows, grain, [&](kernels::Rows mine) {
      std::vector<std::byte> workspace(bytes);
      std::vector<double> loss(static_cast<size_t>(width), 0.0);
      kernels::ColumnBlock<T> share = block;
      share.loss = loss.data();
      const auto done = kernels::column_block(share, mine, workspace.data(), bytes);
      const std::lock_guard lock(guard);
      for (int64_t j = 0; j < width; ++j) run.loss.mutable_data_ptr<double>()[begin + j] += loss[static_cast<size_t>(j)];
      return done;
    });
    check(status, "column rounding", x);
  });
}

/// w + E M over the columns before `begin`: where the recursion of columns begin … end starts. (rows, end − begin)
inline Tensor block_start(const ColumnRun& run, const ColumnFactor& factor, int64_t begin, int64_t end) {
  const int64_t rows = run.w.size(0), n = run.w.size(1), width = end - begin;
  Tensor x = run.w.narrow(1, begin, width).clone(at::MemoryFormat::Contiguous);
  if (begin == 0) return x;
  if (run.e16.defined()) return x.add_(at::mm(run.e16.narrow(1, 0, begin), run.unit16.narrow(0, 0, begin).narrow(1, begin, width)));
  by_scalar(x, "column rounding", [&]<class T>(T) {
    const kernels::View<const T> e{run.e.const_data_ptr<T>(), rows, begin, n};
    const kernels::View<const T> m{factor.unit.const_data_ptr<T>() + begin, begin, width, n};
    const auto out = mutable_view<T>(x);
    check(over_rows(rows, 32, [&](kernels::Rows mine) { return kernels::compensate(e, m, out, mine); }), "column rounding", x);
  });
  return x;
}

/// The weights of columns F = begin … end while none of them is rounded, the optimum given the columns P before:
/// W_F + E_P H_PF (H_FF)⁻¹ = W_F + (E_P M_PF) M_FF⁻¹. Only its first column is what block_start gives.
inline Tensor current_weights(const ColumnRun& run, const ColumnFactor& factor, int64_t begin, int64_t end) {
  const Tensor w = run.w.narrow(1, begin, end - begin);  // (rows, F)
  if (begin == 0) return w;
  const Tensor m = factor.unit.narrow(0, begin, end - begin).narrow(1, begin, end - begin);  // (F, F)
  return w +
         at::linalg_solve_triangular(m, block_start(run, factor, begin, end) - w, /*upper=*/true, /*left=*/false, /*unitriangular=*/true);
}

/// Fits the grids of groups first … last − 1, which begin in the block at `begin`, on the weights current there.
inline void fit_groups(ColumnRun& run, const ColumnGrid& how, const ColumnFactor& factor, int64_t begin, int64_t first, int64_t last) {
  if (first >= last) return;
  const int64_t group = how.scheme.group;
  const Tensor now = begin == 0 && how.first_fit.defined() ? how.first_fit : current_weights(run, factor, begin, last * group);
  for (int64_t g = first; g < last; ++g) {
    const Grid fitted = how.fit(now.narrow(1, g * group - begin, group), how.scheme);
    run.grid.scale.select(1, g).copy_(fitted.scale.select(1, 0));
    run.grid.zero.select(1, g).copy_(fitted.zero.select(1, 0));
    run.grid.lowest = fitted.lowest, run.grid.highest = fitted.highest, run.grid.levels = fitted.levels;
  }
}

/// Takes what was chosen for columns begin …; all tables as wide as the widest, shorter ones repeat their last level.
inline void put_levels(ColumnRun& run, int64_t begin, const ColumnLevels& chosen) {
  const int64_t count = chosen.levels.size(0), n = run.w.size(1), k = chosen.levels.size(1);
  if (!run.levels.defined()) run.levels = at::zeros({n, k}, run.w.options()), run.sizes = at::ones({n}, at::kInt);
  if (k > run.levels.size(1)) {
    const Tensor last = run.levels.narrow(1, run.levels.size(1) - 1, 1);
    run.levels = at::cat({run.levels, last.expand({n, k - run.levels.size(1)})}, 1).contiguous();
  }
  by_scalar(run.w, "column rounding", [&]<class T>(T) {
    const int64_t width = run.levels.size(1);
    for (int64_t j = 0; j < count; ++j) {
      const T* from = chosen.levels.const_data_ptr<T>() + j * k;
      T* to = run.levels.mutable_data_ptr<T>() + (begin + j) * width;
      std::fill(std::copy(from, from + k, to), to + width, from[k - 1]);
      run.sizes.mutable_data_ptr<int32_t>()[begin + j] = static_cast<int32_t>(std::lower_bound(to, to + width, to[width - 1]) - to) + 1;
    }
  });
  if (!chosen.keep.defined()) return;
  if (!run.keep.defined()) run.keep = at::zeros(run.w.sizes(), at::kBool);
  run.keep.narrow(1, begin, count).copy_(chosen.keep.t());
}

/// A block whose columns are rounded to levels of their own: fitted all at its start, or each when it is reached.
inline void round_block_to_levels(ColumnRun& run, const ColumnGrid& how, const ColumnFactor& factor, int64_t begin, int64_t end) {
  const Tensor x = block_start(run, factor, begin, end);                                     // (rows, width)
  const Tensor m = factor.unit.narrow(0, begin, end - begin).narrow(1, begin, end - begin);  // (width, width)
  if (how.levels_ahead) {
    put_levels(run, begin, how.levels(begin, current_weights(run, factor, begin, end).t().contiguous()));
    round_block(run, x, begin, m);
    return;
  }
  const Tensor one = at::ones({1, 1}, x.options());
  for (int64_t j = 0; j < end - begin; ++j) {
    Tensor value = x.select(1, j);  // (rows) at the block's start
    if (j > 0) value = value + at::mv(run.e.narrow(1, begin, j), m.select(1, j).narrow(0, 0, j));
    value = value.contiguous();
    put_levels(run, begin + j, how.levels(begin + j, value.unsqueeze(0)));
    round_block(run, value.unsqueeze(1), begin + j, one);
  }
}

}  // namespace detail

/// Rounds every column of `target` in the factor's order. target (rows, n), dead columns already zero.
[[nodiscard]] inline ColumnResult round_columns(const Tensor& target, const ColumnFactor& factor, const ColumnGrid& how,
                                                const ColumnOptions& options) {
  const int64_t rows = target.size(0), n = target.size(1);
  const auto reorder = [&](const Tensor& t, const Tensor& order) {
    return !t.defined() || !order.defined() ? t : t.index_select(1, order);
  };
  const bool grouped = how.scheme.granularity == Granularity::group;
  const int64_t group = grouped ? how.scheme.group : n;
  const Tensor order = factor.order.defined() ? factor.order : at::arange(n);

  detail::ColumnRun run;
  run.w = reorder(target, factor.order).contiguous();
  if (options.divisor.defined()) run.divisor = reorder(options.divisor, factor.order).contiguous();
  run.q = at::empty_like(run.w), run.e = at::empty_like(run.w), run.codes = at::empty(run.w.sizes(), at::kInt);
  if (options.keep_seen) run.seen = at::empty_like(run.w);
  run.loss = at::zeros({n}, at::kDouble);
  run.grid = how.fixed;
  run.group_of = at::floor_divide(how.dynamic ? at::arange(n) : order, group).to(at::kInt).contiguous();
  if (how.dynamic) {
    run.grid.scheme = how.scheme;
    run.grid.scale = at::empty({rows, n / group}, run.w.options());
    run.grid.zero = at::empty({rows, n / group}, at::kInt);
  }

  if (options.fast) run.e16 = at::empty(run.w.sizes(), at::kBFloat16), run.unit16 = factor.unit.to(at::kBFloat16);

  const auto edges = detail::block_edges(n, options.block, how.dynamic && !how.stale ? group : 0);
  for (size_t b = 0; b + 1 < edges.size(); ++b) {
    const int64_t begin = edges[b], end = edges[b + 1];
    if (how.levels) {
      detail::round_block_to_levels(run, how, factor, begin, end);
      continue;
    }
    if (how.dynamic) detail::fit_groups(run, how, factor, begin, (begin + group - 1) / group, (end + group - 1) / group);
    Tensor x = options.joint ? detail::current_weights(run, factor, begin, end).contiguous()
                             : detail::block_start(run, factor, begin, end);  // (rows, end - begin)
    if (begin == 0 && options.first.defined()) {
      const int64_t k = std::min(options.first.size(1), end);
      x = x.clone(), x.narrow(1, 0, k).copy_(options.first.narrow(1, 0, k));
    }
    detail::round_block(
        run, x, begin,
        options.joint ? at::eye(end - begin, x.options()) : factor.unit.narrow(0, begin, end - begin).narrow(1, begin, end - begin));
    if (options.fast) run.e16.narrow(1, begin, end - begin).copy_(run.e.narrow(1, begin, end - begin));
  }

  const Tensor back = factor.order.defined() ? at::argsort(factor.order) : Tensor();
  ColumnResult out;
  out.codes = reorder((run.codes - run.grid.lowest).to(at::kByte), back);
  out.error = reorder(run.e, back);
  out.seen = reorder(run.seen, back);
  out.column_loss = run.loss * factor.loss_weight;
  out.grid = run.grid;
  out.levels = run.levels.defined() && back.defined() ? run.levels.index_select(0, back) : run.levels;
  out.keep = reorder(run.keep, back);
  if (how.dynamic && grouped && back.defined()) {
    out.grid.group_of = reorder(run.group_of.unsqueeze(0), back).squeeze(0).contiguous();
    const Tensor together = out.grid.group_of.reshape({n / group, group});  // (groups, group)
    if (together.eq(together.narrow(1, 0, 1)).all().item<bool>()) {         // groups of neighbouring original columns after all
      const Tensor of = together.select(1, 0).to(at::kLong);
      out.grid.scale = out.grid.scale.index_select(1, of), out.grid.zero = out.grid.zero.index_select(1, of);
      out.grid.group_of = Tensor();
    }
  }
  return out;
}

}  // namespace ptq
