// Element-wise division: every weight has a learned divisor of its own, in the log domain. FlexRound and LRQ differ in its form only.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/autograd.hpp>
#include <ptq/core/grid.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/kernels/division.hpp>

namespace ptq {

/// Log-divisors beyond the common step; undefined parts are zero.
struct LogDivisor {
  Tensor matrix;                  // (rows, cols)
  Tensor row;                     // (rows, 1)
  Tensor column;                  // (1, cols)
  std::optional<double> bound{};  ///< their sum stays within ±bound
};

/// Whether the step is a power of two, which learning leaves alone: divisors alone are learned then.
[[nodiscard]] inline bool step_stays(const Scheme& scheme) { return scheme.block_float() || scheme.kind == NumberKind::fixed; }

/// What is learned of the grid, and its fixed zero point: {"l1" log s, "zero"}, both (rows or 1, groups). A step that stays is "step", s.
[[nodiscard]] inline NamedTensors start_division(const Tensor& w, const Scheme& scheme) {
  const Grid g = fit_grid(w, scheme);
  if (step_stays(scheme)) return {{"step", g.scale}, {"zero", g.zero}};
  return {{"l1", g.scale.log()}, {"zero", g.zero}};
}

/// `names` at `rate`, the step "l1" at its own where it has one. Parameters of rate 0 stay where they start.
[[nodiscard]] inline std::vector<Learnable> division_learnables(double rate, const std::optional<double>& step_rate,
                                                                std::vector<std::string> names) {
  const bool together = !step_rate || *step_rate == rate;
  if (together) names.insert(names.begin(), "l1");
  std::vector<Learnable> all;
  if (rate > 0) all.push_back({std::move(names), rate});
  if (!together && *step_rate > 0) all.push_back({{"l1"}, *step_rate});
  return all;
}

/// Why these numbers mean nothing; empty: they do.
[[nodiscard]] inline std::string refuses_division(double rate, const std::optional<double>& step_rate, const std::optional<double>& bound) {
  if (!(rate >= 0)) return "rounding.rate must not be negative, it is " + number_text(rate);
  if (step_rate && !(*step_rate >= 0)) return "rounding.step_rate must not be negative, it is " + number_text(*step_rate);
  if (bound && !(*bound > 0)) return "rounding.bound must be positive or none, it is " + number_text(*bound);
  return {};
}

namespace detail {

/// exp, as the kernels of the division compute it: at T = l1 the divisor is the step to the last bit.
[[nodiscard]] inline Tensor exponentials(const Tensor& x) {
  const Tensor in = x.detach().contiguous();
  Tensor out = at::empty_like(in);
  by_scalar(in, "learned steps", [&]<class T>(T) {
    if (kernels::exponentials(in.const_data_ptr<T>(), out.mutable_data_ptr<T>(), in.numel()) != kernels::Status::ok)
      fail("learned steps ", shape_text(x), " are no longer positive numbers; lower rounding.rate");
  });
  return out;
}

/// The operands of a division, all contiguous; matrix, row and column may be undefined.
struct Division {
  Tensor w, l1, matrix, row, column;
  Grid grid;
  double bound = 0;

