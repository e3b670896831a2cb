// GPTAQ: GPTQ that also makes up for the error its inputs arrive with.
#pragma once

#include <ptq/core/column_setup.hpp>
#include <ptq/solver.hpp>

namespace ptq {

/// argmin_Q ‖W X_ref − Q X‖², X the input in the quantized model, X_ref in the float model, column by column. With D = Σ (x_ref − x) xᵀ,
///   P = α strictly_upper(D Uᵀ) U,   H⁻¹ = Uᵀ U,   w_k ← w_k − e_j U_jk + w_j P_jk for k > j, w_j as it was before rounding.
/// Li et al.: GPTAQ, arXiv 2504.02692, eq. 15 to 18; α = 0.25 is the released code's, the paper has none.
/// Solved as GPTQ on W' = W (I − P)⁻¹ with the unit factor (I − P)(V − P)⁻¹, V = diag(U)⁻¹ U: then x − q = (W' − Q)(I − P)(V − P)⁻¹.
/// α = 0, or equal streams, give GPTQ.
struct Gptaq {
  static constexpr std::string_view tag = "gptaq";

  double alpha = 0.25;          ///< strength of the correction
  double damp = 0.01;           ///< λ over the mean of diag H
  double damp_increase = 0.01;  ///< added to damp when the factorisation fails; 0: an error instead
  int64_t block = 128;          ///< columns a lazy update covers; codes depend on it only as_published
  ColumnOrder order = ColumnOrder::natural;
  bool static_groups = false;
  bool true_sequential = true;           ///< as the released code always does
  Divisors divisors = Divisors::ignore;  ///< of a learned rounding
  bool as_published = false;  ///< later blocks see P times the rounded columns instead of the values before rounding; and as Gptq

  [[nodiscard]] constexpr Needs needs() const { return {.hessian = true, .cross = true}; }
  [[nodiscard]] Observed observed() const { return Observed::paired; }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    if (!(alpha >= 0 && alpha <= 1)) return "solver.alpha must lie in [0, 1], it is " + number_text(alpha);
    if (as_published && scheme.granularity == Granularity::group && !static_groups && !scheme.block_float())
      return "solver.as_published with groups fitted on the way is not available; use static_groups, or channels";
    return refuses_columns(damp, damp_increase, block);
  }

  /// The factor of H, and P in solver order: what an input group shares.
  struct Factors {
    ColumnFactor h;
    Tensor p;        // (in, in) strictly upper
    Tensor shifter;  // (in, in) (I − P)⁻¹
  };

  [[nodiscard]] Factors factors(const Statistics& stats, const std::string& place, int64_t group = 0) const {
    const double scale = 2.0 / static_cast<double>(std::max<int64_t>(1, stats.sequences));
    Factors f;
    f.h = factorise(
        stats.hessian * scale, {damp, damp_increase, as_published},
        [&](const Tensor& diagonal) { return column_order(order, diagonal, group); }, place);
    Tensor d = (stats.cross * scale).masked_fill(f.h.dead.unsqueeze(0), 0);  // (in, in) rows: error channel
    if (f.h.order.defined()) d = d.index_select(0, f.h.order).index_select(1, f.h.order);
    const Tensor eye = at::eye(d.size(0), d.options());
    const Tensor r = f.h.unit * f.h.loss_weight.sqrt().to(d.scalar_type());  // R, upper
    const Tensor u = at::linalg_solve_triangular(r, eye, /*upper=*/true);    // R⁻¹
    f.p = alpha * at::mm(at::mm(d, u.t()).triu(1), u);
    f.shifter = at::linalg_solve_triangular(eye - f.p, eye, true, true, true);
    const Tensor v = u / u.diagonal().unsqueeze(1);
    f.h.unit = at::linalg_solve_triangular(v - f.p, eye - f.p, true, /*left=*/false, true).contiguous();  // (I − P)(V − P)⁻¹
    return f;
  }

