// What a Hessian becomes before columns are rounded: ordered, damped, factorised once.
#pragma once

#include <functional>
#include <string>

#include <ptq/core/linalg.hpp>

namespace ptq {

/// What a Hessian becomes before columns are rounded; shared by all linears that read the same input.
struct ColumnFactor {
  Tensor order;        // (n) int64: original column of each step; undefined: natural
  Tensor unit;         // (n, n) M in solver order, unit upper triangular
  Tensor loss_weight;  // (n) double R_jj², solver order
  Tensor dead;         // (n) bool, original order: columns that never saw an input
  double damp = 0;     ///< what was added to the diagonal, in units of the given Hessian
  double percent = 0;  ///< the same relative to the mean diagonal
};

struct Damping {
  double percent = 0.01;        ///< of the mean diagonal
  double increase = 0.01;       ///< added to `percent` after a failed factorisation, while it stays below 1
  bool mean_over_dead = false;  ///< as published: dead columns, with diagonal 1, count in the mean
};

/// Dead columns get diagonal 1; the damped, ordered Hessian is factorised, with more damping as long as it is not positive definite.
/// hessian (n, n) symmetric; `order_of` maps the diagonal (dead columns set to 1) to an order, or returns an undefined tensor.
inline ColumnFactor factorise(const Tensor& hessian, const Damping& damping, const std::function<Tensor(const Tensor&)>& order_of,
                              const std::string& place) {
  ColumnFactor f;
  Tensor h = hessian.clone();  // (n, n)
  require_finite(h, place + ", Hessian");
  Tensor diagonal = h.diagonal();
  f.dead = diagonal.eq(0);
  const int64_t live = f.dead.numel() - f.dead.sum().item<int64_t>();
  const double total = diagonal.sum().item<double>();
  diagonal.masked_fill_(f.dead, 1);
  f.order = order_of(diagonal.clone());
  if (f.order.defined()) h = h.index_select(0, f.order).index_select(1, f.order);
  const double mean = damping.mean_over_dead ? (total + static_cast<double>(f.dead.numel() - live)) / static_cast<double>(f.dead.numel())
                      : live > 0             ? total / static_cast<double>(live)
                                             : 1.0;
  for (f.percent = damping.percent;; f.percent += damping.increase) {
    f.damp = f.percent * mean;
    Tensor damped = h.clone();
    damped.diagonal().add_(f.damp);
    const UpperFactor factor = upper_factor(damped);
    if (factor.positive) {
      const Tensor r = factor.r.diagonal();  // (n)
      f.unit = (factor.r / r).contiguous();
      f.loss_weight = r.to(at::kDouble).square();
      return f;
    }
    if (damping.increase <= 0 || f.percent + damping.increase >= 1)
      fail(place, ": the Hessian is not positive definite with damping up to ", f.percent,
           " of its mean diagonal; use more calibration tokens or a larger damp");
  }
}

}  // namespace ptq
