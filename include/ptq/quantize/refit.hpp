// Refitting the last blocks on a text under test: learn on, solve again, keep what is better. Nothing is written back.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/quantize.hpp>

namespace ptq {

/// The text under test, as refitting sees it.
struct TestStream {
  Tensor embedded;                                 // (N, T, hidden) what enters block 0
  Tensor xq;                                       // (N, T, hidden) what the committed model gives the first refitted block
  std::function<Tensor(int64_t block)> teacher{};  ///< (N, T, hidden) the float model's stream after a block, for full_teacher
};

/// What became of one block.
struct RefitReport {
  int64_t block = 0;
  std::vector<double> losses;    ///< of learning, before each update
  double before = 0, after = 0;  ///< loss with the committed codes and with the new ones, on this text
  bool kept = false;             ///< whether the new ones stand: always under `literal`, else where the loss fell
};

/// The last blocks in place of the committed ones.
struct Refitted {
  std::vector<QuantizedBlock> blocks;
  std::vector<RefitReport> reports;
};

namespace detail {

/// What was learned, from the names that BlockState::named gave it.
[[nodiscard]] inline BlockState calibrated_state(const QuantizedBlock& block, const Layout& layout) {
  BlockState state;
  state.rounding.resize(layout.sites.size());
  for (const auto& [name, t] : block.state) {
    if (name.starts_with("smoothing.")) state.smoothing[name.substr(10)] = t.clone();
    for (size_t i = 0; i < layout.sites.size(); ++i)
      if (const std::string prefix = "rounding." + layout.sites[i].name + "."; name.starts_with(prefix))
        state.rounding[i][name.substr(prefix.size())] = t.clone();
  }
  return state;
}

/// Factors of one, shifts of zero, roundings at their start.
[[nodiscard]] inline BlockState identity_state(const Stages& stages, const Layout& layout, const BlockParameters& block,
                                               const std::vector<Scheme>& schemes) {
  std::vector<Statistics> any(layout.groups.size());
  for (size_t g = 0; g < any.size(); ++g) {
    const Tensor one = at::ones({layout.groups[g].width}, block.linears.front().weight.options());
    any[g].sequences = any[g].tokens = 1;
    any[g].absmax = any[g].high = one, any[g].low = -one, any[g].middle = at::zeros_like(one);
  }
  BlockState state;
  state.smoothing = stages.smoothing->start(layout, block, any);
  for (auto& [name, t] : state.smoothing) {
    const std::string kind = name.substr(name.find_first_not_of("0123456789."));
    t = kind.starts_with("d.") ? at::zeros_like(t) : at::ones_like(t);
  }
  const BlockParameters fused = stages.smoothing->fuse(layout, block, state.smoothing);
  state.rounding.resize(layout.sites.size());
  for (size_t i = 0; i < layout.sites.size(); ++i)
    if (schemes[i].active()) state.rounding[i] = stages.rounding->start(fused.linears[i].weight, schemes[i]);
  return state;
}

/// The committed block over x, a sequence at a time; made in `memory`.
[[nodiscard]] inline Tensor run_block(const Transformer& model, int64_t block, const QuantizedBlock& artefact, const Tensor& x,
                                      const StreamMemory& memory = {}) {
  QuantizedOperators ops(model.config(), artefact);
  return block_output(model, block, ops, x, memory);
}

/// The recipe's loss with committed codes, averaged over sequences.
[[nodiscard]] inline double committed_loss(const Stages& stages, const Tensor& y, const Tensor& target, const Tensor& own) {
  double sum = 0;
  for (int64_t i = 0; i < y.size(0); ++i)
    sum += stages.loss->value({target.narrow(0, i, 1), own.narrow(0, i, 1)}, y.narrow(0, i, 1)).item<double>();
  io::forget(y), io::forget(target), io::forget(own);
  return sum / static_cast<double>(y.size(0));
}

/// An adaptation may change numbers, not how many bits they have.
inline void require_same_formats(const QuantizedBlock& before, const QuantizedBlock& after, const std::string& place) {
  const auto same = [](const std::vector<Format>& a, const std::vector<Format>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Format& x, const Format& y) { return x.scheme == y.scheme; });
  };
  bool equal = same(before.formats.inputs, after.formats.inputs) && same(before.formats.outputs, after.formats.outputs) &&
               before.formats.attention == after.formats.attention;
  for (size_t i = 0; i < before.linears.size(); ++i) {
    const QuantizedLinear &a = before.linears[i], &b = after.linears[i];
    equal = equal && a.quantized() == b.quantized() && a.grid.scheme == b.grid.scheme && a.correction.bits == b.correction.bits;
  }
  if (!equal) fail(place, ": formats before and after the adaptation differ");
}

}  // namespace detail

