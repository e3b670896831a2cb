// What a block of each architecture consists of: sites, input groups, norms, fold sites.
#pragma once

#include <ptq/io/model_config.hpp>
#include <ptq/model/block.hpp>

namespace ptq {

/// Places of a LLaMA-like block. Norm → group folds are exact because the norm's gain multiplies channel by channel; v → o because
/// attention averages each value channel by itself; up → down because the gate multiplies elementwise.
[[nodiscard]] inline Layout llama_layout(const ModelConfig& c) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  Layout l;
  l.sites = {{"self_attn.q_proj", 0, q, c.hidden}, {"self_attn.k_proj", 0, kv, c.hidden}, {"self_attn.v_proj", 0, kv, c.hidden},
             {"self_attn.o_proj", 1, c.hidden, q}, {"mlp.gate_proj", 2, c.ffn, c.hidden}, {"mlp.up_proj", 2, c.ffn, c.hidden},
             {"mlp.down_proj", 3, c.hidden, c.ffn}};
  l.groups = {{"attention_in", {0, 1, 2}, c.hidden}, {"attention_out", {3}, q}, {"mlp_in", {4, 5}, c.hidden}, {"mlp_out", {6}, c.ffn}};
  l.norms = {"input_layernorm", "post_attention_layernorm"};
  using enum FoldSite::Source;
  l.folds = {{0, norm, 0}, {1, linear, 2, c.heads / c.kv_heads, c.head_dim}, {2, norm, 1}, {3, linear, 5}};
  if (!c.qk_norm) l.query_key = {c.heads / c.kv_heads, c.head_dim, true};
  l.query = 0, l.key = 1, l.value = 2;
  return l;
}

/// Places of an OPT block. fc1 → fc2 folds through ReLU alone (positive factors). After-norm blocks (350m) cannot fold into norms:
/// what the norm returns is also the residual.
[[nodiscard]] inline Layout opt_layout(const ModelConfig& c) {
  Layout l;
  l.sites = {{"self_attn.q_proj", 0, c.hidden, c.hidden},
             {"self_attn.k_proj", 0, c.hidden, c.hidden},
             {"self_attn.v_proj", 0, c.hidden, c.hidden},
             {"self_attn.out_proj", 1, c.hidden, c.hidden},
             {"fc1", 2, c.ffn, c.hidden},
             {"fc2", 3, c.hidden, c.ffn}};
  l.groups = {{"attention_in", {0, 1, 2}, c.hidden}, {"attention_out", {3}, c.hidden}, {"mlp_in", {4}, c.hidden}, {"mlp_out", {5}, c.ffn}};
  l.norms = {"self_attn_layer_norm", "final_layer_norm"};
  using enum FoldSite::Source;
  if (c.pre_norm && c.norm_affine) l.folds.push_back({0, norm, 0});
  l.folds.push_back({1, linear, 2, 1, c.head_dim});
  if (c.pre_norm && c.norm_affine) l.folds.push_back({2, norm, 1});
  if (c.activation == Activation::relu) l.folds.push_back({3, linear, 4});
  l.query_key = {1, c.head_dim, false};
  l.query = 0, l.key = 1, l.value = 2;
  return l;
}

[[nodiscard]] inline Layout layout(const ModelConfig& config) { return config.is_opt() ? opt_layout(config) : llama_layout(config); }

/// Whether a site of the architecture owns a bias.
[[nodiscard]] inline bool has_bias(const ModelConfig& config, const Site& site) {
  return site.group == 0 ? config.qkv_bias : site.group == 1 ? config.out_bias : config.mlp_bias;
}

}  // namespace ptq
