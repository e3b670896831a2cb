// The one door to autograd: minimise a function of named tensors with Adam or AdamW, each group of parameters at its own rate.
#pragma once

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/learning.hpp>
#include <ptq/core/tensor.hpp>

namespace ptq {

/// Parameters of one rate. Tensors are leaves that are updated in place.
struct ParameterGroup {
  std::vector<Tensor> tensors;
  double rate = 0;
};

/// One Adam state over several groups; the update is libtorch's fused one, p −= lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε), Kingma and Ba,
/// 1412.6980.
class Adam {
 public:
  Adam(std::vector<ParameterGroup> groups, const Learning& how, double epsilon) : groups_(std::move(groups)), how_(how), epsilon_(epsilon) {
    for (ParameterGroup& g : groups_)
      for (Tensor& p : g.tensors) {
        p.requires_grad_(true);
        mean_.push_back(at::zeros_like(p)), square_.push_back(at::zeros_like(p)), step_.push_back(at::zeros({}, at::kFloat));
      }
  }

  void clear() {
    for (ParameterGroup& g : groups_)
      for (Tensor& p : g.tensors) p.mutable_grad().reset();
  }

  /// One update; `scale` multiplies every rate (the schedule).
  void step(double scale) {
    const c10::NoGradGuard off;
    size_t at = 0;
    for (ParameterGroup& g : groups_)
      for (Tensor& p : g.tensors) {
        const size_t i = at++;
        if (!p.grad().defined()) continue;
        step_[i].add_(1);
        const std::vector<Tensor> ps{p}, grads{p.grad().to(p.scalar_type())}, m{mean_[i]}, v{square_[i]}, t{step_[i]};
        if (how_.optimizer == Optimizer::adamw)
          at::_fused_adamw_(ps, grads, m, v, {}, t, g.rate * scale, how_.beta1, how_.beta2, how_.decay, epsilon_, false, false);
        else
          at::_fused_adam_(ps, grads, m, v, {}, t, g.rate * scale, how_.beta1, how_.beta2, how_.decay, epsilon_, false, false);
      }
  }

 private:
  std::vector<ParameterGroup> groups_;
  Learning how_;
  double epsilon_;
  std::vector<Tensor> mean_, square_, step_;
};

/// The rate of update `step` (0-based) of `steps`, relative to the first: cosine is (1 + cos(π t / steps)) / 2.
[[nodiscard]] inline double schedule_factor(Schedule schedule, int64_t step, int64_t steps) {
  if (schedule == Schedule::constant || steps <= 0) return 1;
  return 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
}

/// Minimises loss(step) over the groups for `steps` updates; returns the loss before each update. Throws, naming `place` and the step, when
/// it stops being finite or can no longer be computed.
inline std::vector<double> minimise(std::vector<ParameterGroup> groups, const Learning& how, int64_t steps, double epsilon,
                                    const std::function<Tensor(int64_t step)>& loss, const std::string& place) {
  std::vector<Tensor> all;
  for (const ParameterGroup& g : groups) all.insert(all.end(), g.tensors.begin(), g.tensors.end());
  Adam adam(std::move(groups), how, epsilon);
  std::vector<double> curve;
  std::vector<Tensor> best;
  double lowest = std::numeric_limits<double>::infinity();
  for (int64_t t = 0; t < steps; ++t) {
    const c10::AutoGradMode on(true);
    adam.clear();
    Tensor value;
    try {
      value = loss(t);
    } catch (const Error& e) {
      if (t == 0) throw;
      fail(place, ": learning diverged at step ", t, " (", e.what(), "); lower the learning rate");
    }
    curve.push_back(value.item<double>());
    if (!std::isfinite(curve.back())) fail(place, ": learning diverged, the loss is not finite at step ", t, "; lower the learning rate");
    if (how.keep == Iterate::best && curve.back() < lowest) {
      lowest = curve.back(), best.clear();
      for (const Tensor& p : all) best.push_back(p.detach().clone());
    }
    value.backward();
    adam.step(schedule_factor(how.schedule, t, steps));
  }
  adam.clear();
  const c10::NoGradGuard off;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!best.empty()) all[i].copy_(best[i]);
    all[i].requires_grad_(false);
  }
  return curve;
}

}  // namespace ptq