/// Refits the last blocks on a text by `stages.adaptation`. committed(block) is the run's artefact; `reference` the float stream of that
/// text, for solvers and corrections that read it. A block whose new codes do not lower the recipe's loss on this text stays as committed.
[[nodiscard]] inline Refitted refit(const Stages& stages, const Transformer& model,
                                    const std::function<QuantizedBlock(int64_t block)>& committed, const TestStream& text,
                                    ReferenceStream& reference, const Walk& walk) {
  const c10::NoGradGuard no_gradients;
  const Refit how = stages.adaptation->refit();
  if (how.blocks > model.blocks()) refuse(stages.label, ": adaptation.blocks is ", how.blocks, ", the model has ", model.blocks());
  const bool literal = how.input == RefitInput::literal;
  const Layout& layout = model.layout();
  Stages inner = stages;
  inner.learning.steps = 0, inner.learning.epochs = how.epochs, inner.learning.batch = how.batch;
  inner.learning.tracked = 0;  // the committed loss decides
  Refitted done;
  Tensor x = literal ? text.embedded : text.xq;  // (N, T, hidden)
  for (int64_t block = model.blocks() - how.blocks; block < model.blocks(); ++block) {
    const std::string place = "adaptation of block " + std::to_string(block);
    const QuantizedBlock before = committed(block);
    const BlockParameters loaded = model.load(block);
    std::vector<Scheme> schemes;
    for (const Site& site : layout.sites) schemes.push_back(walk.precision.weight(cat("blocks.", block, ".", site.name)));
    Formats formats = before.formats;
    if (literal) formats = formats_of({}, layout, static_cast<int>(block));
    if (before.state.empty() && (stages.learns() || stages.smoothing->needs().any()))
      fail(place, ": the committed block does not hold what its smoothing and rounding were; quantize again");
    BlockState state = literal ? detail::identity_state(stages, layout, loaded, schemes) : detail::calibrated_state(before, layout);
    const Tensor own = detail::float_output(model, block, loaded, x, walk.streams);           // (N, T, hidden)
    const Tensor target = how.input == RefitInput::full_teacher ? text.teacher(block) : own;  // (N, T, hidden)
    RefitReport report;
    report.block = block;
    report.losses = learn_block(inner, model, static_cast<int>(block), loaded, state, schemes, formats, x, target, walk.seed,
                                {how.smoothing_rate, how.rounding_rate, {}, walk.streams})
                        .losses;
    BlockReport numbers;
    numbers.linears.resize(layout.sites.size());
    QuantizedBlock after = solve_block(
        stages, model, block, stages.smoothing->fuse(layout, loaded, state.smoothing), state, schemes, formats, x, reference, walk,
        [](const char*) {}, numbers);
    const Tensor y_before = detail::run_block(model, block, before, x, walk.streams);  // (N, T, hidden)
    const Tensor y_after = detail::run_block(model, block, after, x, walk.streams);    // (N, T, hidden)
    report.before = detail::committed_loss(stages, y_before, target, own),
    report.after = detail::committed_loss(stages, y_after, target, own);
    report.kept = literal || report.after < report.before;
    if (!literal) detail::require_same_formats(before, after, place);
    x = report.kept ? y_after : y_before;
    done.blocks.push_back(report.kept ? std::move(after) : before);
    done.reports.push_back(std::move(report));
  }
  return done;
}

}  // namespace ptq
