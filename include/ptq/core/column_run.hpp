// The state of the column engine, and the step of one block: what earlier columns left behind, then rounding with feedback.
#pragma once

#include <algorithm>
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

namespace detail {

/// The state of one run in solver order; all matrices (rows, n).
struct ColumnRun {
  Tensor w, divisor;      // target; whole divisors or undefined
  Tensor e, codes, seen;  // outputs; codes int32, seen may be undefined
  Tensor group_of;        // (n) int32: group of each column
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

}  // namespace detail

}  // namespace ptq
