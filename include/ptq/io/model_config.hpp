// What a model is: sizes, biases, norms, rotary embedding, attention windows. Plain data, whatever file it was read from.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq {

/// Architectures that the models understand; anything else is refused by name.
enum class Family { llama, mistral, qwen2, qwen3, opt };

/// Nonlinearity of the feed-forward; `gelu_tanh` is the tanh approximation (gelu_new, gelu_pytorch_tanh).
enum class Activation { silu, relu, gelu, gelu_tanh };

/// How the rotary frequencies f_i = theta^(-2i/d) are stretched; see `RopeScaling`.
enum class RopeKind { none, linear, dynamic, llama3, divisors };

/// Stretching of rotary frequencies. `linear`: f / factor. `dynamic`: the base grows with lengths above `original`.
/// `llama3`: by wavelength w = 2 pi / f, at every length: unchanged below original / high, f / factor above original / low, blended
/// between. `divisors`: f_i / divisors[i], the table that GGUF files store as rope_freqs.weight.
struct RopeScaling {
  RopeKind kind = RopeKind::none;
  double factor = 1.0;
  double low = 1.0;                ///< low_freq_factor
  double high = 4.0;               ///< high_freq_factor
  std::int64_t original = 0;       ///< context of the first training: original_max_position_embeddings (dynamic: max_position_embeddings)
  std::vector<double> divisors{};  ///< [head_dim / 2], only for `RopeKind::divisors`
};

/// Everything a forward needs besides the weights. Sizes count elements.
struct ModelConfig {
  Family family = Family::llama;
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;       ///< divides `heads`
  std::int64_t head_dim = 0;       ///< heads * head_dim may differ from hidden (not for OPT)
  std::int64_t max_positions = 0;  ///< longest sequence; OPT's position table has two rows more
  double norm_eps = 1e-5;
  Activation activation = Activation::silu;
  bool tied = false;      ///< the head is the token embedding
  bool qkv_bias = false;  ///< biases of q, k and v
  bool out_bias = false;  ///< bias of the attention's output projection
  bool mlp_bias = false;  ///< biases of all feed-forward linears
  bool qk_norm = false;   ///< Qwen3: RMS norm over head_dim of each query and key head, before the rotary embedding

  double rope_theta = 10000.0;
  RopeScaling rope{};
  std::vector<std::int64_t> windows{};  ///< a block: query t sees keys s with t - s < window; 0 sees all; an empty list means all zero

  // OPT alone.
  bool pre_norm = true;            ///< do_layer_norm_before; false normalises after each residual sum (350m)
  bool final_norm = true;          ///< a norm before the head: pre_norm and not _remove_final_layer_norm
  bool norm_affine = true;         ///< layer_norm_elementwise_affine: norms own weight and bias
  std::int64_t embedding_dim = 0;  ///< word_embed_proj_dim; project_in and project_out exist when it differs from hidden

  std::int64_t bos = -1;  ///< -1: none named
  std::vector<std::int64_t> eos{};

  /// Attention window of a block, 0 when it sees everything.
  [[nodiscard]] std::int64_t window(std::int64_t layer) const { return windows.empty() ? 0 : windows.at(static_cast<std::size_t>(layer)); }
  /// OPT normalises with mean and bias and adds learned positions; the others use RMS norm and rotary positions.
  [[nodiscard]] bool is_opt() const noexcept { return family == Family::opt; }
  [[nodiscard]] bool projected_embedding() const noexcept { return embedding_dim != hidden; }
};

[[nodiscard]] constexpr std::string_view name(Family family) noexcept {
  switch (family) {
    case Family::llama:
      return "llama";
    case Family::mistral:
      return "mistral";
    case Family::qwen2:
      return "qwen2";
    case Family::qwen3:
      return "qwen3";
    case Family::opt:
      return "opt";
  }
  return "?";
}

[[nodiscard]] constexpr std::string_view name(RopeKind kind) noexcept {
  switch (kind) {
    case RopeKind::none:
      return "none";
    case RopeKind::linear:
      return "linear";
    case RopeKind::dynamic:
      return "dynamic";
    case RopeKind::llama3:
      return "llama3";
    case RopeKind::divisors:
      return "divisors";
  }
  return "?";
}