  template <class T>
  [[nodiscard]] kernels::LogDivisor<T> raw() const {
    kernels::LogDivisor<T> t;
    t.log_step = l1.const_data_ptr<T>(), t.bound = static_cast<T>(bound);
    if (matrix.defined()) t.matrix = view<T>(matrix);
    if (row.defined()) t.row = row.const_data_ptr<T>();
    if (column.defined()) t.column = column.const_data_ptr<T>();
    return t;
  }
  static void check(kernels::Status status, const Tensor& w) {
    if (status == kernels::Status::non_finite)
      fail("learned divisors of a weight ", shape_text(w), " are no longer positive numbers; lower rounding.rate or set rounding.bound");
    detail::check(status, "dividing", w);
  }
  /// Fills those of values and divisors (rows, cols) that are defined.
  void forward(Tensor values, Tensor divisors) const {
    by_scalar(w, "a learned division", [&]<class T>(T) {
      const auto out = [](Tensor& t) { return t.defined() ? mutable_view<T>(t) : kernels::View<T>(); };
      check(over_rows(w.size(0), grain(w),
                      [&](kernels::Rows r) {
                        return kernels::divide<T>(view<T>(w), detail::raw<T>(grid), raw<T>(), out(values), out(divisors), r);
                      }),
            w);
    });
  }
  /// Gradients of Σ upstream ⊙ Ŵ; fills those of `out` that are defined, zeros first where sums are added up. Sums over rows are added up
  /// in the order of the threads' shares, so that they do not depend on who is first.
  struct Gradients {
    Tensor w, l1, matrix, row, column;
  };
  void backward(const Tensor& upstream, Gradients& out) const {
    const Tensor g = upstream.contiguous();
    const bool whole = l1.size(0) == 1 && w.size(0) > 1;  // one step for all rows
    std::map<int64_t, std::pair<Tensor, Tensor>> shares;  // by first row: sums over rows, of `column` and of that step
    std::mutex guard;
    by_scalar(w, "a learned division", [&]<class T>(T) {
      const auto work = [&](kernels::Rows rows) {
        kernels::DivisionGradient<T> d;
        std::pair<Tensor, Tensor> own;
        d.upstream = view<T>(g);
        if (out.matrix.defined()) d.matrix = mutable_view<T>(out.matrix);
        if (out.w.defined()) d.weight = mutable_view<T>(out.w);
        if (out.row.defined()) d.row = out.row.mutable_data_ptr<T>();
        if (out.column.defined()) own.first = at::zeros_like(out.column), d.column = own.first.mutable_data_ptr<T>();
        if (whole) own.second = at::zeros_like(out.l1);
        d.log_step = whole ? own.second.mutable_data_ptr<T>() : out.l1.mutable_data_ptr<T>();
        const kernels::Status status = kernels::divide_gradient<T>(view<T>(w), detail::raw<T>(grid), raw<T>(), d, rows);
        const std::lock_guard lock(guard);
        shares[rows.begin] = std::move(own);
        return status;
      };
      check(over_rows(w.size(0), grain(w), work), w);
    });
    for (const auto& [begin, share] : shares) {
      if (share.first.defined()) out.column += share.first;
      if (share.second.defined()) out.l1 += share.second;
    }
  }
};

/// step: its logarithm, or itself where it stays.
[[nodiscard]] inline Division division(const Tensor& w, const Tensor& step, const Tensor& zero, const Scheme& scheme, const LogDivisor& t) {
  const Tensor l1 = step_stays(scheme) ? step.log() : step, s = step_stays(scheme) ? step : exponentials(step);
  const auto plain = [](const Tensor& x) { return x.defined() && x.numel() > 0 ? x.detach().contiguous() : Tensor(); };
  const auto codes = kernels::code_range(convention(scheme));
  return {plain(w),           plain(l1), plain(t.matrix), plain(t.row), plain(t.column), {scheme, s, zero, {}, codes.lo, codes.hi},
          t.bound.value_or(0)};
}

/// Absent parts are tensors without entries here: every argument has to be a tensor.
struct Divide : Differentiable<Divide> {
  static Tensor forward(Context* context, const Tensor& w, const Tensor& l1, const Tensor& matrix, const Tensor& row, const Tensor& column,
                        const Tensor& zero, const Scheme& scheme, double bound) {
    const Division d = division(w, l1, zero, scheme, {matrix, row, column, bound > 0 ? std::optional(bound) : std::nullopt});
    const Tensor values = at::empty_like(d.w);
    d.forward(values, {});
    context->save_for_backward({w, l1, matrix, row, column, zero});
    context->saved_data["scheme"] = scheme.text();
    context->saved_data["bound"] = bound;
    context->saved_data["wants_weight"] = w.requires_grad();
    return values;
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const double bound = context->saved_data["bound"].toDouble();
    const Scheme scheme = Scheme::parse(context->saved_data["scheme"].toStringRef(), "scheme", Role::weight);
    const Division d =
        division(kept[0], kept[1], kept[5], scheme, {kept[2], kept[3], kept[4], bound > 0 ? std::optional(bound) : std::nullopt});
    const auto empty = [](const Tensor& t) { return t.defined() ? at::empty_like(t) : t; };
    Division::Gradients out{context->saved_data["wants_weight"].toBool() ? at::empty_like(d.w) : Tensor(), at::zeros_like(d.l1),
                            empty(d.matrix), empty(d.row), d.column.defined() ? at::zeros_like(d.column) : Tensor()};
    d.backward(upstream[0], out);
    return {out.w, out.l1, out.matrix, out.row, out.column, {}, {}, {}};  // zero point, scheme and bound have none
  }
};

}  // namespace detail

/// Ŵ = s clamp(rne(W / S); lo − z, hi − z),  s = exp(l1),  S = exp(l1 + T): the step alone multiplies back, T is the sum of the parts.
/// Lee et al., FlexRound, arXiv 2306.00317, eq. 2; in the log domain as LRQ, arXiv 2407.11534, has it. Straight through the rounding, true
/// through the clamp, which passes gradients while the rounded coordinate lies within it, ends included: kernels/division.hpp.
/// W (rows, cols) → the same. Throws where a step or a divisor is no longer a positive number.
[[nodiscard]] inline Tensor divide_through(const Tensor& w, const NamedTensors& state, const Scheme& scheme, const LogDivisor& t) {
  const auto given = [&](const Tensor& part) { return part.defined() ? part : at::empty({0}, w.options()); };
  return detail::Divide::apply(w, state.at(step_stays(scheme) ? "step" : "l1"), given(t.matrix), given(t.row), given(t.column),
                               state.at("zero"), scheme, t.bound.value_or(0));
}

/// The same as data: grid and whole divisor.
[[nodiscard]] inline std::pair<Grid, Tensor> division_coordinates(const Tensor& w, const NamedTensors& state, const Scheme& scheme,
                                                                  const LogDivisor& t) {
  const c10::NoGradGuard off;
  const detail::Division d = detail::division(w, state.at(step_stays(scheme) ? "step" : "l1"), state.at("zero"), scheme, t);
  const Tensor divisors = at::empty_like(d.w);  // (rows, cols)
  d.forward({}, divisors);
  return {d.grid, divisors};
}

}  // namespace ptq
