// GGUF metadata as a model configuration: architectures llama, qwen2 and qwen3.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/gguf.hpp>
#include <ptq/io/gguf_dequant.hpp>
#include <ptq/io/model_config.hpp>

namespace ptq::io {

namespace detail {

inline constexpr const char* gguf_rope_table = "rope_freqs.weight";  ///< divisors of the rotary frequencies (Llama 3.1 and later)

/// Rotary base and scaling; `key` makes "llama.rope.…" of "rope.…".
template <class Key>
void read_gguf_rope(const GgufFile& file, Key key, ModelConfig& config) {
  const GgufMetadata& meta = file.metadata();
  const std::string& where = file.path();
  config.rope_theta = meta.real(key("rope.freq_base"), 10000.0);
  const std::int64_t turned = meta.integer(key("rope.dimension_count"), config.head_dim);
  if (turned != config.head_dim)
    fail(where, ": ", key("rope.dimension_count"), " is ", turned, " of a head size of ", config.head_dim, "; only whole heads are turned");
  const std::string kind = meta.has(key("rope.scaling.type")) ? meta.text(key("rope.scaling.type")) : "none";
  const double old = meta.real(key("rope.scale_linear"), 1.0);  // spelling of version 2 files
  if (kind == "linear")
    config.rope = {RopeKind::linear, meta.real(key("rope.scaling.factor"))};
  else if (kind != "none")
    fail(where, ": ", key("rope.scaling.type"), " \"", kind, "\" is not supported; supported are none and linear, and ", gguf_rope_table);
  else if (old != 1.0)
    config.rope = {RopeKind::linear, old};
  const StoredTensor* table = file.find(gguf_rope_table);
  if (table == nullptr) return;
  if (config.rope.kind != RopeKind::none) fail(where, ": both ", gguf_rope_table, " and a rotary scaling; which one holds is not known");
  const auto count = static_cast<std::size_t>(config.head_dim / 2);
  if (table->dtype != "F32" || table->shape != Shape{config.head_dim / 2})
    fail(where, ": tensor \"", gguf_rope_table, "\" is ", table->dtype, ' ', text(table->shape), ", expected F32 [", count, ']');
  std::vector<float> divisors(count);
  to_float(DType::f32, file.bytes(*table), divisors);
  config.rope.kind = RopeKind::divisors;
  config.rope.divisors.assign(divisors.begin(), divisors.end());
}

}  // namespace detail

/// The configuration that a GGUF file describes. Biases and a tied head follow from the tensors that are there. Errors name file and key.
inline ModelConfig read_gguf_config(const GgufFile& file) {
  const GgufMetadata& meta = file.metadata();
  const std::string& where = file.path();
  const std::string architecture = meta.text("general.architecture");
  const auto key = [&](const char* name) { return architecture + "." + name; };
  ModelConfig config;
  if (architecture == "llama")
    config.family = Family::llama;
  else if (architecture == "qwen2")
    config.family = Family::qwen2;
  else if (architecture == "qwen3")
    config.family = Family::qwen3;
  else
    fail(where, ": GGUF architecture \"", architecture, "\" is not supported; supported are llama, qwen2 and qwen3");
  if (meta.integer(key("expert_count"), 0) > 1) fail(where, ": ", key("expert_count"), ": mixtures of experts are not supported");
  for (const char* scale : {"attention.scale", "logit_scale", "embedding_scale", "residual_scale", "attention.clamp_kqv",
                            "attention.max_alibi_bias", "attn_logit_softcapping", "final_logit_softcapping"})
    if (const double value = meta.real(key(scale), 0.0); value != 0.0 && value != 1.0)
      fail(where, ": ", key(scale), ' ', value, " changes the computation and is not supported");

  const StoredTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) fail(where, ": no matrix \"token_embd.weight\"");
  config.vocab = embedding->shape[0];
  config.hidden = meta.integer(key("embedding_length"));
  config.ffn = meta.integer(key("feed_forward_length"));
  config.layers = meta.integer(key("block_count"));
  config.heads = meta.integer(key("attention.head_count"));
  config.kv_heads = meta.integer(key("attention.head_count_kv"), config.heads);
  config.max_positions = meta.integer(key("context_length"));
  config.norm_eps = meta.real(key("attention.layer_norm_rms_epsilon"));
  config.embedding_dim = config.hidden;
  config.head_dim = meta.integer(key("attention.key_length"), config.heads > 0 ? config.hidden / config.heads : 0);
  if (const auto value = meta.integer(key("attention.value_length"), config.head_dim); value != config.head_dim)
    fail(where, ": values of size ", value, " beside keys of size ", config.head_dim, " are not supported");
  if (!meta.has(key("attention.key_length")) && config.heads > 0 && config.hidden % config.heads != 0)
    fail(where, ": ", key("embedding_length"), ' ', config.hidden, " is not a multiple of ", config.heads, " heads, and ",
         key("attention.key_length"), " is missing");
  const auto has = [&](const char* name) { return file.find(name) != nullptr; };
  config.qkv_bias = has("blk.0.attn_q.bias");
  config.out_bias = has("blk.0.attn_output.bias");
  config.mlp_bias = has("blk.0.ffn_down.bias");
  config.qk_norm = config.family == Family::qwen3;
  config.tied = !has("output.weight");
  if (const std::int64_t window = meta.integer(key("attention.sliding_window"), 0); window != 0) {
    if (config.family != Family::llama) fail(where, ": ", key("attention.sliding_window"), " is supported for llama only");
    if (config.layers > 0 && config.layers <= 4096) config.windows.assign(static_cast<std::size_t>(config.layers), window);
  }
  config.bos = meta.integer("tokenizer.ggml.bos_token_id", -1);
  if (meta.has("tokenizer.ggml.eos_token_id")) config.eos = {meta.integer("tokenizer.ggml.eos_token_id")};
  detail::read_gguf_rope(file, key, config);
  check(config, where);
  return config;
}

}  // namespace ptq::io
