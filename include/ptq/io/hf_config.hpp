// Hugging Face config.json: which model it describes, with the defaults that transformers gives to fields left out.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/config_fields.hpp>
#include <ptq/io/hf_rope.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/model_config.hpp>

namespace ptq::io {

namespace detail {

/// What transformers assumes for a field that a file leaves out (it leaves out what equals the default).
struct FamilyDefaults {
  Family family;
  std::string_view model_type, stem;                                                  ///< classes are named <stem>ForCausalLM
  std::int64_t vocab, hidden, ffn, layers, heads, kv_heads, max_positions, bos, eos;  ///< kv_heads 0: as heads; ids -1: none
};

inline constexpr std::array<FamilyDefaults, 5> families{{
    {Family::llama, "llama", "llama", 32000, 4096, 11008, 32, 32, 0, 2048, 1, 2},
    {Family::mistral, "mistral", "mistral", 32000, 4096, 14336, 32, 32, 8, 131072, 1, 2},
    {Family::qwen2, "qwen2", "qwen2", 151936, 4096, 22016, 32, 32, 32, 32768, -1, -1},
    {Family::qwen3, "qwen3", "qwen3", 151936, 4096, 22016, 32, 32, 32, 32768, -1, -1},
    {Family::opt, "opt", "opt", 50272, 768, 3072, 12, 12, 0, 2048, 2, 2},
}};

inline std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// The family that model_type or, without it, the class name in architectures names; anything else is refused by its name.
inline const FamilyDefaults& family_of(const ConfigFields& fields) {
  const auto type = fields.text("model_type");
  const auto classes = fields.texts("architectures");
  const std::string shown = type ? *type : (classes.empty() ? "?" : classes.front());
  for (const FamilyDefaults& known : families) {
    const std::string causal = std::string(known.stem) + "forcausallm", base = std::string(known.stem) + "model";
    const auto fits = [&](const std::string& name) { return lower(name) == causal || lower(name) == base; };
    if (type ? *type != known.model_type : classes.empty() || !fits(classes.front())) continue;
    if (classes.empty() || std::any_of(classes.begin(), classes.end(), fits)) return known;
    fail(fields.where(), ": architecture \"", classes.front(), "\" is no causal language model of type ", *type, "; supported are ",
         "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM and OPTForCausalLM");
  }
  if (!type && classes.empty()) fail(fields.where(), ": neither model_type nor architectures says what model this is");
  fail(fields.where(), ": model type \"", shown, "\" is not supported; supported are llama, mistral, qwen2, qwen3 and opt");
}

inline Activation activation_named(const std::string& name, const ConfigFields& fields) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  fail(fields.where(), ": activation \"", name, "\" is not supported; supported are silu, relu, gelu and gelu_new");
}

/// Qwen: a window only with use_sliding_window, in the blocks that layer_types names or, without it, from max_window_layers on.
inline std::vector<std::int64_t> qwen_windows(const ConfigFields& fields, std::int64_t layers) {
  const bool used = fields.flag("use_sliding_window").value_or(false);
  const std::int64_t window =
      !used ? 0 : (fields.has("sliding_window") ? fields.integer("sliding_window").value_or(0) : std::int64_t{4096});
  const auto types = fields.texts("layer_types");
  std::vector<std::int64_t> windows;
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "sliding_attention")
      fail(fields.where(), ": layer_types names \"", type, "\"; supported are full_attention and sliding_attention");
    if (type == "sliding_attention" && window == 0)
      fail(fields.where(), ": layer_types names sliding_attention, but sliding_window is not set or use_sliding_window is false");
    windows.push_back(type == "sliding_attention" ? window : 0);
  }
  if (types.empty() && window != 0) {
    const std::int64_t first = std::max<std::int64_t>(0, fields.integer("max_window_layers").value_or(28));
    for (std::int64_t i = 0; i < layers; ++i) windows.push_back(i >= first ? window : 0);
  }
  return windows;
}

inline void read_opt(const ConfigFields& fields, ModelConfig& config) {
  config.ffn = fields.integer("ffn_dim").value_or(3072);
  config.kv_heads = config.heads;
  config.activation = activation_named(fields.text("activation_function").value_or("relu"), fields);
  config.embedding_dim = fields.integer("word_embed_proj_dim").value_or(config.hidden);
  config.pre_norm = fields.flag("do_layer_norm_before").value_or(true);
  config.final_norm = config.pre_norm && !fields.flag("_remove_final_layer_norm").value_or(false);
  config.norm_affine = fields.flag("layer_norm_elementwise_affine").value_or(true);
  config.qkv_bias = config.out_bias = config.mlp_bias = fields.flag("enable_bias").value_or(true);
  config.norm_eps = 1e-5;  // not in the file: PyTorch's default
  if (config.heads > 0) config.head_dim = config.hidden / config.heads;
}

