// GPTQ: columns one by one, each rounding error compensated in the columns still to come.
#pragma once

#include <ptq/core/column_setup.hpp>
#include <ptq/solver.hpp>

namespace ptq {

/// argmin_Q ‖W X − Q X‖² on a fixed grid, greedily, column by column:
///   q_j = nearest(w_j),  e_j = (w_j − q_j)/U_jj,  w_k ← w_k − e_j U_jk for k > j,   H⁻¹ = Uᵀ U,  H = Σ x xᵀ + λ I
/// Frantar, Ashkboos, Hoefler, Alistarh: GPTQ, arXiv 2210.17323, eq. 2 and 3 and algorithm 1; orders and static groups as in the released
/// code. H comes from the quantized stream with activations unquantized inside the layer; its scale does not matter.
struct Gptq {
  static constexpr std::string_view tag = "gptq";

  double damp = 0.01;           ///< λ over the mean of diag H
  double damp_increase = 0.01;  ///< added to damp when the factorisation fails; 0: an error instead
  int64_t block = 128;          ///< columns a lazy update covers; no code depends on it unless as_published
  ColumnOrder order = ColumnOrder::natural;
  ColumnMode mode = ColumnMode::exact;
  bool static_groups = false;            ///< grids of all groups fitted beforehand; groups of original columns
  Divisors divisors = Divisors::ignore;  ///< of a learned rounding
  bool true_sequential = false;          ///< input groups one after the other, each seeing the earlier ones quantized
  bool as_published = false;             ///< stale grids of groups smaller than a block; dead columns count in the damping mean;
                                         ///< symmetric grids of non-negative rows keep zero as their lower end

  [[nodiscard]] constexpr Needs needs() const { return {.hessian = true}; }
  [[nodiscard]] Observed observed() const { return Observed::plain; }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    const Reason why = refuses_mode(mode);
    return why.empty() ? refuses_columns(damp, damp_increase, block) : why;
  }

  /// Factor of the layer's H = 2/N Σ x xᵀ, N sequences; the same for all linears of an input group.
  /// group: columns that a group-aware order keeps together.
  [[nodiscard]] ColumnFactor factor(const Statistics& stats, const std::string& place, int64_t group = 0) const {
    const Tensor h = stats.hessian * (2.0 / static_cast<double>(std::max<int64_t>(1, stats.sequences)));
    return factorise(
        h, {damp, damp_increase, as_published}, [&](const Tensor& diagonal) { return column_order(order, diagonal, group); }, place);
  }

  /// Rounds the columns of a problem, in the order of `f`; `keep_seen` also returns the compensated values that were rounded.
  [[nodiscard]] ColumnResult round(const Problem& problem, const ColumnFactor& f, bool keep_seen = false) const {
    (void)group_count(problem.scheme, problem.weight.size(1), problem.place);
    const Tensor w = problem.weight.masked_fill(f.dead, 0);  // (out, in)
    // One grid a row sees the dead columns' weights, as in the released code; static groups are fitted without them.
    const ColumnGrid how = column_grid(problem.weight, w, problem.scheme, problem.coordinates.grid, static_groups, as_published);
    ColumnOptions options;
    options.block = block;
    options.fast = mode == ColumnMode::fast;
    options.keep_seen = keep_seen;
    if (divisors == Divisors::decide) options.divisor = problem.coordinates.divisor;
    return round_columns(w, f, how, options);
  }

  [[nodiscard]] Solution solve(const Problem& problem) const {
    if (!problem.stats || !problem.stats->hessian.defined() || problem.stats->tokens == 0)
      fail(problem.place, ": no calibration token reached this layer");
    const int64_t group = order_group(order, problem.scheme, problem.weight.size(1), problem.place);
    const ColumnFactor& f =
        problem.shared->get<ColumnFactor>(cat("gptq ", group), [&] { return factor(*problem.stats, problem.place, group); });
    ColumnResult r = round(problem, f);

    Solution s;
    s.linear.codes = r.codes;
    s.linear.grid = r.grid;
    s.linear.permuted = r.grid.group_of.defined();
    s.target = problem.weight.masked_fill(f.dead, 0);  // (out, in)
    s.report = {{"loss", r.column_loss.sum().item<double>() / 2}, {"damp", f.percent}, {"dead_columns", f.dead.sum().item<double>()}};
    return s;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Gptq, damp, damp_increase, block, order, mode, static_groups, divisors, true_sequential, as_published);
