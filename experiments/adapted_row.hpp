// Evaluation of one text by one row, refitting the last blocks where the recipe adapts.
#pragma once

#include <memory>
#include <string>

#include <ptq/evaluate/adapted.hpp>
#include <ptq/results.hpp>
#include <ptq/run/store.hpp>

#include "inputs.hpp"
#include "progress.hpp"

namespace ptq::driver {

/// Perplexity of the committed run, or of the run adapted to this text. The text of calibration is not adapted to. What an adaptation did
/// to the loss, and to the perplexity of the calibration sample (what it made the model forget), goes to `settings` and is said.
[[nodiscard]] inline Perplexity evaluate_row(const Stages& stages, const Transformer& model, const Head& head, const EvaluationText& text,
                                             const Tensor& calibration, const std::string& calibration_text, const RunStore& store,
                                             const Walk& walk, const PerplexityOptions& options, results::Texts& settings,
                                             Progress& progress) {
  const CommittedBlock committed = [&](int64_t b) { return store.block(b); };
  if (stages.adaptation->steps() == 0 || text.name == calibration_text) {
    if (stages.adaptation->steps() > 0) progress.say(text.name + ": the text of calibration is not adapted to");
    return perplexity(model, head, text.windows, committed_operators(model, committed), options);
  }
  const AdaptedPerplexity done = adapted_perplexity(stages, model, head, text.windows, committed, walk, options);
  double before = 0, after = 0, kept = 0, count = 0;
  for (const auto& refits : done.refits)
    for (const RefitReport& r : refits) before += r.before, after += r.after, kept += r.kept, count += 1;
  const auto number = [](double x) { return results::detail::decimal(x, 6); };
  const auto note = [&](const std::string& name, const std::string& value) {
    settings.emplace_back("adaptation." + text.name + "." + name, value);
  };
  note("loss_before", number(before / count)), note("loss_after", number(after / count)), note("kept", number(kept / count));
  std::string line = cat(text.name, ": adapted, loss on it ", number(before / count), " to ", number(after / count), ", kept ",
                         static_cast<int64_t>(kept), " of ", static_cast<int64_t>(count));
  const bool unrounded = stages.adaptation->refit().input == RefitInput::literal && walk.precision.quantizes_activations();
  if (unrounded) note("last_block", "activations not rounded"), line += "; its last block has activations not rounded: not comparable";
  if (!done.blocks.empty()) {
    const Tensor source = calibration.narrow(0, 0, std::min<int64_t>(16, calibration.size(0)));
    const double was = perplexity(model, head, {source}, committed_operators(model, committed), options).estimate().value;
    const double now = perplexity(model, head, {source}, committed_operators(model, committed, done.blocks), options).estimate().value;
    note("source_before", number(was)), note("source_after", number(now));
    line += cat("; perplexity of the calibration sample ", number(was), " to ", number(now));
  }
  progress.say(line);
  return done.perplexity;
}

}  // namespace ptq::driver
