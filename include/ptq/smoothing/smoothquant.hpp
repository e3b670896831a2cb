// SmoothQuant: moves the range of activations into the weights that read them.
#pragma once

#include <ptq/smoothing.hpp>

namespace ptq {

/// Which input groups are smoothed: those behind a norm (the paper), or all whose factor can be folded, or all.
enum class SmoothSites { norms, foldable, all };
template <>
struct EnumNames<SmoothSites> {
  static constexpr std::array<std::string_view, 3> names{"norms", "foldable", "all"};
};

/// s_j = max|X_j|^α / max|W_j|^(1−α),   x Wᵀ = (x / s)(W diag(s))ᵀ
/// Xiao et al.: SmoothQuant, arXiv 2211.10438, eq. 4. max|W_j| runs over all linears that read the input.
/// α → 1 moves all difficulty into the weights; 0.5 is the paper's default, 0.85 its table's value for LLaMA-2.
struct SmoothQuant {
  static constexpr std::string_view tag = "smoothquant";

  double alpha = 0.5;
  double min = 1e-5;         ///< floor of s
  double weight_min = 1e-5;  ///< floor of max|W_j|
  SmoothSites sites = SmoothSites::norms;
  bool fold = true;  ///< factors of linear sources (v → o, up → down, fc1 → fc2) are folded; else they divide at run time
  Stream stream = Stream::reference;  ///< whose maxima: the float model's once (the paper), or the quantized stream's (AWRQ)

  [[nodiscard]] constexpr Needs needs() const { return {.absmax = true}; }
  [[nodiscard]] Stream source() const { return stream; }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {}; }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    if (!(alpha >= 0 && alpha <= 1)) return "smoothing.alpha must lie in [0, 1], it is " + number_text(alpha);
    if (!(min > 0)) return "smoothing.min must be positive, it is " + number_text(min);
    if (!(weight_min > 0)) return "smoothing.weight_min must be positive, it is " + number_text(weight_min);
    return {};
  }

  /// State: "s.<group>" (width) for every smoothed group.
  [[nodiscard]] NamedTensors start(const Layout& layout, const BlockParameters& block, const std::vector<Statistics>& stats) const {
    NamedTensors state;
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const FoldSite* place = fold_of(layout, g);
      const bool norm = place && place->source == FoldSite::Source::norm;
      if (sites == SmoothSites::norms ? !norm : sites == SmoothSites::foldable ? place == nullptr : false) continue;
      Tensor weight;  // (width) max over rows of all readers
      for (const int site : layout.groups[g].sites) {
        const Tensor peak = block.linears[static_cast<size_t>(site)].weight.abs().amax(0);
        weight = weight.defined() ? at::maximum(weight, peak) : peak;
      }
      const Tensor x = stats[g].absmax.to(weight.scalar_type());                               // (width)
      Tensor s = (x.pow(alpha) / weight.clamp_min(weight_min).pow(1 - alpha)).clamp_min(min);  // (width)
      if (place && place->repeat > 1 && folds(*place)) s = tie(s, *place);
      state["s." + layout.groups[g].name] = s;
    }
    return state;
  }

  [[nodiscard]] BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const {
    BlockParameters fused = block;
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const auto found = state.find("s." + layout.groups[g].name);
      if (found == state.end()) continue;
      const FoldSite* place = fold_of(layout, g);
      FoldSite here = place ? *place : FoldSite{};
      here.group = static_cast<int>(g);
      divide_input(fused, layout, here, found->second, place != nullptr && folds(*place));
    }
    return fused;
  }

 private:
  [[nodiscard]] bool folds(const FoldSite& site) const { return site.source == FoldSite::Source::norm || fold; }

  /// Heads that share a value head share its factor: the largest of theirs.
  static Tensor tie(const Tensor& s, const FoldSite& fold) {       // (kv heads · repeat · head)
    const Tensor heads = s.reshape({-1, fold.repeat, fold.head});  // (kv heads, repeat, head)
    return heads.amax(1, true).expand_as(heads).reshape({-1});
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::SmoothQuant, alpha, min, weight_min, sites, fold, stream);
