// Learned scale and shift: LRQuant's smoothing from its logarithmic start, and OmniQuant's from another.
#pragma once

#include <algorithm>

#include <ptq/smoothing.hpp>

namespace ptq {

/// Where factors begin: by the logarithm of the input's maxima (LRQuant); by SmoothQuant's formula with the maxima of one linear
/// (OmniQuant), or of all that read the input; at one.
enum class SmoothStart { log, smoothquant_one_linear, smoothquant, identity };
template <>
struct EnumNames<SmoothStart> {
  static constexpr std::array<std::string_view, 4> names{"log", "smoothquant_one_linear", "smoothquant", "identity"};
};

/// Which inputs are shifted: none, those of blocks whose norms have biases (OmniQuant), or all (LRQuant).
enum class Shifts { none, biased, all };
template <>
struct EnumNames<Shifts> {
  static constexpr std::array<std::string_view, 3> names{"none", "biased", "all"};
};

/// x Wᵀ + b = ((x − δ)/s)(W diag(s))ᵀ + (b + W δ) behind both norms and from values to the attention's output; rows of q divided by s_a,
/// those of k multiplied. s, δ and s_a are learned.
/// Shao et al.: OmniQuant, arXiv 2308.13137, eq. 3-5; Zhao et al.: LRQuant, ACL 2024, doi 10.18653/v1/2024.acl-long.122.
/// δ begins at the running middle of the input where norms have biases, else at zero. Heads that share a value head share its s and δ,
/// heads that share a key its s_a; a start takes the largest maximum of theirs.
struct LearnedLog {
  static constexpr std::string_view tag = "learned_log";

  SmoothStart start_at = SmoothStart::log;
  double alpha = 0.5;  ///< of the smoothquant starts
  Shifts shifts = Shifts::all;
  bool query_key = true;   ///< learn s_a
  bool tie_rotary = true;  ///< one s_a for channels that turn together; untied, as released, the block's float output moves with s_a
  double min = 0.01;       ///< floor of |s| and |s_a|
  double rate = 1e-3;      ///< of all of them; 0: the start stays

  [[nodiscard]] constexpr Needs needs() const { return {.absmax = true, .middle = shifts != Shifts::none}; }
  [[nodiscard]] Stream source() const { return Stream::reference; }
  [[nodiscard]] std::vector<Learnable> learnable() const {
    if (rate == 0) return {};
    return {{{"s.attention_in", "s.attention_out", "s.mlp_in", "s.query_key", "d.attention_in", "d.attention_out", "d.mlp_in"}, rate}};
  }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    if (!(alpha >= 0 && alpha <= 1)) return "smoothing.alpha must lie in [0, 1], it is " + number_text(alpha);
    if (!(min > 0)) return "smoothing.min must be positive, it is " + number_text(min);
    if (!(rate >= 0)) return "smoothing.rate must not be negative, it is " + number_text(rate);
    return {};
  }

  /// State: "s.<group>", "d.<group>" of every group behind a norm or fed by values (width, or width / repeat at values); "s.query_key"
  /// (rows of k, or half of them where rotary partners are tied).
  [[nodiscard]] NamedTensors start(const Layout& layout, const BlockParameters& block, const std::vector<Statistics>& stats) const {
    NamedTensors state;
    const auto options = block.linears.front().weight.options();
    const bool biased = std::any_of(block.norms.begin(), block.norms.end(), [](const NormParameters& n) { return n.bias.defined(); });
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const FoldSite* fold = fold_of(layout, g);
      if (!fold || (fold->source == FoldSite::Source::linear && fold->index != layout.value)) continue;
      const auto shared = [&](const Tensor& t) { return t.reshape({-1, fold->repeat, fold->repeat > 1 ? fold->head : 1}); };
      const Tensor m = stats[g].absmax.to(options);  // (width)
      Tensor s = logarithmic_factor(shared(m).amax(1).reshape({-1}));
      if (start_at == SmoothStart::identity) s = at::ones_like(s);
      if (start_at == SmoothStart::smoothquant_one_linear || start_at == SmoothStart::smoothquant)
        s = shared(balanced(layout, block, g, m)).amax(1).reshape({-1});
      state["s." + layout.groups[g].name] = away_from_zero(s, min);
      if (shifts == Shifts::none || (shifts == Shifts::biased && !biased)) continue;
      state["d." + layout.groups[g].name] = biased ? shared(stats[g].middle.to(options)).mean(1).reshape({-1}).clone() : at::zeros_like(s);
    }
    if (const QueryKeyFold& qk = layout.query_key; query_key && qk.head > 0)
      state["s.query_key"] = at::ones({layout.sites[static_cast<size_t>(layout.key)].out / (tie_rotary && qk.rotary ? 2 : 1)}, options);
    return state;
  }

  /// Factors of magnitude below `min` are set to ±min in place, as before every use.
  void project(NamedTensors& state) const {
    for (auto& [name, t] : state)
      if (name.starts_with("s.")) t.copy_(away_from_zero(t, min));
  }

  [[nodiscard]] BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const {
    BlockParameters fused = block;
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const FoldSite* fold = fold_of(layout, g);
      if (!fold) continue;
      const auto whole = [&](const char* kind) {
        const auto found = state.find(kind + layout.groups[g].name);
        return found == state.end() ? Tensor() : spread_heads(found->second, fold->repeat, fold->head, layout.groups[g].width);
      };
      if (const Tensor d = whole("d."); d.defined()) shift_input(fused, layout, *fold, d);
      if (const Tensor s = whole("s."); s.defined()) divide_input(fused, layout, *fold, s, true);
    }
    const QueryKeyFold& qk = layout.query_key;
    if (const auto found = state.find("s.query_key"); found != state.end()) {
      LinearParameters &q = fused.linears[static_cast<size_t>(layout.query)], &k = fused.linears[static_cast<size_t>(layout.key)];
      Tensor s = found->second;  // (rows of k) or half of them
      if (s.size(0) != k.weight.size(0)) s = s.reshape({-1, 1, qk.head / 2}).expand({-1, 2, -1}).reshape({-1});
      const Tensor rows = spread_heads(s, qk.repeat, qk.head, q.weight.size(0));
      q.weight = q.weight / rows.unsqueeze(1), k.weight = k.weight * s.unsqueeze(1);
      if (q.bias.defined()) q.bias = q.bias / rows;
      if (k.bias.defined()) k.bias = k.bias * s;
    }
    return fused;
  }

 private:
  /// max|X_j|^α / max|W_j|^(1−α), every part and the whole at least 1e-5; W the query, the last linear of another group, or all.
  [[nodiscard]] Tensor balanced(const Layout& layout, const BlockParameters& block, size_t g, const Tensor& m) const {
    const std::vector<int>& sites = layout.groups[g].sites;
    const bool query = std::find(sites.begin(), sites.end(), layout.query) != sites.end();
    Tensor w;  // (width)
    for (const int site : sites) {
      if (start_at == SmoothStart::smoothquant_one_linear && site != (query ? layout.query : sites.back())) continue;
      const Tensor peak = block.linears[static_cast<size_t>(site)].weight.abs().amax(0);
      w = w.defined() ? at::maximum(w, peak) : peak;
    }
    return (m.clamp_min(1e-5).pow(alpha) / w.clamp_min(1e-5).pow(1 - alpha)).clamp_min(1e-5);
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::LearnedLog, start_at, alpha, shifts, query_key, tie_rotary, min, rate);
