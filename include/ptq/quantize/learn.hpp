// Stage "learn": minimise Loss(B(x), B_q(x_q)) over what the rounding and the smoothing want to learn.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <ptq/core/minimize.hpp>
#include <ptq/model/transformer.hpp>
#include <ptq/quantized_block.hpp>
#include <ptq/stages.hpp>

namespace ptq {

/// What is learned in one block.
struct BlockState {
  NamedTensors smoothing;
  std::vector<NamedTensors> rounding;  ///< by site

  [[nodiscard]] NamedTensors named(const Layout& layout) const {
    NamedTensors all;
    for (const auto& [name, t] : smoothing) all["smoothing." + name] = t;
    for (size_t i = 0; i < rounding.size(); ++i)
      for (const auto& [name, t] : rounding[i]) all["rounding." + layout.sites[i].name + "." + name] = t;
    return all;
  }
};

/// The parameters of a block as learning sees them: fused by the smoothing, every weight fake-quantized by the rounding.
[[nodiscard]] inline BlockParameters fake_quantized(const Stages& stages, const Layout& layout, const BlockParameters& block,
                                                    const BlockState& state, const std::vector<Scheme>& schemes) {
  BlockParameters fused = stages.smoothing->fuse(layout, block, state.smoothing);
  for (size_t i = 0; i < fused.linears.size(); ++i)
    if (schemes[i].active()) fused.linears[i].weight = stages.rounding->weight(state.rounding[i], fused.linears[i].weight, schemes[i]);
  return fused;
}

namespace detail {

inline void collect_groups(const std::vector<Learnable>& wanted, std::optional<double> rate, NamedTensors& state,
                           std::vector<ParameterGroup>& groups) {
  for (const Learnable& l : wanted) {
    ParameterGroup g;
    g.rate = rate.value_or(l.rate);
    for (const std::string& name : l.names)
      if (const auto found = state.find(name); found != state.end()) g.tensors.push_back(found->second);
    if (!g.tensors.empty()) groups.push_back(std::move(g));
  }
}

/// The sample indices of every update, in order.
inline std::vector<std::vector<int64_t>> batches(const Learning& how, int64_t samples, uint64_t seed) {
  const int64_t size = std::min(std::max<int64_t>(1, how.batch), samples), each = samples / size;
  const int64_t steps = how.steps > 0 ? how.steps : how.epochs * each;
  std::vector<int64_t> order(static_cast<size_t>(samples));
  std::mt19937_64 random(seed);
  std::vector<std::vector<int64_t>> all;
  for (int64_t t = 0; t < steps; ++t) {
    if (t % each == 0) {
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
      if (how.order == SampleOrder::shuffled)
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    }
    const auto first = order.begin() + (t % each) * size;
    all.emplace_back(first, first + size);
  }
  return all;
}

/// The float block over x (N, T, hidden), a sequence at a time.
inline Tensor float_output(const Transformer& model, int64_t block, const BlockParameters& parameters, const Tensor& x) {
  const c10::NoGradGuard off;
  FloatOperators ops(model.config(), parameters);
  Tensor y = at::empty_like(x);
  for (int64_t i = 0; i < x.size(0); ++i) y.narrow(0, i, 1).copy_(model.forward(block, x.narrow(0, i, 1), ops));
  return y;
}

}  // namespace detail

/// What one call of learning changes about a recipe, and who watches.
struct LearnOptions {
  std::optional<double> smoothing_rate{}, rounding_rate{};  ///< in place of the policies' own
  std::function<void(int64_t step)> on_step{};              ///< before each update: what was learned after `step` updates
};

/// Learns in place; returns the loss before each update. x (N, T, hidden): the block's input by `learning.input`; target (N, T, hidden).
inline std::vector<double> learn_block(const Stages& stages, const Transformer& model, int block, const BlockParameters& parameters,
                                       BlockState& state, const std::vector<Scheme>& schemes, const Formats& formats, const Tensor& x,
                                       const Tensor& target, uint64_t seed, const LearnOptions& options = {}) {
  std::vector<ParameterGroup> groups;
  for (NamedTensors& r : state.rounding) detail::collect_groups(stages.rounding->learnable(), options.rounding_rate, r, groups);
  detail::collect_groups(stages.smoothing->learnable(), options.smoothing_rate, state.smoothing, groups);
  if (groups.empty()) return {};
  const auto plan = detail::batches(stages.learning, x.size(0), seed + static_cast<uint64_t>(block));
  const double tokens = static_cast<double>(x.size(1));
  const double epsilon = stages.loss->averages() ? stages.learning.epsilon / tokens : stages.learning.epsilon;
  const Tensor own = stages.loss->reads_own_target() ? detail::float_output(model, block, parameters, x) : Tensor();  // (N, T, hidden)
  const auto project = [&] {
    const c10::NoGradGuard off;
    stages.smoothing->project(state.smoothing);
  };
  const auto loss = [&](int64_t step) {
    if (options.on_step) options.on_step(step);
    project();
    const Tensor picked = at::tensor(plan[static_cast<size_t>(step)]);
    FormatOperators ops(model.config(), fake_quantized(stages, model.layout(), parameters, state, schemes), formats);
    const Tensor y = model.forward(block, x.index_select(0, picked), ops);  // (batch, T, hidden)
    return stages.loss->value({target.index_select(0, picked), own.defined() ? own.index_select(0, picked) : own}, y);
  };
  auto curve = minimise(groups, stages.learning, static_cast<int64_t>(plan.size()), epsilon, loss, "block " + std::to_string(block));
  if (options.on_step) options.on_step(static_cast<int64_t>(plan.size()));
  project();
  return curve;
}

}  // namespace ptq
