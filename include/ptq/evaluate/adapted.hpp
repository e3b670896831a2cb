// Perplexity of a committed run whose last blocks are refitted on the very text that is scored.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <ptq/evaluate/perplexity.hpp>
#include <ptq/quantize/refit.hpp>

namespace ptq {

using CommittedBlock = std::function<QuantizedBlock(int64_t block)>;

/// A score and how it came about.
struct AdaptedPerplexity {
  Perplexity perplexity;
  std::vector<std::vector<RefitReport>> refits;  ///< one list a data set, or a segment
  std::vector<QuantizedBlock> blocks;            ///< the last blocks, refitted on the data set; empty after episodes
};

/// Operators of committed blocks, the last of which others may replace.
[[nodiscard]] inline BlockOperators committed_operators(const Transformer& model, CommittedBlock committed,
                                                        std::vector<QuantizedBlock> last = {}) {
  return [&model, committed = std::move(committed), last = std::move(last)](int64_t block) -> std::unique_ptr<Operators> {
    const int64_t first = model.blocks() - static_cast<int64_t>(last.size());
    return std::make_unique<QuantizedOperators>(model.config(),
                                                block < first ? committed(block) : last[static_cast<size_t>(block - first)]);
  };
}

/// Per data set: refits on all full windows, then scores all, a shorter tail too. Per segment: refits on each window, scores it, forgets.
/// The blocks before are run once; the committed run stays as it is. `windows` as for perplexity().
[[nodiscard]] inline AdaptedPerplexity adapted_perplexity(const Stages& stages, const Transformer& model, const Head& head,
                                                          const std::vector<Tensor>& windows, const CommittedBlock& committed,
                                                          const Walk& walk, const PerplexityOptions& options = {}) {
  const at::NoGradGuard no_grad;
  if (stages.adaptation->steps() == 0) return {perplexity(model, head, windows, committed_operators(model, committed), options), {}, {}};
  if (windows.empty()) fail("no windows to evaluate: the text is empty or shorter than one window");
  const Refit how = stages.adaptation->refit();
  if (how.blocks > model.blocks()) refuse(stages.label, ": adaptation.blocks is ", how.blocks, ", the model has ", model.blocks());
  const int64_t first = model.blocks() - how.blocks;
  const bool episodes = stages.adaptation->scope() == AdaptationScope::segment;
  std::vector<Tensor> embedded, x;  // (n, length, hidden)
  for (const Tensor& ids : windows) embedded.push_back(model.embed(ids)), x.push_back(embedded.back().clone());
  for (int64_t block = 0; block < first; ++block) {
    QuantizedOperators ops(model.config(), committed(block));
    for (Tensor& buffer : x) detail::advance(model, block, ops, buffer, options);
    if (options.on_block) options.on_block(block);
  }
  std::vector<QuantizedBlock> kept;  // what the last blocks were committed as
  for (int64_t block = first; block < model.blocks(); ++block) kept.push_back(committed(block));
  const CommittedBlock last = [&](int64_t block) { return kept[static_cast<size_t>(block - first)]; };

  AdaptedPerplexity done;
  const auto finish = [&](const std::vector<QuantizedBlock>& blocks, Tensor y, const Tensor& ids) {
    for (size_t k = 0; k < blocks.size(); ++k) {
      QuantizedOperators ops(model.config(), blocks[k]);
      detail::advance(model, first + static_cast<int64_t>(k), ops, y, options);
    }
    detail::score(model, head, y, ids, options, done.perplexity);
  };
  for (size_t i = 0; i < windows.size(); ++i) {
    if (!episodes && i > 0) {
      finish(done.blocks, x[i], windows[i]);
      continue;
    }
    ComputedReference reference(model, windows[i], walk.batch_tokens, walk.streams);
    std::vector<Tensor> teachers;  // (n, length, hidden) by refitted block
    if (how.input == RefitInput::full_teacher)
      for (int64_t block = first; block < model.blocks(); ++block) teachers.push_back(reference.input(block + 1));
    for (int64_t at = 0, count = episodes ? 1 : windows[i].size(0); at < windows[i].size(0); at += count) {
      const TestStream text{embedded[i].narrow(0, at, count), x[i].narrow(0, at, count),
                            [&](int64_t block) { return teachers[static_cast<size_t>(block - first)].narrow(0, at, count); }};
      Refitted fresh = refit(stages, model, last, text, reference, walk);
      finish(fresh.blocks, x[i].narrow(0, at, count), windows[i].narrow(0, at, count));
      done.refits.push_back(std::move(fresh.reports));
      if (!episodes) done.blocks = std::move(fresh.blocks);
    }
  }
  return done;
}

}  // namespace ptq