  [[nodiscard]] Solution solve(const Problem& problem) const {
    if (!problem.stats || !problem.stats->hessian.defined() || problem.stats->tokens == 0)
      fail(problem.place, ": no calibration token reached this layer");
    const int64_t group = order_group(order, problem.scheme, problem.weight.size(1), problem.place);
    const Factors& f = problem.shared->get<Factors>(cat("gptaq ", group), [&] { return factors(*problem.stats, problem.place, group); });
    const Tensor w = problem.weight.masked_fill(f.h.dead, 0);  // (out, in)
    const ColumnGrid how = column_grid(problem.weight, w, problem.scheme, problem.coordinates.grid, static_groups, as_published);
    ColumnOptions options;
    options.block = block;
    if (divisors == Divisors::decide) options.divisor = problem.coordinates.divisor;
    const Tensor target = shifted(w, f);
    const ColumnResult r = as_published ? round_as_published(w, f, how, options) : round_columns(target, f.h, how, options);

    Solution s;
    s.linear.codes = r.codes;
    s.linear.grid = r.grid;
    s.linear.permuted = r.grid.group_of.defined();
    s.target = target;
    s.report = {{"loss", r.column_loss.sum().item<double>() / 2}, {"damp", f.h.percent}, {"dead_columns", f.h.dead.sum().item<double>()}};
    return s;
  }

 private:
  /// W' = W (I − P)⁻¹, original order.
  [[nodiscard]] Tensor shifted(const Tensor& w, const Factors& f) const {
    if (!f.h.order.defined()) return at::mm(w, f.shifter);
    return at::mm(w.index_select(1, f.h.order), f.shifter).index_select(1, at::argsort(f.h.order));
  }

  /// Block by block: inside a block as above, then W ← W − E U + Q P on the columns to come, Q the rounded columns.
  [[nodiscard]] ColumnResult round_as_published(const Tensor& w, const Factors& f, const ColumnGrid& how,
                                                const ColumnOptions& options) const {
    const int64_t n = w.size(1);
    const Tensor sequence = f.h.order.defined() ? f.h.order : at::arange(n);
    const Tensor eye = at::eye(n, w.options());
    // V back from the unit factor: (I − P)(V − P)⁻¹ = M', so V = M'⁻¹ (I − P) + P.
    const Tensor v = at::linalg_solve_triangular(f.h.unit, eye - f.p, true, true, true) + f.p;
    Tensor now = w.index_select(1, sequence).contiguous();  // current weights, solver order
    ColumnResult out;
    out.grid = how.fixed;
    Tensor codes = at::empty({w.size(0), n}, at::kByte);
    out.column_loss = at::zeros({n}, at::kDouble);
    for (int64_t begin = 0; begin < n; begin += options.block) {
      const int64_t width = std::min(options.block, n - begin), end = begin + width;
      const auto square = [&](const Tensor& t) { return t.narrow(0, begin, width).narrow(1, begin, width); };
      const Tensor p = square(f.p), one = square(eye), picked = sequence.narrow(0, begin, width);
      ColumnFactor part;
      part.unit = at::linalg_solve_triangular(square(v) - p, one - p, true, false, true).contiguous();
      part.loss_weight = f.h.loss_weight.narrow(0, begin, width);
      const Tensor target = at::linalg_solve_triangular(one - p, now.narrow(1, begin, width), true, false, true);  // W' of the block
      ColumnGrid grid = how;
      grid.fixed = columns_of(how.fixed, how.scheme, picked);
      grid.scheme = grid.fixed.scheme;
      ColumnOptions inner = options;
      inner.keep_seen = true;
      if (options.divisor.defined()) inner.divisor = options.divisor.index_select(1, picked);
      const ColumnResult r = round_columns(target, part, grid, inner);
      const Tensor q = target - r.error;  // (rows, width)
      codes.narrow(1, begin, width).copy_(r.codes);
      out.column_loss.narrow(0, begin, width).copy_(r.column_loss);
      if (end < n) {
        const auto after = [&](const Tensor& t) { return t.narrow(0, begin, width).narrow(1, end, n - end); };
        now.narrow(1, end, n - end).sub_(at::mm(r.seen - q, after(v))).add_(at::mm(q, after(f.p)));  // e U = (x − q) V
      }
    }
    out.codes = codes.index_select(1, at::argsort(sequence));
    return out;
  }

  /// The grid of some original columns, each with a group of its own where there are groups.
  static Grid columns_of(const Grid& grid, const Scheme& scheme, const Tensor& columns) {
    if (scheme.granularity != Granularity::group) return grid;
    Grid part = grid;
    const Tensor groups = at::floor_divide(columns, scheme.group);
    part.scheme.group = 1;
    part.scale = grid.scale.index_select(1, groups).contiguous();
    part.zero = grid.zero.index_select(1, groups).contiguous();
    return part;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Gptaq, alpha, damp, damp_increase, block, order, static_groups, true_sequential, divisors, as_published);
