// The one door to autograd: minimise a function of named tensors with Adam or AdamW, each group of parameters at its own rate.
#pragma once

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/GradMode.h>

#include <algorithm>
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

/// Learning that stopped making sense; the same may go well at lower rates.
struct Diverged : Error {
  using Error::Error;
};

/// A loss followed on fixed data while mini-batches come and go.
struct Tracking {
  std::function<double()> value;  ///< at the current parameters, without gradient
  int64_t every = 1;              ///< updates between two looks; the start and the end are always looked at
};

/// What a minimisation did.
struct Descent {
  std::vector<double> losses;   ///< of each mini-batch, before its update
  std::vector<double> tracked;  ///< at the start, on the way, at what is kept; empty where nothing is tracked
};

namespace detail {

/// The parameters of the lowest value so far.
class BestOf {
 public:
  void offer(double value, const std::vector<Tensor>& parameters) {
    if (!(value < lowest_)) return;
    lowest_ = value, copies_.clear();
    for (const Tensor& p : parameters) copies_.push_back(p.detach().clone());
  }
  void restore(const std::vector<Tensor>& parameters) const {
    for (size_t i = 0; i < copies_.size(); ++i) parameters[i].copy_(copies_[i]);
  }
  [[nodiscard]] double lowest() const { return lowest_; }

 private:
  double lowest_ = std::numeric_limits<double>::infinity();
  std::vector<Tensor> copies_;
};

}  // namespace detail

/// Minimises loss(step) over the groups for `steps` updates. Throws Diverged, naming `place`, the step and the rates, when the loss stops
/// being finite, can no longer be computed, or the tracked one has grown `how.growth` times its start.
inline Descent minimise(std::vector<ParameterGroup> groups, const Learning& how, int64_t steps, double epsilon,
                        const std::function<Tensor(int64_t step)>& loss, const std::string& place, const Tracking& tracking = {}) {
  std::vector<Tensor> all;
  std::string rates;
  for (const ParameterGroup& g : groups) {
    all.insert(all.end(), g.tensors.begin(), g.tensors.end());
    if (const std::string rate = number_text(g.rate); (", " + rates + ",").find(", " + rate + ",") == std::string::npos)
      rates += (rates.empty() ? "" : ", ") + rate;
  }
  const auto diverged = [&](int64_t t, const std::string& why) {
    throw Diverged(cat(place, ": learning diverged at step ", t, " of ", steps, " with rate ", rates, " (", why,
                       "); lower the learning rate, or set learning.restarts"));
  };
  Adam adam(std::move(groups), how, epsilon);
  Descent done;
  detail::BestOf best;
  const bool best_on_batches = how.keep == Iterate::best && !tracking.value;
  const auto look = [&](int64_t t) {
    if (!tracking.value || steps == 0) return;
    const c10::NoGradGuard off;
    double value = 0;
    try {
      value = tracking.value();
    } catch (const Error& e) {
      if (t == 0) throw;
      diverged(t, e.what());
    }
    if (!std::isfinite(value)) diverged(t, "the tracked loss is not finite");
    done.tracked.push_back(value);
    if (how.growth > 0 && value > how.growth * done.tracked.front() && done.tracked.front() > 0)
      diverged(t, cat("the tracked loss grew from ", number_text(done.tracked.front()), " to ", number_text(value)));
    if (how.keep == Iterate::best) best.offer(value, all);
  };
  for (int64_t t = 0; t < steps; ++t) {
    if (t % std::max<int64_t>(1, tracking.every) == 0) look(t);
    const c10::AutoGradMode on(true);
    adam.clear();
    Tensor value;
    try {
      value = loss(t);
    } catch (const Error& e) {
      if (t == 0) throw;
      diverged(t, e.what());
    }
    done.losses.push_back(value.item<double>());
    if (!std::isfinite(done.losses.back())) diverged(t, "the loss is not finite");
    if (best_on_batches) best.offer(done.losses.back(), all);
    value.backward();
    adam.step(schedule_factor(how.schedule, t, steps));
  }
  adam.clear();
  const c10::NoGradGuard off;
  for (const Tensor& p : all)
    if (!at::isfinite(p).all().item<bool>()) diverged(steps, "a parameter is not finite");
  look(steps);
  best.restore(all);
  if (how.keep == Iterate::best && !done.tracked.empty()) done.tracked.push_back(best.lowest());
  for (Tensor& p : all) p.requires_grad_(false);
  return done;
}

}  // namespace ptq
