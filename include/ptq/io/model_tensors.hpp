// Which tensors a model consists of: canonical names (Hugging Face, causal language model), shapes, and how files rename them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/model_config.hpp>
#include <ptq/io/stored_tensor.hpp>

namespace ptq::io {

struct NamedShape {
  std::string name;
  Shape shape;
};

namespace detail {

class TensorList {
 public:
  void add(std::string name, Shape shape) { list.push_back({std::move(name), std::move(shape)}); }
  /// y = x W^T + b
  void linear(const std::string& name, std::int64_t rows, std::int64_t columns, bool bias) {
    add(name + ".weight", {rows, columns});
    if (bias) add(name + ".bias", {rows});
  }
  void norm(const std::string& name, std::int64_t size, bool weight, bool bias) {
    if (weight) add(name + ".weight", {size});
    if (bias) add(name + ".bias", {size});
  }
  std::vector<NamedShape> list{};
};

inline void add_opt(const ModelConfig& c, TensorList& to) {
  const std::string root = "model.decoder.";
  to.add(root + "embed_tokens.weight", {c.vocab, c.embedding_dim});
  to.add(root + "embed_positions.weight", {c.max_positions + 2, c.hidden});
  if (c.projected_embedding()) {
    to.add(root + "project_in.weight", {c.hidden, c.embedding_dim});
    to.add(root + "project_out.weight", {c.embedding_dim, c.hidden});
  }
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string block = root + "layers." + std::to_string(i) + ".";
    for (const char* linear : {"q_proj", "k_proj", "v_proj"}) to.linear(block + "self_attn." + linear, c.hidden, c.hidden, c.qkv_bias);
    to.linear(block + "self_attn.out_proj", c.hidden, c.hidden, c.out_bias);
    to.norm(block + "self_attn_layer_norm", c.hidden, c.norm_affine, c.norm_affine);
    to.linear(block + "fc1", c.ffn, c.hidden, c.mlp_bias);
    to.linear(block + "fc2", c.hidden, c.ffn, c.mlp_bias);
    to.norm(block + "final_layer_norm", c.hidden, c.norm_affine, c.norm_affine);
  }
  if (c.final_norm) to.norm(root + "final_layer_norm", c.hidden, c.norm_affine, c.norm_affine);
}

inline void add_llama_like(const ModelConfig& c, TensorList& to) {
  to.add("model.embed_tokens.weight", {c.vocab, c.hidden});
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    to.linear(block + "self_attn.q_proj", c.heads * c.head_dim, c.hidden, c.qkv_bias);
    to.linear(block + "self_attn.k_proj", c.kv_heads * c.head_dim, c.hidden, c.qkv_bias);
    to.linear(block + "self_attn.v_proj", c.kv_heads * c.head_dim, c.hidden, c.qkv_bias);
    to.linear(block + "self_attn.o_proj", c.hidden, c.heads * c.head_dim, c.out_bias);
    to.norm(block + "self_attn.q_norm", c.head_dim, c.qk_norm, false);
    to.norm(block + "self_attn.k_norm", c.head_dim, c.qk_norm, false);
    to.linear(block + "mlp.gate_proj", c.ffn, c.hidden, c.mlp_bias);
    to.linear(block + "mlp.up_proj", c.ffn, c.hidden, c.mlp_bias);
    to.linear(block + "mlp.down_proj", c.hidden, c.ffn, c.mlp_bias);
    to.norm(block + "input_layernorm", c.hidden, true, false);
    to.norm(block + "post_attention_layernorm", c.hidden, true, false);
  }
  to.norm("model.norm", c.hidden, true, false);
}

}  // namespace detail

/// Every tensor that the forward reads, with its shape, in the order of the model; lm_head.weight last, unless the head is tied.
[[nodiscard]] inline std::vector<NamedShape> model_tensors(const ModelConfig& config) {
  detail::TensorList tensors;
  config.is_opt() ? detail::add_opt(config, tensors) : detail::add_llama_like(config, tensors);
  if (!config.tied) tensors.add("lm_head.weight", {config.vocab, config.embedding_dim});
  return std::move(tensors.list);
}

/// Name of the token embedding, which is also a tied head.
[[nodiscard]] inline std::string embedding_name(const ModelConfig& config) {
  return config.is_opt() ? "model.decoder.embed_tokens.weight" : "model.embed_tokens.weight";
}

/// What a Hugging Face file may write before the decoder's tensors, the canonical prefix first.
[[nodiscard]] inline std::vector<std::string> known_prefixes(const ModelConfig& config) {
  if (config.is_opt()) return {"model.decoder.", "decoder.", ""};
  return {"model.", "", "model.model."};
}

/// A canonical name of the LLaMA family as GGUF files spell it: "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight".
[[nodiscard]] inline std::string gguf_name(const std::string& canonical) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 14> parts{{
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
  }};
  const auto dot = canonical.rfind('.');  // before "weight" or "bias"
  std::string stem = canonical.substr(0, dot), block;
  constexpr std::string_view layers = "model.layers.";
  if (stem.starts_with(layers)) {
    const auto end = stem.find('.', layers.size());
    block = "blk." + stem.substr(layers.size(), end - layers.size()) + ".";
    stem.erase(0, end + 1);
  }
  for (const auto& [ours, theirs] : parts)
    if (stem == ours) return block + std::string(theirs) + canonical.substr(dot);
  return canonical;
}

/// Tensors that files carry although no forward reads them.
[[nodiscard]] inline bool harmless_extra(std::string_view name) noexcept {
  return name.ends_with("rotary_emb.inv_freq") || name == "model.decoder.version";
}

}  // namespace ptq::io
