// The float numbers of a model, by name from a file: blocks one at a time, embedding, head.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include <ptq/io/model_tensors.hpp>
#include <ptq/model/layout.hpp>

namespace ptq {

/// All that models know of files. Names are those of Hugging Face: "model.layers.0.self_attn.q_proj.weight".
struct TensorLookup {
  std::function<bool(const std::string& name)> has;
  std::function<Tensor(const std::string& name, at::IntArrayRef shape)> load;  ///< throws when absent or of another shape
};

/// Token embedding, OPT's positions and projection.
struct Embedding {
  Tensor tokens;      // (vocab, embedding_dim)
  Tensor positions;   // (max_positions + 2, hidden) or undefined
  Tensor project_in;  // (hidden, embedding_dim) or undefined
};

/// What turns the last block's output into logits. Replace `weight` (a quantized head) or set `input` (its activation format).
struct Head {
  bool normalize = true;                         ///< false: OPT's after-norm models have no final norm
  NormParameters norm;                           // (hidden)
  Tensor project_out;                            // (embedding_dim, hidden) or undefined
  Tensor weight;                                 // (vocab, embedding_dim)
  std::function<Tensor(const Tensor&)> input{};  ///< applied to the input of `weight`, (…, embedding_dim) → the same
};

/// "model." or "model.decoder.", before every name but that of an untied head.
[[nodiscard]] inline std::string model_prefix(const ModelConfig& config) { return config.is_opt() ? "model.decoder." : "model."; }

/// "model.layers.3.", where the tensors of a block live.
[[nodiscard]] inline std::string block_prefix(const ModelConfig& config, int64_t block) {
  return cat(model_prefix(config), "layers.", block, ".");
}

[[nodiscard]] inline std::string final_norm_name(const ModelConfig& config) {
  return model_prefix(config) + (config.is_opt() ? "final_layer_norm" : "norm");
}

[[nodiscard]] inline NormParameters load_norm(const ModelConfig& config, const TensorLookup& lookup, const std::string& name) {
  NormParameters norm;
  if (config.is_opt() && !config.norm_affine) return norm;
  norm.weight = lookup.load(name + ".weight", {config.hidden});                   // (hidden)
  if (config.is_opt()) norm.bias = lookup.load(name + ".bias", {config.hidden});  // (hidden)
  return norm;
}

/// One block's numbers, read now and kept by nobody else.
[[nodiscard]] inline BlockParameters load_block(const ModelConfig& config, const Layout& layout, const TensorLookup& lookup,
                                                int64_t block) {
  const std::string prefix = block_prefix(config, block);
  BlockParameters p;
  for (const Site& site : layout.sites) {
    LinearParameters& linear = p.linears.emplace_back();
    linear.weight = lookup.load(prefix + site.name + ".weight", {site.out, site.in});                 // (out, in)
    if (has_bias(config, site)) linear.bias = lookup.load(prefix + site.name + ".bias", {site.out});  // (out)
  }
  for (const auto& name : layout.norms) p.norms.push_back(load_norm(config, lookup, prefix + name));
  p.input_scale.resize(layout.groups.size());
  if (config.qk_norm) {
    p.query_norm = lookup.load(prefix + "self_attn.q_norm.weight", {config.head_dim});  // (head)
    p.key_norm = lookup.load(prefix + "self_attn.k_norm.weight", {config.head_dim});    // (head)
  }
  return p;
}

[[nodiscard]] inline Embedding load_embedding(const ModelConfig& config, const TensorLookup& lookup) {
  const std::string prefix = model_prefix(config);
  Embedding e;
  e.tokens = lookup.load(prefix + "embed_tokens.weight", {config.vocab, config.embedding_dim});
  if (config.is_opt()) e.positions = lookup.load(prefix + "embed_positions.weight", {config.max_positions + 2, config.hidden});
  if (config.projected_embedding()) e.project_in = lookup.load(prefix + "project_in.weight", {config.hidden, config.embedding_dim});
  return e;
}

[[nodiscard]] inline Head load_head(const ModelConfig& config, const TensorLookup& lookup) {
  const std::string prefix = model_prefix(config);
  Head head;
  head.normalize = !config.is_opt() || config.final_norm;
  if (head.normalize) head.norm = load_norm(config, lookup, final_norm_name(config));
  if (config.projected_embedding()) head.project_out = lookup.load(prefix + "project_out.weight", {config.embedding_dim, config.hidden});
  head.weight = lookup.load(config.tied ? prefix + "embed_tokens.weight" : "lm_head.weight", {config.vocab, config.embedding_dim});
  return head;
}

/// Refuses, before anything is computed, a file that lacks a tensor of the architecture.
inline void require_tensors(const ModelConfig& config, const TensorLookup& lookup) {
  for (const auto& tensor : io::model_tensors(config))
    if (!lookup.has(tensor.name)) fail("the model's files hold no tensor ", tensor.name, ", which its configuration asks for");
}

}  // namespace ptq
