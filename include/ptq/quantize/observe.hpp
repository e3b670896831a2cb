// Stage "observe": statistics of the inputs of one block, in the form its solver asks for.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ptq/calibration/observer.hpp>
#include <ptq/calibration/reference.hpp>
#include <ptq/model/transformer.hpp>
#include <ptq/quantized_block.hpp>
#include <ptq/solver.hpp>

namespace ptq {

/// How inputs are looked at; see Observed.
struct Observation {
  Observed form = Observed::plain;
  const Formats* formats = nullptr;            ///< for Observed::rounded
  const BlockParameters* reference = nullptr;  ///< for Observed::paired: the float block in the same basis
  Tensor reference_input{};                    // (N, T, hidden) for Observed::paired
  std::optional<int> bits{};                   ///< for Observed::rounded: bits of dynamic formats in place of theirs
};

namespace detail {

/// Thrown by an observer that has seen all it wants: the rest of the block's forward is not computed.
struct SeenEnough {};

inline void forward_while_watched(const Transformer& model, int64_t block, const Tensor& x, Operators& watch) {
  try {
    (void)model.forward(block, x, watch);
  } catch (const SeenEnough&) {
  }
}

}  // namespace detail

/// Runs the block on `parameters` over x and gathers `needs` for every input group, or for `only` one of them.
/// x (N, T, hidden). Activations stay unquantized inside the block; what is recorded follows `how`.
[[nodiscard]] inline std::vector<Statistics> observe(const Transformer& model, int64_t block, const BlockParameters& parameters,
                                                     const Tensor& x, const Needs& needs, const Observation& how, int64_t batch_tokens,
                                                     int only = -1) {
  const auto groups = model.layout().groups.size();
  std::vector<Statistics> stats(groups);
  std::map<int, Tensor> reference;  // group → input of the float model in this batch
  Observer watch(model.config(), parameters);
  const auto record = [&](int group, const Tensor& seen) {
    Statistics& s = stats[static_cast<size_t>(group)];
    require_finite(seen, "block " + std::to_string(block) + ", input of " + model.layout().groups[static_cast<size_t>(group)].name);
    if (how.form == Observed::rounded) {
      Format format = how.formats->inputs[static_cast<size_t>(group)];
      if (!format.scheme.active()) return s.add(needs, seen, seen);  // in the sums, too, as if none were rounded
      if (how.bits) format.scheme.bits = *how.bits;
      for (int64_t i = 0; i < seen.size(0); ++i) {  // per-tensor ranges are of one sequence
        const Tensor one = seen.narrow(0, i, 1);
        s.add(needs, format(one), one);
      }
    } else if (how.form == Observed::paired) {
      s.add(needs, seen, reference.at(group));
    } else {
      s.add(needs, seen);
    }
  };
  size_t visited = 0;  // groups, in this batch
  const auto enough = [&](int group) {
    if (only >= 0 ? group == only : ++visited == groups) throw detail::SeenEnough{};
  };
  watch.on_input = [&](int group, const Tensor& seen) {
    if (only < 0 || group == only) record(group, seen);
    enough(group);
  };
  for_batches(x.size(0), x.size(1), batch_tokens, [&](int64_t first, int64_t count) {
    if (how.form == Observed::paired) {
      Observer original(model.config(), *how.reference);
      original.on_input = [&](int group, const Tensor& seen) {
        reference[group] = seen;
        enough(group);
      };
      visited = 0;
      const Tensor part = how.reference_input.narrow(0, first, count);  // (count, T, hidden)
      detail::forward_while_watched(model, block, part, original);
      io::forget(part);
    }
    visited = 0;
    const Tensor part = x.narrow(0, first, count);  // (count, T, hidden)
    detail::forward_while_watched(model, block, part, watch);
    io::forget(part);
  });
  for (Statistics& s : stats) s.finish();
  return stats;
}

/// Statistics of the float model's inputs in the basis of `fused`. As the checkpoint has the block (`untouched`) they are the reference
/// stream's own, computed once for all recipes; else the fused block runs over the stream.
[[nodiscard]] inline std::vector<Statistics> reference_statistics(const Transformer& model, int64_t block, const BlockParameters& fused,
                                                                  bool untouched, const Needs& needs, ReferenceStream& reference,
                                                                  int64_t batch_tokens) {
  if (!needs.any()) return std::vector<Statistics>(model.layout().groups.size());
  if (!untouched) return observe(model, block, fused, reference.input(block), needs, {}, batch_tokens);
  std::vector<Statistics> stats = reference.statistics(block);
  if (!needs.hessian) return stats;
  const std::vector<Tensor> moments = reference.second_moments(block, [&] {
    std::vector<Tensor> all;
    for (const Statistics& s : observe(model, block, fused, reference.input(block), {.hessian = true}, {}, batch_tokens))
      all.push_back(s.hessian);
    return all;
  });
  for (size_t g = 0; g < stats.size(); ++g) stats[g].hessian = moments[g];
  return stats;
}

[[nodiscard]] inline bool has_static(const Formats& formats) {
  for (const Format& f : formats.inputs)
    if (f.scheme.calibrated) return true;
  for (const Format& f : formats.outputs)
    if (f.scheme.calibrated) return true;
  return false;
}

/// Gives static formats their grids: the range over x of the fused float block, inputs of groups and outputs of linears.
inline void set_static_grids(Formats& formats, const Transformer& model, int64_t block, const BlockParameters& parameters, const Tensor& x,
                             int64_t batch_tokens) {
  std::vector<Extent> inputs(formats.inputs.size()), outputs(formats.outputs.size());
  Observer watch(model.config(), parameters);
  watch.on_input = [&](int group, const Tensor& seen) { inputs[static_cast<size_t>(group)].add(seen); };
  watch.on_output = [&](int site, const Tensor& y) { outputs[static_cast<size_t>(site)].add(y); };
  for_batches(x.size(0), x.size(1), batch_tokens, [&](int64_t first, int64_t count) {
    const Tensor part = x.narrow(0, first, count);  // (count, T, hidden)
    (void)model.forward(block, part, watch);
    io::forget(part);
  });
  const auto set = [&](std::vector<Format>& all, const std::vector<Extent>& seen) {
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].scheme.calibrated) all[i].fixed = static_grid(all[i].scheme, seen[i].low, seen[i].high, x.scalar_type());
  };
  set(formats.inputs, inputs), set(formats.outputs, outputs);
}

}  // namespace ptq