[[nodiscard]] constexpr std::string_view name(Activation activation) noexcept {
  switch (activation) {
    case Activation::silu:
      return "silu";
    case Activation::relu:
      return "relu";
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_tanh";
  }
  return "?";
}

/// Refuses numbers no forward could use: zero, negative or absurd sizes, heads that do not divide, an odd rotary width.
/// Errors begin with `where` (the file) and name the field as Hugging Face spells it.
inline void check(const ModelConfig& c, const std::string& where) {
  const auto size = [&](const char* field, std::int64_t value, std::int64_t most) {
    if (value < 1 || value > most) fail(where, ": ", field, " is ", value, "; it must lie between 1 and ", most);
  };
  size("vocab_size", c.vocab, std::int64_t{1} << 24);
  size("hidden_size", c.hidden, std::int64_t{1} << 18);
  size(c.is_opt() ? "ffn_dim" : "intermediate_size", c.ffn, std::int64_t{1} << 20);
  size("num_hidden_layers", c.layers, 4096);
  size("num_attention_heads", c.heads, 1 << 14);
  size("num_key_value_heads", c.kv_heads, 1 << 14);
  size("head_dim", c.head_dim, 1 << 14);
  size("max_position_embeddings", c.max_positions, std::int64_t{1} << 32);
  size("word_embed_proj_dim", c.embedding_dim, std::int64_t{1} << 18);
  if (c.heads % c.kv_heads != 0) fail(where, ": num_attention_heads ", c.heads, " is not a multiple of num_key_value_heads ", c.kv_heads);
  if (!(std::isfinite(c.norm_eps) && c.norm_eps > 0 && c.norm_eps < 1))
    fail(where, ": the norm's epsilon is ", c.norm_eps, "; it must lie between 0 and 1");
  if (!c.windows.empty() && static_cast<std::int64_t>(c.windows.size()) != c.layers)
    fail(where, ": ", c.windows.size(), " attention windows (layer_types) for num_hidden_layers ", c.layers);
  if (std::any_of(c.windows.begin(), c.windows.end(), [](std::int64_t w) { return w < 0; }))
    fail(where, ": sliding_window is negative; null means full attention");
  if (c.is_opt()) {
    if (c.kv_heads != c.heads || c.heads * c.head_dim != c.hidden)
      fail(where, ": hidden_size ", c.hidden, " is not num_attention_heads ", c.heads, " times a head size");
    return;
  }
  if (c.projected_embedding()) fail(where, ": word_embed_proj_dim ", c.embedding_dim, " differs from hidden_size; only OPT projects");
  if (c.head_dim % 2 != 0) fail(where, ": head_dim ", c.head_dim, " is odd; rotary embedding turns pairs");
  if (!(std::isfinite(c.rope_theta) && c.rope_theta > 0)) fail(where, ": rope_theta is ", c.rope_theta, "; it must be positive");
  const RopeScaling& r = c.rope;
  if (r.kind == RopeKind::none) return;
  if (r.kind == RopeKind::divisors) {
    if (static_cast<std::int64_t>(r.divisors.size()) * 2 != c.head_dim)
      fail(where, ": ", r.divisors.size(), " rotary divisors for head_dim ", c.head_dim);
    if (!std::all_of(r.divisors.begin(), r.divisors.end(), [](double v) { return std::isfinite(v) && v > 0; }))
      fail(where, ": a rotary divisor is not a positive number");
    return;
  }
  if (!(std::isfinite(r.factor) && r.factor >= 1)) fail(where, ": rope scaling factor is ", r.factor, "; it must be at least 1");
  if (r.kind != RopeKind::linear) size("original_max_position_embeddings", r.original, std::int64_t{1} << 32);
  if (r.kind == RopeKind::llama3 && !(std::isfinite(r.high) && r.low > 0 && r.high > r.low))
    fail(where, ": rope scaling llama3 needs 0 < low_freq_factor < high_freq_factor, not ", r.low, " and ", r.high);
}

}  // namespace ptq
