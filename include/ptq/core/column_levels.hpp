// Columns rounded to levels of their own (CLAQ's codebooks) in place of a grid.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ptq/core/column_run.hpp>
#include <ptq/core/transpose.hpp>

namespace ptq::detail {

/// Takes the levels (k, K) chosen for columns begin …; all tables as wide as the widest, shorter ones repeat their last level.
inline void put_levels(ColumnRun& run, int64_t begin, const Tensor& chosen) {
  const int64_t count = chosen.size(0), n = run.w.size(1), k = chosen.size(1);
  if (!run.levels.defined()) run.levels = at::zeros({n, k}, run.w.options()), run.sizes = at::ones({n}, at::kInt);
  if (k > run.levels.size(1)) {
    const Tensor last = run.levels.narrow(1, run.levels.size(1) - 1, 1);
    run.levels = at::cat({run.levels, last.expand({n, k - run.levels.size(1)})}, 1).contiguous();
  }
  by_scalar(run.w, "column rounding", [&]<class T>(T) {
    const int64_t width = run.levels.size(1);
    for (int64_t j = 0; j < count; ++j) {
      const T* from = chosen.const_data_ptr<T>() + j * k;
      T* to = run.levels.mutable_data_ptr<T>() + (begin + j) * width;
      std::fill(std::copy(from, from + k, to), to + width, from[k - 1]);
      run.sizes.mutable_data_ptr<int32_t>()[begin + j] = static_cast<int32_t>(std::lower_bound(to, to + width, to[width - 1]) - to) + 1;
    }
  });
}

/// Takes the kept entries (k, rows) of columns begin …
inline void put_kept(ColumnRun& run, int64_t begin, const Tensor& chosen) {
  if (!chosen.defined()) return;
  if (!run.keep.defined()) run.keep = at::zeros(run.w.sizes(), at::kBool);
  run.keep.narrow(1, begin, chosen.size(0)).copy_(chosen.t());
}

/// A block whose columns are rounded each to levels fitted when it is reached. x (rows, width): their values at the block's start. In here
/// a column lies in a row, (width, rows): what is fitted, rounded and fed forward is contiguous.
inline void round_each_to_levels(ColumnRun& run, const ColumnGrid& how, const Tensor& x, int64_t begin, const Tensor& m) {
  constexpr int64_t strip = 8;  // columns that take in all earlier errors of the block together
  const int64_t rows = x.size(0), width = x.size(1);
  const auto turned = [&](const Tensor& t) { return t.defined() ? by_rows(t.narrow(1, begin, width).t()) : Tensor(); };
  const Tensor w = turned(run.w), divisor = turned(run.divisor), share = by_rows(m.t());  // (width, width) M_ij at j, i
  const Tensor value = by_rows(x.t());                                                    // (width, rows)
  const Tensor e = at::empty_like(w), codes = at::empty(w.sizes(), at::kInt);
  Tensor keep;
  by_scalar(x, "column rounding", [&]<class T>(T) {
    std::vector<std::byte> workspace(kernels::column_block_workspace<T>(1));
    T* const at_value = value.data_ptr<T>();
    // Errors of columns from … end − 1 into columns to … to + count − 1.
    const auto feed = [&](int64_t to, int64_t count, int64_t from, int64_t end) {
      const kernels::View<const T> by{share.const_data_ptr<T>() + to * width + from, count, end - from, width};
      const kernels::View<const T> errors{e.const_data_ptr<T>() + from * rows, end - from, rows, rows};
      check(kernels::compensate<T>(by, errors, {at_value + to * rows, count, rows, rows}, {0, count}), "column rounding", x);
    };
    const auto column = [&](const Tensor& t, int64_t j) { return kernels::View<T>{t.data_ptr<T>() + j * rows, rows, 1, 1}; };
    for (int64_t j = 0; j < width; ++j) {
      const int64_t first = j / strip * strip;
      if (j == first && j > 0) feed(j, std::min(strip, width - j), 0, j);
      if (j > first) feed(j, 1, first, j);
      const ColumnLevels chosen = how.levels(begin + j, value.narrow(0, j, 1));
      put_levels(run, begin + j, chosen.levels);
      kernels::ColumnBlock<T> one;
      one.w = column(w, j), one.x = column(value, j), one.e = column(e, j);
      one.table.levels = run.levels.const_data_ptr<T>() + (begin + j) * run.levels.size(1);
      one.table.size = run.sizes.const_data_ptr<int32_t>()[begin + j];
      if (divisor.defined()) one.divisor = column(divisor, j);
      if (chosen.keep.defined()) {
        if (!keep.defined()) keep = at::zeros(w.sizes(), at::kBool);
        std::copy_n(chosen.keep.const_data_ptr<bool>(), rows, keep.data_ptr<bool>() + j * rows);
        one.keep = {reinterpret_cast<const uint8_t*>(keep.const_data_ptr<bool>()) + j * rows, rows, 1, 1};
      }
      one.codes = kernels::Codes(codes.data_ptr<int32_t>() + j * rows, 1);
      one.loss = run.loss.data_ptr<double>() + begin + j;
      check(kernels::column_block(one, {0, rows}, workspace.data(), workspace.size()), "column rounding", x);
    }
  });
  run.e.narrow(1, begin, width).copy_(e.t());
  run.codes.narrow(1, begin, width).copy_(codes.t());
  if (run.seen.defined()) run.seen.narrow(1, begin, width).copy_(value.t());
  put_kept(run, begin, keep);
}

/// A block whose columns are rounded to levels of their own: fitted all at its start, or each when it is reached.
inline void round_block_to_levels(ColumnRun& run, const ColumnGrid& how, const ColumnFactor& factor, int64_t begin, int64_t end) {
  const Tensor x = block_start(run, factor, begin, end);                                     // (rows, width)
  const Tensor m = factor.unit.narrow(0, begin, end - begin).narrow(1, begin, end - begin);  // (width, width)
  if (!how.levels_ahead) return round_each_to_levels(run, how, x, begin, m);
  const ColumnLevels chosen = how.levels(begin, by_rows(current_weights(run, factor, begin, end).t()));
  put_levels(run, begin, chosen.levels);
  put_kept(run, begin, chosen.keep);
  round_block(run, x, begin, m);
}

}  // namespace ptq::detail
