// Smoothing: which equivalent form of the block is easier to quantize?
#pragma once

#include <vector>

#include <ptq/calibration/statistics.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/model/block.hpp>

namespace ptq {

/// A smoothing is a differentiable function from block parameters and its state to fused parameters of the same function.
/// Minimal definition: `needs`, `source`, `start`, `learnable`, `fuse`.                               Null object: NoSmoothing
/// Laws: factors are positive and finite; the block's float output does not move; NoSmoothing is bit-identical to none at all.
template <class P>
concept Smoothing = Policy<P> && requires(const P p, const Layout& layout, const BlockParameters& block,
                                          const std::vector<Statistics>& stats, const NamedTensors& state) {
  { p.needs() } -> std::same_as<Needs>;    // of each input group
  { p.source() } -> std::same_as<Stream>;  // whose statistics
  { p.start(layout, block, stats) } -> std::same_as<NamedTensors>;
  { p.learnable() } -> std::same_as<std::vector<Learnable>>;
  { p.fuse(layout, block, state) } -> std::same_as<BlockParameters>;
};

struct NoSmoothing {
  static constexpr std::string_view tag = "none";

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Stream source() const { return Stream::reference; }
  [[nodiscard]] NamedTensors start(const Layout&, const BlockParameters&, const std::vector<Statistics>&) const { return {}; }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {}; }
  [[nodiscard]] BlockParameters fuse(const Layout&, const BlockParameters& block, const NamedTensors&) const { return block; }
};

/// x Wᵀ = (x / s)(W diag(s))ᵀ at the input group of `fold`: columns of every reader times s; 1/s goes into the norm's gain and bias or
/// into the rows of the linear that produces the input, or stays as a division at run time.
/// `s`: (width) positive. With `into_source` and shared heads (fold.repeat > 1), s must be equal within each key/value group.
inline void divide_input(BlockParameters& block, const Layout& layout, const FoldSite& fold, const Tensor& s, bool into_source) {
  for (const int site : layout.groups[static_cast<size_t>(fold.group)].sites) {
    Tensor& w = block.linears[static_cast<size_t>(site)].weight;
    w = w * s;  // (out, in)
  }
  if (!into_source) {
    Tensor& kept = block.input_scale[static_cast<size_t>(fold.group)];
    kept = kept.defined() ? kept * s : s;
    return;
  }
  const auto index = static_cast<size_t>(fold.index);
  if (fold.source == FoldSite::Source::norm) {
    NormParameters& norm = block.norms[index];
    norm.weight = norm.weight.defined() ? norm.weight / s : 1 / s;
    if (norm.bias.defined()) norm.bias = norm.bias / s;
    return;
  }
  Tensor rows = s;  // (out of the source)
  if (fold.repeat > 1) rows = s.reshape({-1, fold.repeat, fold.head}).select(1, 0).reshape({-1});
  LinearParameters& source = block.linears[index];
  source.weight = source.weight / rows.unsqueeze(1);
  if (source.bias.defined()) source.bias = source.bias / rows;
}

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoSmoothing);
