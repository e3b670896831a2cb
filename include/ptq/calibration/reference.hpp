// The float model's stream over the calibration tokens: the input of every block, and statistics of every input group.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/calibration/observer.hpp>
#include <ptq/calibration/stream_memory.hpp>
#include <ptq/model/transformer.hpp>

namespace ptq {

/// What recipes may read of the float model. Recipe-independent, so one is shared by all entries of an ablation.
struct ReferenceStream {
  virtual ~ReferenceStream() = default;
  [[nodiscard]] virtual Tensor input(int64_t block) = 0;  ///< (N, T, hidden); block = number of blocks: the last output
  [[nodiscard]] virtual std::vector<Statistics> statistics(int64_t block) = 0;  ///< by input group; see reference_needs
  /// Σ xᵀ x by input group, (width, width), of which only some recipes make use: what `compute` gives, or what it gave an earlier run.
  [[nodiscard]] virtual std::vector<Tensor> second_moments(int64_t block, const std::function<std::vector<Tensor>()>& compute) {
    (void)block;
    return compute();
  }
};

/// The statistics that every reference stream offers: cheap ones, a vector a group, or a vector a sequence.
inline constexpr Needs reference_needs{.absmax = true, .extent = true, .middle = true, .profile = true, .square = true};

/// What enters block 0, made in `memory`. tokens (N, T) → (N, T, hidden).
[[nodiscard]] inline Tensor embed_stream(const Transformer& model, const Tensor& tokens, int64_t batch_tokens,
                                         const StreamMemory& memory = {}) {
  model.require_ids(tokens);
  const Embedding table = model.load_embedding();
  const Tensor x = memory.empty({tokens.size(0), tokens.size(1), model.config().hidden}, model.options());
  for_batches(x.size(0), x.size(1), batch_tokens, [&](int64_t first, int64_t count) {
    const Tensor part = x.narrow(0, first, count);
    part.copy_(model.embed(table, tokens.narrow(0, first, count)));
    io::forget(part);
  });
  return x;
}

/// Runs one float block over x and gathers reference statistics. x, y (N, T, hidden); y is made in `memory`.
[[nodiscard]] inline Tensor reference_forward(const Transformer& model, int64_t block, const Tensor& x, std::vector<Statistics>& stats,
                                              int64_t batch_tokens, const StreamMemory& memory = {}) {
  stats.assign(model.layout().groups.size(), Statistics{});
  Observer watch(model.config(), model.load(block));
  watch.on_input = [&](int group, const Tensor& seen) { stats[static_cast<size_t>(group)].add(reference_needs, seen); };
  const Tensor y = memory.empty_like(x);
  for_batches(x.size(0), x.size(1), batch_tokens, [&](int64_t first, int64_t count) {
    const Tensor from = x.narrow(0, first, count), to = y.narrow(0, first, count);
    to.copy_(model.forward(block, from, watch));
    require_finite(to, "block " + std::to_string(block) + ", output of the float model");
    io::forget(from), io::forget(to);
  });
  return y;
}

/// Computes the stream as the walk goes along, keeping two blocks' worth: `--cache-stream last`.
class ComputedReference : public ReferenceStream {
 public:
  ComputedReference(const Transformer& model, Tensor tokens, int64_t batch_tokens, StreamMemory memory = {})
      : model_(model), tokens_(std::move(tokens)), batch_tokens_(batch_tokens), memory_(std::move(memory)) {}

  Tensor input(int64_t block) override {
    seek(block);
    return block == block_ ? before_ : after_;
  }
  std::vector<Statistics> statistics(int64_t block) override {
    seek(block);  // keeps block or its predecessor
    while (block_ < block || !after_.defined()) step();
    return stats_;
  }

 private:
  /// Makes `block` the block whose input is kept, or the one after it.
  void seek(int64_t block) {
    if (!before_.defined() || block < block_) {
      block_ = 0, before_ = after_ = Tensor();  // gone before there is a new one
      before_ = embed_stream(model_, tokens_, batch_tokens_, memory_);
    }
    while (block > block_ + 1 || (block == block_ + 1 && !after_.defined())) step();
  }
  /// Computes the output of the kept block, or moves to the next.
  void step() {
    if (after_.defined())
      before_ = std::exchange(after_, Tensor()), ++block_;
    else
      after_ = reference_forward(model_, block_, before_, stats_, batch_tokens_, memory_);
  }

  const Transformer& model_;
  Tensor tokens_;
  int64_t batch_tokens_;
  StreamMemory memory_;
  int64_t block_ = 0;
  Tensor before_, after_;          // (N, T, hidden) around block_
  std::vector<Statistics> stats_;  // of block_, when after_ is defined
};

}  // namespace ptq
