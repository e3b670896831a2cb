// The column engine that solvers share: order the columns, round one, feed its error forward.
//
// With H = R Rᵀ (R upper), M = R diag(R)⁻¹ and E = W − Q, the value rounded in column j is w_j + Σ_{i<j} E_i M_ij. This is the recursion of
// GPTQ (Frantar et al., arXiv 2210.17323, eq. 2 and 3) in the factor of H instead of H⁻¹: one factorisation, no division in the loop.
#pragma once

#include <algorithm>
#include <vector>

#include <ptq/core/column_levels.hpp>

namespace ptq {

/// What a run leaves.
struct ColumnResult {
  Tensor codes;        // (rows, n) uint8, original order
  Grid grid;           ///< group_of set where groups are not consecutive original columns
  Tensor error;        // (rows, n) target − Q, original order
  Tensor seen;         // (rows, n) the compensated values that were rounded, original order; when asked for
  Tensor column_loss;  // (n) double Σ_rows (x − q)² R_jj², solver order
  Tensor levels;       // (n, K) ascending, original order, where levels took the place of a grid; shorter columns repeat their last
  Tensor keep;         // (rows, n) bool, original order; undefined: no entry was kept
};

/// How a run goes.
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
  run.e = at::empty_like(run.w), run.codes = at::empty(run.w.sizes(), at::kInt);
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
