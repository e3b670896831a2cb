// config.json of an exported model: the original carried along, or written from the configuration where there was none.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include <ptq/core/error.hpp>
#include <ptq/export/plain_block.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/model_config.hpp>

namespace ptq {

namespace detail {

/// "LlamaForCausalLM"
[[nodiscard]] inline std::string class_name(Family family) {
  switch (family) {
    case Family::llama:
      return "LlamaForCausalLM";
    case Family::mistral:
      return "MistralForCausalLM";
    case Family::qwen2:
      return "Qwen2ForCausalLM";
    case Family::qwen3:
      return "Qwen3ForCausalLM";
    case Family::opt:
      return "OPTForCausalLM";
  }
  fail("unknown family");
}

/// The llama3 scaling whose divisors a GGUF file stores as a table: the inverse of its definition, with the two bounds 1 and 4 of all
/// published models. Per frequency f, k = clamp((L f / 2π − 1) / 3, 0, 1), divisor = 1 / ((1 − k) / factor + k).
[[nodiscard]] inline RopeScaling llama3_of_divisors(const ModelConfig& config) {
  const auto& divisors = config.rope.divisors;
  RopeScaling found{RopeKind::llama3, *std::max_element(divisors.begin(), divisors.end()), 1.0, 4.0};
  for (found.original = 32; found.original <= std::int64_t{1} << 24; found.original *= 2) {
    bool same = true;
    for (std::size_t i = 0; i < divisors.size() && same; ++i) {
      const double f = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
      const double keep = std::clamp((static_cast<double>(found.original) * f / (2 * std::numbers::pi) - 1) / 3, 0.0, 1.0);
      same = std::abs(divisors[i] * ((1 - keep) / found.factor + keep) - 1) < 1e-5;
    }
    if (same) return found;
  }
  refuse(
      "an export needs the rotary scaling by name, but the GGUF file only has its table rope_freqs.weight, and that is not the table of a "
      "llama3 "
      "scaling with low_freq_factor 1 and high_freq_factor 4; convert from the Hugging Face folder instead");
}

/// Rotary settings in the spelling of transformers before 5 (rope_theta, rope_scaling) and since (rope_parameters).
inline void put_rope(io::json& document, const ModelConfig& config) {
  const RopeScaling& r = config.rope;
  io::json scaling = nullptr;
  if (r.kind != RopeKind::none) scaling = {{"rope_type", name(r.kind)}, {"type", name(r.kind)}, {"factor", r.factor}};
  if (r.kind == RopeKind::llama3)
    scaling.update({{"low_freq_factor", r.low}, {"high_freq_factor", r.high}, {"original_max_position_embeddings", r.original}});
  io::json parameters = scaling.is_null() ? io::json{{"rope_type", "default"}} : scaling;
  parameters.erase("type");
  parameters["rope_theta"] = config.rope_theta;
  document["rope_theta"] = config.rope_theta;
  document["rope_scaling"] = std::move(scaling);
  document["rope_parameters"] = std::move(parameters);
}

/// What a Hugging Face file would say of this model, all of it.
[[nodiscard]] inline io::json described(const ModelConfig& c) {
  const auto optional = [](std::int64_t id) { return id < 0 ? io::json(nullptr) : io::json(id); };
  io::json d = {{"vocab_size", c.vocab},
                {"hidden_size", c.hidden},
                {"num_hidden_layers", c.layers},
                {"num_attention_heads", c.heads},
                {"max_position_embeddings", c.max_positions},
                {"attention_dropout", 0.0},
                {"use_cache", true},
                {"bos_token_id", optional(c.bos)},
                {"eos_token_id", c.eos.empty()       ? io::json(nullptr)
                                 : c.eos.size() == 1 ? io::json(c.eos.front())
                                                     : io::json(c.eos)}};
  const std::string act = c.activation == Activation::gelu_tanh ? "gelu_pytorch_tanh" : std::string(name(c.activation));
  if (c.is_opt()) {
    d.update({{"ffn_dim", c.ffn},
              {"activation_function", act},
              {"word_embed_proj_dim", c.embedding_dim},
              {"do_layer_norm_before", c.pre_norm},
              {"_remove_final_layer_norm", c.pre_norm && !c.final_norm},
              {"layer_norm_elementwise_affine", c.norm_affine}});
    return d;
  }
  d.update({{"intermediate_size", c.ffn},
            {"num_key_value_heads", c.kv_heads},
            {"head_dim", c.head_dim},
            {"hidden_act", act},
            {"rms_norm_eps", c.norm_eps},
            {"initializer_range", 0.02}});
  if (c.family == Family::mistral) d["sliding_window"] = c.window(0) == 0 ? io::json(nullptr) : io::json(c.window(0));
  if (c.family == Family::qwen2 || c.family == Family::qwen3) d["use_sliding_window"] = false;
  return d;
}

}  // namespace detail

/// The configuration of what is written: the architecture that has a place for every number, a head of its own where one is given.
/// Refuses, with the reason, where no such architecture exists. `from_gguf`: the class is ours to choose.
[[nodiscard]] inline ModelConfig exported_config(ModelConfig c, const BlockSurvey& blocks, bool own_head, bool from_gguf) {
  if (own_head) c.tied = false;
  c.qkv_bias |= blocks.qkv_bias, c.out_bias |= blocks.out_bias, c.mlp_bias |= blocks.mlp_bias;
  if (c.rope.kind == RopeKind::divisors) c.rope = detail::llama3_of_divisors(c);
  if (from_gguf && c.family == Family::llama && !c.windows.empty()) c.family = Family::mistral;  // LlamaForCausalLM knows no window
  const auto without = [&](bool needed, const char* what) {
    if (needed)
      refuse("the quantized model needs biases of ", what, ", and ", detail::class_name(c.family),
             " has no place for them: a plain export cannot hold this model");
  };
  switch (c.family) {
    case Family::llama:
      c.qkv_bias = c.out_bias = c.qkv_bias || c.out_bias;  // attention_bias means all four
      break;
    case Family::qwen3:
      c.qkv_bias = c.out_bias = c.qkv_bias || c.out_bias;
      without(c.mlp_bias, "the feed-forward");
      break;
    case Family::mistral:
      without(c.qkv_bias || c.out_bias, "the attention");
      without(c.mlp_bias, "the feed-forward");
      break;
    case Family::qwen2:
      c.qkv_bias = true;
      without(c.out_bias, "the attention's output");
      without(c.mlp_bias, "the feed-forward");
      break;
    case Family::opt:
      c.qkv_bias = c.out_bias = c.mlp_bias = c.qkv_bias || c.out_bias || c.mlp_bias;
      break;
  }
  return c;
}

/// The text of config.json. `original` is the parsed file of the source (its other fields are kept), null for a GGUF source.
[[nodiscard]] inline std::string config_text(const ModelConfig& c, io::DType dtype, io::json original = nullptr) {
  io::json d = original.is_object() ? std::move(original) : detail::described(c);
  for (const char* gone : {"quantization_config", "compression_config", "auto_map", "_name_or_path"}) d.erase(gone);
  d["architectures"] = {detail::class_name(c.family)};
  d["model_type"] = name(c.family);
  d["tie_word_embeddings"] = c.tied;
  const char* stored = dtype == io::DType::f32 ? "float32" : dtype == io::DType::bf16 ? "bfloat16" : "float16";
  d["dtype"] = d["torch_dtype"] = stored;  // since and before transformers 4.56
  if (c.is_opt()) {
    d["enable_bias"] = c.qkv_bias;
  } else {
    detail::put_rope(d, c);
    if (c.family == Family::llama || c.family == Family::qwen3) d["attention_bias"] = c.qkv_bias;
    if (c.family == Family::llama) d["mlp_bias"] = c.mlp_bias;
  }
  return d.dump(2) + "\n";
}

}  // namespace ptq
