// Stage "learn": minimise Loss(B(x), B_q(x_q)) over what the rounding and the smoothing want to learn.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <ptq/calibration/stream_memory.hpp>
#include <ptq/core/kept_memory.hpp>
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

/// The block over x (N, T, hidden), a sequence at a time; made in `memory`.
inline Tensor block_output(const Transformer& model, int64_t block, Operators& ops, const Tensor& x, const StreamMemory& memory) {
  const c10::NoGradGuard off;
  const Tensor y = memory.empty_like(x);
  for (int64_t i = 0; i < x.size(0); ++i) {
    const Tensor from = x.narrow(0, i, 1), to = y.narrow(0, i, 1);  // (1, T, hidden)
    to.copy_(model.forward(block, from, ops));
    io::forget(from), io::forget(to);
  }
  return y;
}

/// The same of the float block.
inline Tensor float_output(const Transformer& model, int64_t block, const BlockParameters& parameters, const Tensor& x,
                           const StreamMemory& memory = {}) {
  FloatOperators ops(model.config(), parameters);
  return block_output(model, block, ops, x, memory);
}

/// Sequences of a stream, (batch, T, hidden), copied from (N, T, hidden).
inline Tensor pick(const Tensor& stream, const Tensor& sequences) {
  if (!stream.defined()) return {};
  const Tensor picked = stream.index_select(0, sequences);
  io::forget(stream);
  return picked;
}

/// Formats under which nothing but weights is rounded.
inline Formats no_formats(const Layout& layout) {
  Formats none;
  none.inputs.resize(layout.groups.size()), none.outputs.resize(layout.sites.size());
  return none;
}

}  // namespace detail

/// What one call of learning changes about a recipe, and who watches.
struct LearnOptions {
  std::optional<double> smoothing_rate{}, rounding_rate{};  ///< in place of the policies' own
  std::function<void(int64_t step)> on_step{};              ///< before each update: what was learned after `step` updates
  StreamMemory streams{};                                   ///< where the float block's output on x goes, if the loss reads it
};

/// Learns in place; returns the losses. x (N, T, hidden): the block's input by `learning.input`; target (N, T, hidden). After a divergence
/// all begins again from the start, at half the rates, while `learning.restarts` allow it.
inline Descent learn_block(const Stages& stages, const Transformer& model, int block, const BlockParameters& parameters, BlockState& state,
                           const std::vector<Scheme>& schemes, const Formats& formats, const Tensor& x, const Tensor& target, uint64_t seed,
                           const LearnOptions& options = {}) {
  const Learning& how = stages.learning;
  std::vector<ParameterGroup> groups;
  for (NamedTensors& r : state.rounding) detail::collect_groups(stages.rounding->learnable(), options.rounding_rate, r, groups);
  detail::collect_groups(stages.smoothing->learnable(), options.smoothing_rate, state.smoothing, groups);
  if (groups.empty()) return {};
  const KeptMemory kept;
  const auto plan = detail::batches(how, x.size(0), seed + static_cast<uint64_t>(block));
  const auto steps = static_cast<int64_t>(plan.size());
  const double epsilon = stages.loss->averages() ? how.epsilon / static_cast<double>(x.size(1)) : how.epsilon;
  Tensor own;  // (N, T, hidden)
  if (stages.loss->reads_own_target()) own = detail::float_output(model, block, parameters, x, options.streams);
  const Formats seen = how.activations ? formats : detail::no_formats(model.layout());
  const auto project = [&](NamedTensors& smoothing) {
    const c10::NoGradGuard off;
    stages.smoothing->project(smoothing);
  };
  const auto operators = [&](const BlockState& now) {
    return FormatOperators(model.config(), fake_quantized(stages, model.layout(), parameters, now, schemes), seen);
  };
  const auto value = [&](FormatOperators& ops, const Tensor& picked) {
    const Tensor y = model.forward(block, detail::pick(x, picked), ops);  // (batch, T, hidden)
    return stages.loss->value({detail::pick(target, picked), detail::pick(own, picked)}, y);
  };
  const auto loss = [&](int64_t step) {
    if (options.on_step) options.on_step(step);
    project(state.smoothing);
    FormatOperators ops = operators(state);  // what rounding multiplies stays exact: it decides codes
    const NarrowProducts narrow(how.products == LearningProducts::bf16);
    return value(ops, at::tensor(plan[static_cast<size_t>(step)]));
  };
  const int64_t batch = std::min(how.batch, x.size(0)), tracked = std::min(how.tracked, x.size(0));
  Tracking tracking{{}, std::max({x.size(0) / batch, (steps + 15) / 16, int64_t{1}})};
  if (tracked > 0)
    tracking.value = [&] {
      BlockState now = state;
      for (auto& [name, t] : now.smoothing) t = t.clone();
      project(now.smoothing);
      FormatOperators ops = operators(now);
      double sum = 0;
      for (int64_t first = 0; first < tracked; first += batch) {
        const int64_t count = std::min(batch, tracked - first);
        sum += static_cast<double>(count) * value(ops, at::arange(first, first + count)).item<double>();
      }
      return sum / static_cast<double>(tracked);
    };

  std::vector<Tensor> start;  // as large as the block: kept only where it may be needed
  for (const ParameterGroup& g : groups)
    for (const Tensor& p : g.tensors)
      if (how.restarts > 0) start.push_back(p.clone());
  for (int64_t left = how.restarts;; --left) {
    try {
      Descent done = minimise(groups, how, steps, epsilon, loss, "block " + std::to_string(block), tracking);
      if (options.on_step) options.on_step(steps);
      project(state.smoothing);
      return done;
    } catch (const Diverged&) {
      if (left <= 0) throw;
      size_t i = 0;
      for (ParameterGroup& g : groups) {
        for (Tensor& p : g.tensors) p.mutable_grad().reset(), p.requires_grad_(false).copy_(start[i++]);
        g.rate /= 2;
      }
    }
  }
}

}  // namespace ptq
