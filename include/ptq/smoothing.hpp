// Smoothing: which equivalent form of the block is easier to quantize?
#pragma once

#include <vector>

#include <ptq/calibration/statistics.hpp>
#include <ptq/core/policy.hpp>
#include <ptq/model/block.hpp>

namespace ptq {

/// A smoothing is a differentiable function from block parameters and its state to fused parameters of the same function.
/// Minimal definition: `needs`, `source`, `start`, `learnable`, `fuse`.                               Null object: NoSmoothing
/// State by name: "s.<group>" factors and "d.<group>" shifts of an input group, (width) or one for each channel that query heads share;
/// "s.query_key" factors of q and k. A smoothing that learns may offer `project(state)`, called before every use of learned values.
/// Laws: factors are positive and finite at the start; the block's float output does not move; NoSmoothing is bit-identical to none at all.
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

/// The fold site of an input group, or null.
[[nodiscard]] inline const FoldSite* fold_of(const Layout& layout, size_t group) {
  for (const FoldSite& f : layout.folds)
    if (f.group == static_cast<int>(group)) return &f;
  return nullptr;
}

/// A value for each channel of the input, from one for each channel that `repeat` query heads share. t (width) or (width / repeat) →
/// (width).
[[nodiscard]] inline Tensor spread_heads(const Tensor& t, int64_t repeat, int64_t head, int64_t width) {
  if (t.size(0) == width) return t;
  return t.reshape({-1, 1, head}).expand({-1, repeat, head}).reshape({-1});
}

namespace detail {

/// The rows of the source that make the channels of `t` (width), which is equal within each key/value group.
[[nodiscard]] inline Tensor source_rows(const Tensor& t, const FoldSite& fold) {
  return fold.repeat > 1 ? t.reshape({-1, fold.repeat, fold.head}).select(1, 0).reshape({-1}) : t;
}

}  // namespace detail

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
  const Tensor rows = detail::source_rows(s, fold);  // (out of the source)
  LinearParameters& source = block.linears[index];
  source.weight = source.weight / rows.unsqueeze(1);
  if (source.bias.defined()) source.bias = source.bias / rows;
}

/// x Wᵀ + b = (x − d) Wᵀ + (b + W d) at the input group of `fold`: readers gain W d, the norm or linear that makes the input loses d.
/// d (width), equal within each key/value group. Exact through attention because its probabilities sum to one. Before `divide_input`.
inline void shift_input(BlockParameters& block, const Layout& layout, const FoldSite& fold, const Tensor& d) {
  for (const int site : layout.groups[static_cast<size_t>(fold.group)].sites) {
    LinearParameters& reader = block.linears[static_cast<size_t>(site)];
    const Tensor moved = at::mv(reader.weight, d);  // (out)
    reader.bias = reader.bias.defined() ? reader.bias + moved : moved;
  }
  const auto index = static_cast<size_t>(fold.index);
  Tensor& bias = fold.source == FoldSite::Source::norm ? block.norms[index].bias : block.linears[index].bias;
  const Tensor& kept = block.input_scale[static_cast<size_t>(fold.group)];  // divides at run time, after the norm
  if (kept.defined() && fold.repeat > 1)
    refuse("a shift of values that several query heads share cannot follow a factor that divides at run time; fold the factor");
  const Tensor moved = kept.defined() ? d * kept : d;
  const Tensor lost = fold.source == FoldSite::Source::norm ? moved : detail::source_rows(moved, fold);
  bias = bias.defined() ? bias - lost : -lost;
}

/// What an input group's statistics become once `state` has shifted and divided it: x → (x − d) / s. Sums of |x| and x² survive factors
/// alone.
[[nodiscard]] inline std::vector<Statistics> smoothed(const Layout& layout, const std::vector<Statistics>& stats,
                                                      const NamedTensors& state) {
  std::vector<Statistics> all = stats;
  for (size_t g = 0; g < all.size(); ++g) {
    const FoldSite* fold = fold_of(layout, g);
    const auto find = [&](const char* kind) {
      const auto found = state.find(kind + layout.groups[g].name);
      if (found == state.end()) return Tensor();
      return spread_heads(found->second.detach(), fold ? fold->repeat : 1, fold ? fold->head : 0, layout.groups[g].width);
    };
    const Tensor s = find("s."), d = find("d.");
    if (!s.defined() && !d.defined()) continue;
    Statistics& x = all[g];
    const auto moved = [&](const Tensor& t) {
      if (!t.defined()) return t;
      const Tensor y = d.defined() ? t - d : t;
      return s.defined() ? y / s : y;
    };
    if (d.defined() && x.absmax.defined() && !x.low.defined()) fail("maxima of |x| after a shift need the extent of x");
    const Tensor a = moved(x.low), b = moved(x.high);
    if (a.defined()) x.low = at::minimum(a, b), x.high = at::maximum(a, b);
    if (x.absmax.defined()) x.absmax = d.defined() ? at::maximum(x.low.abs(), x.high.abs()) : x.absmax / s.abs();
    x.middle = moved(x.middle);
    x.profile = d.defined() || !x.profile.defined() ? Tensor() : x.profile / s.abs();
    x.square = d.defined() || !x.square.defined() ? Tensor() : x.square / s.square();
    x.hessian = x.cross = Tensor();
  }
  return all;
}

/// s = max(m / log₂(2 + m), 1e-5), m = max(max|x|, 1e-5): what was as large as m becomes log₂(2 + m). absmax (width) → (width)
/// Zhao et al.: LRQuant, ACL 2024, its logarithmic activation equivalence.
[[nodiscard]] inline Tensor logarithmic_factor(const Tensor& absmax) {
  const Tensor m = absmax.clamp_min(1e-5);
  return (m / (2 + m).log2()).clamp_min(1e-5);
}

/// Factors of magnitude below `least` become ±least, an exact zero +least.
[[nodiscard]] inline Tensor away_from_zero(const Tensor& s, double least) {
  return at::where(s.abs() < least, at::where(s < 0, -1.0, 1.0).to(s.scalar_type()) * least, s);
}

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::NoSmoothing);