inline void read_llama_like(const ConfigFields& fields, const FamilyDefaults& usual, ModelConfig& config) {
  config.ffn = fields.integer("intermediate_size").value_or(usual.ffn);
  const bool left_out = !fields.has("num_key_value_heads") && usual.kv_heads != 0;
  config.kv_heads = fields.integer("num_key_value_heads").value_or(left_out ? usual.kv_heads : config.heads);
  config.activation = activation_named(fields.text("hidden_act").value_or("silu"), fields);
  config.norm_eps = fields.real("rms_norm_eps").value_or(1e-6);
  config.embedding_dim = config.hidden;
  const bool bias = fields.flag("attention_bias").value_or(false);
  config.qkv_bias = config.family == Family::qwen2 || (bias && config.family != Family::mistral);
  config.out_bias = bias && (config.family == Family::llama || config.family == Family::qwen3);
  config.mlp_bias = config.family == Family::llama && fields.flag("mlp_bias").value_or(false);
  config.qk_norm = config.family == Family::qwen3;
  if (const auto size = fields.integer("head_dim")) {
    config.head_dim = *size;
  } else if (config.family == Family::qwen3 && !fields.has("head_dim")) {
    config.head_dim = 128;
  } else if (config.heads > 0) {
    if (config.hidden % config.heads != 0)
      fail(fields.where(), ": hidden_size ", config.hidden, " is not a multiple of num_attention_heads ", config.heads,
           " and head_dim is not given");
    config.head_dim = config.hidden / config.heads;
  }
  if (config.family == Family::mistral) {
    const std::int64_t window = fields.has("sliding_window") ? fields.integer("sliding_window").value_or(0) : 4096;
    if (window != 0 && config.layers > 0) config.windows.assign(static_cast<std::size_t>(config.layers), window);
  } else if (config.family != Family::llama) {
    config.windows = qwen_windows(fields, config.layers);
  }
  read_rope(fields, config);
}

}  // namespace detail

/// Reads a parsed config.json. Unknown fields are normal; what cannot be computed here (another architecture, experts, weights already
/// quantized, an unknown rotary scaling) is refused by its name. Errors begin with `where`, the file.
inline ModelConfig read_hf_config(const json& document, const std::string& where) {
  const ConfigFields fields(document, where);
  if (const json* quantized = fields.find("quantization_config"); quantized != nullptr) {
    const bool named = quantized->is_object() && quantized->contains("quant_method") && (*quantized)["quant_method"].is_string();
    fail(where, ": quantization_config: the weights are already quantized (",
         named ? (*quantized)["quant_method"].get<std::string>() : std::string("method not named"), "); give the full-precision model");
  }
  const detail::FamilyDefaults& usual = detail::family_of(fields);
  for (const char* field : {"num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size"})
    if (fields.integer(field).value_or(0) > 1) fail(where, ": ", field, ": mixtures of experts are not supported");

  ModelConfig config;
  config.family = usual.family;
  config.vocab = fields.integer("vocab_size").value_or(usual.vocab);
  config.hidden = fields.integer("hidden_size").value_or(usual.hidden);
  config.layers = fields.integer("num_hidden_layers").value_or(usual.layers);
  config.heads = fields.integer("num_attention_heads").value_or(usual.heads);
  config.max_positions = fields.integer("max_position_embeddings").value_or(usual.max_positions);
  if (config.layers > 4096) fail(where, ": num_hidden_layers is ", config.layers, "; it must lie between 1 and 4096");
  config.tied = fields.flag("tie_word_embeddings").value_or(config.is_opt());
  config.bos = fields.has("bos_token_id") ? fields.integer("bos_token_id").value_or(-1) : usual.bos;
  if (fields.has("eos_token_id"))
    config.eos = fields.integers("eos_token_id");
  else if (usual.eos >= 0)
    config.eos = {usual.eos};
  if (config.is_opt())
    detail::read_opt(fields, config);
  else
    detail::read_llama_like(fields, usual, config);
  check(config, where);
  return config;
}

}  // namespace ptq::io
