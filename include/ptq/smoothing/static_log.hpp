// Logarithmic factors, not learned: the start of LRQuant as a smoothing of its own.
#pragma once

#include <ptq/smoothing.hpp>

namespace ptq {

/// s_j = m_j / log₂(2 + m_j),  m_j = max|X_j|,   x Wᵀ = (x / s)(W diag(s))ᵀ
/// Zhao et al.: LRQuant, ACL 2024, doi 10.18653/v1/2024.acl-long.122, where it is a baseline ("LAE"). No statistic of weights enters.
/// Behind both norms and from values to the attention's output; never at the feed-forward's second linear.
struct StaticLog {
  static constexpr std::string_view tag = "static_log";

  double min = 0.01;  ///< floor of s

  [[nodiscard]] constexpr Needs needs() const { return {.absmax = true}; }
  [[nodiscard]] Stream source() const { return Stream::reference; }
  [[nodiscard]] std::vector<Learnable> learnable() const { return {}; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return min > 0 ? "" : "smoothing.min must be positive, it is " + number_text(min); }

  /// State: "s.<group>" (width) of every group behind a norm or fed by values.
  [[nodiscard]] NamedTensors start(const Layout& layout, const BlockParameters& block, const std::vector<Statistics>& stats) const {
    NamedTensors state;
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const FoldSite* fold = fold_of(layout, g);
      if (!fold || (fold->source == FoldSite::Source::linear && fold->index != layout.value)) continue;
      Tensor m = stats[g].absmax.to(block.linears.front().weight.scalar_type());  // (width)
      if (fold->repeat > 1) m = m.reshape({-1, fold->repeat, fold->head}).amax(1, true).expand({-1, fold->repeat, -1}).reshape({-1});
      state["s." + layout.groups[g].name] = logarithmic_factor(m).clamp_min(min);
    }
    return state;
  }

  [[nodiscard]] BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const {
    BlockParameters fused = block;
    for (size_t g = 0; g < layout.groups.size(); ++g)
      if (const auto found = state.find("s." + layout.groups[g].name); found != state.end())
        divide_input(fused, layout, *fold_of(layout, g), found->second, true);
    return fused;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::StaticLog, min);
