// The walk over blocks: smooth, learn, observe and solve and correct, commit; then both streams advance.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/calibration/reference.hpp>
#include <ptq/quantize/learn.hpp>
#include <ptq/quantize/measure.hpp>
#include <ptq/quantize/observe.hpp>
#include <ptq/quantize/report.hpp>

namespace ptq {

/// Where committed blocks go, and from where an interrupted run goes on.
struct CommitSink {
  virtual ~CommitSink() = default;
  /// Blocks committed earlier; when there are any, `stream` becomes the quantized stream after them.
  virtual int64_t resume(Tensor& stream) {
    (void)stream;
    return 0;
  }
  /// Takes a block and the quantized stream after it. On return both are safe.
  virtual void commit(int64_t block, const QuantizedBlock& artefact, const Tensor& stream, const BlockReport& report) = 0;
};

/// What a run does besides its recipe.
struct Walk {
  Precision precision;
  uint64_t seed = 0;
  int64_t batch_tokens = 4096;     ///< tokens a forward
  int64_t measured_tokens = 1024;  ///< tokens on which errors of linears are measured
  StreamMemory streams{};          ///< where the quantized stream lives
  std::function<void(int64_t block, const std::string& stage)> progress{};
  std::function<bool()> interrupted{};  ///< asked between blocks; true stops after the commit
};

namespace detail {

class Clock {
 public:
  /// Seconds since construction or the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double s = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return s;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Solves and corrects the linears of one input group in `work`; their artefacts go to `artefact`.
inline void solve_group(const Stages& stages, const InputGroup& group, int64_t block, const Layout& layout, const BlockState& state,
                        const std::vector<Scheme>& schemes, const Precision& precision, const Statistics& stats,
                        const Statistics& reference, BlockParameters& work, QuantizedBlock& artefact, BlockReport& report) {
  Shared shared;
  for (const int site : group.sites) {
    const auto i = static_cast<size_t>(site);
    QuantizedLinear& done = artefact.linears[i];
    Clock clock;
    LinearReport& line = report.linears[i];
    line.name = layout.sites[i].name;
    if (!schemes[i].active()) {
      done.dense = work.linears[i].weight;
    } else {
      Problem problem;
      problem.place = "blocks." + std::to_string(block) + "." + line.name;
      problem.weight = work.linears[i].weight;
      require_finite(problem.weight, problem.place + ", weight");
      problem.scheme = schemes[i];
      problem.coordinates = stages.rounding->coordinates(state.rounding[i], problem.weight, schemes[i]);
      problem.stats = &stats;
      problem.shared = &shared;
      Solution solution = stages.solver->solve(problem);
      done = std::move(solution.linear);
      if (stages.correction->active()) {
        const Statistics& seen = stages.correction->source() == Stream::reference ? reference : stats;
        done.correction = stages.correction->fit({problem.place, solution.target - done.weight(), &seen, &shared, precision.factors});
      }
      line.numbers = std::move(solution.report);
    }
    Tensor& bias = work.linears[i].bias;
    if (bias.defined() && done.quantized()) bias = quantize_activation(bias.unsqueeze(0), precision.bias).squeeze(0);
    done.bias = bias;
    work.linears[i].weight = done.effective_weight();
    line.seconds = clock.lap();
  }
}

}  // namespace detail

/// A quantized block beside the float block it approximates.
struct BlockOutcome {
  QuantizedBlock artefact;
  BlockParameters fused;        ///< after smoothing, before rounding
  std::vector<Scheme> schemes;  ///< by site
};

/// Stage 3: observes what solver and correction need on xq, solves, corrects. `fused` (after smoothing) with the learned `state`; `tell`
/// hears the stage at work. `report` has a place for every linear.
[[nodiscard]] inline QuantizedBlock solve_block(const Stages& stages, const Transformer& model, int64_t block, const BlockParameters& fused,
                                                const BlockState& state, const std::vector<Scheme>& schemes, const Formats& formats,
                                                const Tensor& xq, ReferenceStream& reference, const Walk& walk,
                                                const std::function<void(const char*)>& tell, BlockReport& report);

/// Quantizes one block. xq: the block's input in the model quantized so far, (N, T, hidden). `report` gets what solvers report and the
/// seconds of stages.
[[nodiscard]] inline BlockOutcome quantize_block(const Stages& stages, const Transformer& model, int64_t block, const Tensor& xq,
                                                 ReferenceStream& reference, const Walk& walk, BlockReport& report) {
  const Layout& layout = model.layout();
  const auto tell = [&](const char* stage) {
    if (walk.progress) walk.progress(block, stage);
  };
  detail::Clock clock;
  const BlockParameters loaded = model.load(block);
  std::vector<Scheme> schemes;
  for (const Site& site : layout.sites) schemes.push_back(walk.precision.weight("blocks." + std::to_string(block) + "." + site.name));
  Formats formats = formats_of(walk.precision, layout, static_cast<int>(block));
  report.index = block;
  report.linears.resize(layout.sites.size());

  // 1. smooth
  tell("smooth");
  BlockState state;
  state.rounding.resize(layout.sites.size());
  const Needs wanted = stages.smoothing->needs();
  std::vector<Statistics> seen(layout.groups.size());
  if (wanted.any())
    seen = stages.smoothing->source() == Stream::reference ? reference.statistics(block)
                                                           : observe(model, block, loaded, xq, wanted, {}, walk.batch_tokens);
  state.smoothing = stages.smoothing->start(layout, loaded, seen);
  for (const auto& [name, t] : state.smoothing) require_finite(t, cat("block ", block, ", smoothing ", name));
  BlockParameters fused = stages.smoothing->fuse(layout, loaded, state.smoothing);
  for (size_t i = 0; i < layout.sites.size(); ++i)
    if (schemes[i].active()) state.rounding[i] = stages.rounding->start(fused.linears[i].weight, schemes[i]);
  if (has_static(formats)) set_static_grids(formats, model, block, fused, xq, walk.batch_tokens);
  report.seconds.emplace_back("smooth", clock.lap());

  // 2. learn
  if (stages.learns()) {
    tell("learn");
    const Tensor& x = stages.learning.input == LearningInput::quantized ? xq : reference.input(block);
    Descent learned = learn_block(stages, model, static_cast<int>(block), loaded, state, schemes, formats, x, reference.input(block + 1),
                                  walk.seed, {.streams = walk.streams});
    report.losses = std::move(learned.losses), report.tracked = std::move(learned.tracked);
    fused = stages.smoothing->fuse(layout, loaded, state.smoothing);
    report.seconds.emplace_back("learn", clock.lap());
  }

  // 3. observe, solve, correct
  QuantizedBlock artefact = solve_block(stages, model, block, fused, state, schemes, formats, xq, reference, walk, tell, report);
  return {std::move(artefact), std::move(fused), std::move(schemes)};
}

inline QuantizedBlock solve_block(const Stages& stages, const Transformer& model, int64_t block, const BlockParameters& fused,
                                  const BlockState& state, const std::vector<Scheme>& schemes, const Formats& formats, const Tensor& xq,
                                  ReferenceStream& reference, const Walk& walk, const std::function<void(const char*)>& tell,
                                  BlockReport& report) {
  const Layout& layout = model.layout();
  detail::Clock clock;
  QuantizedBlock artefact;
  artefact.linears.resize(layout.sites.size());
  artefact.norms = fused.norms, artefact.input_scale = fused.input_scale;
  artefact.query_norm = fused.query_norm, artefact.key_norm = fused.key_norm;
  artefact.formats = formats;
  artefact.state = state.named(layout);  // an adaptation goes on from it, learned or not
  BlockParameters work = fused;
  const bool corrects_on_stream = stages.correction->active() && stages.correction->source() == Stream::quantized;
  const Needs needs = stages.solver->needs() | (corrects_on_stream ? stages.correction->needs() : Needs{});
  std::vector<Statistics> fixed(layout.groups.size());
  if (stages.correction->active() && !corrects_on_stream)
    fixed = reference_statistics(model, block, fused, state.smoothing.empty(), stages.correction->needs(), reference, walk.batch_tokens);
  BlockParameters original;  // the float model in the basis of the smoothing: what paired statistics compare with
  Observation how{stages.solver->observed(), &formats};
  how.bits = stages.solver->statistic_bits();
  if (how.form == Observed::paired) original = fused, how.reference = &original, how.reference_input = reference.input(block);
  std::vector<Statistics> stats(layout.groups.size());
  if (needs.any() && !stages.solver->sequential()) {
    tell("observe");
    stats = observe(model, block, work, xq, needs, how, walk.batch_tokens);
    report.seconds.emplace_back("observe", clock.lap());
  }
  for (size_t g = 0; g < layout.groups.size(); ++g) {
    if (needs.any() && stages.solver->sequential()) {
      tell("observe");
      stats[g] = observe(model, block, work, xq, needs, how, walk.batch_tokens, static_cast<int>(g))[g];
    }
    tell("solve");
    detail::solve_group(stages, layout.groups[g], block, layout, state, schemes, walk.precision, stats[g], fixed[g], work, artefact,
                        report);
    stats[g] = {};
  }
  report.seconds.emplace_back("solve", clock.lap());
  report.bits = artefact.bits();
  return artefact;
}

/// Refuses, before any forward, what cannot run: numbers the recipe cannot take, formats without a grid, groups that do not divide a
/// linear's columns.
inline void check(const Stages& stages, const Transformer& model, const Precision& precision) {
  if (const Reason why = stages.refuses(precision); !why.empty()) refuse(stages.label, ": ", why);
  if (stages.solver->statistic_bits() && precision.activations.calibrated)
    refuse(stages.label, ": solver.statistic_bits needs dynamic activations, not ", precision.activations.text());
  if (const Refit refit = stages.adaptation->refit(); stages.adaptation->steps() > 0 && refit.blocks > model.blocks())
    refuse(stages.label, ": adaptation.blocks is ", refit.blocks, ", the model has ", model.blocks());
  for (int64_t block = 0; block < model.blocks(); ++block)
    for (const Site& site : model.layout().sites) {
      const std::string place = cat("blocks.", block, ".", site.name);
      const Scheme scheme = precision.weight(place);
      if (scheme.kind == NumberKind::minifloat && scheme.bits > 8)
        refuse(place, ": codes of weights have 8 bits at most, which is too few for ", scheme.text());
      if (scheme.active() && scheme.kind != NumberKind::minifloat && !kernels::valid(convention(scheme)))
        refuse(place, ": format ", scheme.text(), " has no grid; choose another range");
      (void)group_count(scheme, site.in, place);
    }
}

/// Quantizes every block of the model, committing each as soon as it is done. tokens (N, T). Returns the number of blocks done: all of
/// them, or fewer when interrupted.
inline int64_t quantize(const Stages& stages, const Transformer& model, const Tensor& tokens, ReferenceStream& reference, CommitSink& sink,
                        const Walk& walk) {
  const c10::NoGradGuard no_gradients;
  check(stages, model, walk.precision);
  Tensor xq;
  int64_t block = sink.resume(xq);
  if (block == 0) xq = embed_stream(model, tokens, walk.batch_tokens, walk.streams);
  for (; block < model.blocks(); ++block) {
    BlockReport report;
    const BlockOutcome done = quantize_block(stages, model, block, xq, reference, walk, report);
    if (walk.progress) walk.progress(block, "advance");
    detail::Clock clock;
    xq = advance(model, block, done.artefact, done.fused, done.schemes, xq, reference.input(block + 1), walk.batch_tokens,
                 walk.measured_tokens, report, walk.streams);
    report.seconds.emplace_back("advance", clock.lap());
    sink.commit(block, done.artefact, xq, report);
    if (walk.interrupted && walk.interrupted()) return block + 1;
  }
  return block;
}

}  // namespace ptq
