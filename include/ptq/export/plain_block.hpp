// A quantized block as plain float tensors: what a file without codes, run-time divisions and activation formats can say.
#pragma once

#include <map>
#include <set>
#include <string>

#include <ptq/model/parameters.hpp>
#include <ptq/quantized_block.hpp>

namespace ptq {

/// Which biases blocks own, and which formats of activations a plain file cannot hold.
struct BlockSurvey {
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  std::set<std::string> formats;  ///< "inputs of linears int8:token", …
};

namespace detail {

/// The input group that norm `norm` alone produces, or nothing: an after-norm block's norms feed the residual too.
[[nodiscard]] inline const InputGroup* fed_by(const Layout& layout, size_t norm) {
  for (const FoldSite& fold : layout.folds)
    if (fold.source == FoldSite::Source::norm && fold.index == static_cast<int>(norm))
      return &layout.groups[static_cast<size_t>(fold.group)];
  return nullptr;
}

/// Whether the norm's bias has no place of its own: an RMS norm's moves into the linears behind it.
[[nodiscard]] inline bool moves_bias(const ModelConfig& config, const QuantizedBlock& block, size_t norm) {
  return !config.is_opt() && block.norms[norm].bias.defined();
}

[[nodiscard]] inline Tensor as_float(const Tensor& t) { return t.defined() ? t.detach().to(at::kCPU, at::kFloat) : t; }

}  // namespace detail

/// Looks through a block without computing anything, and adds to `needs` what it needs. Throws when it does not fit the layout or has
/// numbers for which no architecture of this family has a place.
inline void survey(const ModelConfig& config, const Layout& layout, const QuantizedBlock& block, const std::string& place,
                   BlockSurvey& needs) {
  if (block.linears.size() != layout.sites.size() || block.norms.size() != layout.norms.size())
    fail(place, ": ", block.linears.size(), " linears and ", block.norms.size(), " norms do not fit the model");
  const auto bias_of = [&](int group) -> bool& { return group == 0 ? needs.qkv_bias : group == 1 ? needs.out_bias : needs.mlp_bias; };
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    const Site& site = layout.sites[i];
    const Tensor& w = block.linears[i].quantized() ? block.linears[i].codes : block.linears[i].dense;
    if (!w.defined() || w.dim() != 2 || w.size(0) != site.out || w.size(1) != site.in)
      fail(place, ".", site.name, " is ", shape_text(w), ", the model has (", site.out, ", ", site.in, ")");
    if (block.linears[i].bias.defined()) bias_of(site.group) = true;
  }
  for (size_t i = 0; i < layout.norms.size(); ++i) {
    const NormParameters& norm = block.norms[i];
    if (config.is_opt() && !config.norm_affine && (norm.weight.defined() || norm.bias.defined()))
      refuse(place, ".", layout.norms[i], " owns a gain or a bias, for which layer_norm_elementwise_affine = false has no place");
    if (!detail::moves_bias(config, block, i)) continue;
    const InputGroup* group = detail::fed_by(layout, i);
    if (group == nullptr) refuse(place, ".", layout.norms[i], " owns a bias, which an RMS norm has no place for");
    bias_of(layout.sites[static_cast<size_t>(group->sites.front())].group) = true;
  }
  if (block.query_norm.defined() != config.qk_norm || block.key_norm.defined() != config.qk_norm)
    refuse(place, ": Q/K norms of the block and of the ", name(config.family), " architecture differ");
  const auto note = [&](const char* what, const Scheme& scheme) {
    if (scheme.active()) needs.formats.insert(cat(what, " ", scheme.text()));
  };
  for (const Format& f : block.formats.inputs) note("inputs of linears", f.scheme);
  for (size_t i = 0; i < block.formats.outputs.size(); ++i)
    note(cat("output of ", layout.sites[i].name).c_str(), block.formats.outputs[i].scheme);
  for (size_t i = 0; i < block.formats.attention.size(); ++i)
    note(cat("attention operand ", Precision::operand_names[i]).c_str(), block.formats.attention[i]);
}

/// The block's tensors under the names within a block ("self_attn.q_proj.weight"), float32 on the CPU, of the same function as the block
/// with activations unquantized. With input divisor s, a norm's bias d that has no place of its own, and W* = Q + (A B)ᵀ:
///   ((n + d) / s) W*ᵀ + b  =  n W'ᵀ + (b + W' d),   W' = W* diag(1/s)
/// `factors_apart`: weights are Q diag(1/s) alone; biases stay those of W*, for the factors are added elsewhere.
[[nodiscard]] inline std::map<std::string, Tensor> plain_block(const ModelConfig& config, const Layout& layout, const QuantizedBlock& block,
                                                               bool factors_apart = false) {
  const at::NoGradGuard no_grad;
  std::map<std::string, Tensor> tensors;
  std::vector<Tensor> shift(layout.groups.size());  // (width) by group
  for (size_t i = 0; i < layout.norms.size(); ++i) {
    const NormParameters& norm = block.norms[i];
    if (norm.weight.defined()) tensors[layout.norms[i] + ".weight"] = detail::as_float(norm.weight);  // (hidden)
    if (detail::moves_bias(config, block, i))
      shift[static_cast<size_t>(detail::fed_by(layout, i) - layout.groups.data())] = norm.bias.detach().to(at::kCPU, at::kDouble);
    else if (norm.bias.defined())
      tensors[layout.norms[i] + ".bias"] = detail::as_float(norm.bias);  // (hidden)
  }
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    const Site& site = layout.sites[i];
    const auto group = static_cast<size_t>(site.group);
    Tensor w = detail::as_float(block.linears[i].effective_weight());  // (out, in)
    if (group < block.input_scale.size() && block.input_scale[group].defined()) w = w / detail::as_float(block.input_scale[group]);
    Tensor bias = detail::as_float(block.linears[i].bias);  // (out)
    if (shift[group].defined()) {
      const Tensor moved = at::mv(w.to(at::kDouble), shift[group]);  // (out)
      bias = (bias.defined() ? bias.to(at::kDouble) + moved : moved).to(at::kFloat);
    }
    if (factors_apart && block.linears[i].correction.defined()) {
      w = detail::as_float(block.linears[i].weight());
      if (group < block.input_scale.size() && block.input_scale[group].defined()) w = w / detail::as_float(block.input_scale[group]);
    }
    tensors[site.name + ".weight"] = w;
    if (bias.defined()) tensors[site.name + ".bias"] = bias;
  }
  if (block.query_norm.defined()) tensors["self_attn.q_norm.weight"] = detail::as_float(block.query_norm);  // (head)
  if (block.key_norm.defined()) tensors["self_attn.k_norm.weight"] = detail::as_float(block.key_norm);      // (head)
  return tensors;
}

}  // namespace ptq
