// Decoder-only transformers of the LLaMA family and OPT: embedding, one block's forward, head. Weights come a block at a time.
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include <ptq/model/attention.hpp>
#include <ptq/model/likelihood.hpp>
#include <ptq/model/operators.hpp>
#include <ptq/model/parameters.hpp>
#include <ptq/model/rope.hpp>

namespace ptq {

/// The feed-forward's nonlinearity.
[[nodiscard]] inline Tensor activate(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::relu:
      return at::relu(x);
    case Activation::gelu:
      return at::gelu(x, "none");
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
  }
  fail("unknown activation");
}

/// A model as configuration and source of weights; it holds no weights itself.
class Transformer {
 public:
  /// Refuses models it cannot compute exactly, by name, before any forward. Weights are converted to `dtype`, which is also the type
  /// of the activations: float32, float64 or bfloat16.
  Transformer(ModelConfig config, TensorLookup lookup, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU)
      : config_(std::move(config)), options_(at::dtype(dtype).device(device)) {
    check(config_, "configuration");
    if (!at::isFloatingType(dtype)) refuse("a model computes in a floating type, not ", c10::toString(dtype));
    layout_ = ptq::layout(config_);
    require_tensors(config_, lookup);
    lookup_.has = std::move(lookup.has);
    lookup_.load = [load = std::move(lookup.load), options = options_](const std::string& name, at::IntArrayRef shape) {
      const Tensor t = load(name, shape);
      if (t.sizes() != shape) fail("tensor ", name, " is ", shape_text(t), ", the configuration asks for ", shape);
      require_finite(t, name);
      return t.to(options);
    };
  }

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const Layout& layout() const { return layout_; }
  [[nodiscard]] int64_t blocks() const { return config_.layers; }
  [[nodiscard]] const at::TensorOptions& options() const { return options_; }

  [[nodiscard]] BlockParameters load(int64_t block) const { return load_block(config_, layout_, lookup_, block); }
  [[nodiscard]] Embedding load_embedding() const { return ptq::load_embedding(config_, lookup_); }
  [[nodiscard]] Head load_head() const { return ptq::load_head(config_, lookup_); }

  /// ids (batch, tokens) integers → (batch, tokens, hidden).
  [[nodiscard]] Tensor embed(const Embedding& e, const Tensor& ids) const {
    require_ids(ids);
    const Tensor index = ids.to(options_.device(), at::kLong);
    Tensor x = at::embedding(e.tokens, index);  // (batch, tokens, embedding_dim)
    if (e.project_in.defined()) x = affine(x, e.project_in);
    if (e.positions.defined()) x = x + e.positions.narrow(0, position_offset, ids.size(1));
    return x;
  }
  /// The same with the table read from the file and dropped again: give it all windows at once.
  [[nodiscard]] Tensor embed(const Tensor& ids) const {
    require_ids(ids);
    return embed(load_embedding(), ids);
  }

  /// One block. x (batch, tokens, hidden) → the same.
  [[nodiscard]] Tensor forward(int64_t block, const Tensor& x, Operators& ops) const {
    const bool pre = !config_.is_opt() || config_.pre_norm;
    const Tensor a = ops.input(0, pre ? ops.norm(0, x) : x);   // (batch, tokens, hidden)
    const Tensor mixed = ops.input(1, attend(block, a, ops));  // (batch, tokens, heads · head)
    Tensor y = x + ops.linear(site_after_attention, mixed);    // (batch, tokens, hidden)
    if (!pre) y = ops.norm(0, y);
    const Tensor m = ops.input(2, pre ? ops.norm(1, y) : y);  // (batch, tokens, hidden)
    y = y + ops.linear(last_site(), ops.input(3, feed_forward(m, ops)));
    return pre ? y : ops.norm(1, y);
  }

  /// What the head multiplies: the final norm, then OPT's projection. x (…, hidden) → (…, embedding_dim).
  [[nodiscard]] Tensor head_input(const Head& head, const Tensor& x) const {
    Tensor h = head.normalize ? normalize(config_, x, head.norm) : x;
    if (head.project_out.defined()) h = affine(h, head.project_out);
    return head.input ? head.input(h) : h;
  }

  /// x (…, hidden) → (…, vocab). For a few tokens; `nll` needs no logits at hand.
  [[nodiscard]] Tensor logits(const Head& head, const Tensor& x) const { return affine(head_input(head, x), head.weight); }

  /// −ln p of every token but the first, given those before it. x (batch, tokens, hidden), ids (batch, tokens) → (batch, tokens − 1)
  /// double.
  [[nodiscard]] Tensor nll(const Head& head, const Tensor& x, const Tensor& ids) const {
    const at::NoGradGuard no_grad;
    const int64_t predicted = ids.size(1) - 1;
    if (predicted < 1) fail("a window of one token predicts nothing");
    const Tensor h = head_input(head, x).narrow(1, 0, predicted).reshape({-1, head.weight.size(1)});  // (batch · predicted, embedding_dim)
    const Tensor next = ids.narrow(1, 1, predicted).reshape({-1}).to(h.device(), at::kLong);          // (batch · predicted)
    return negative_log_likelihood(h, head.weight, next).view({-1, predicted});
  }

  /// Refuses ids outside the vocabulary and sequences longer than a position table.
  void require_ids(const Tensor& ids) const {
    if (!ids.defined() || ids.dim() != 2 || !at::isIntegralType(ids.scalar_type(), false))
      fail("token ids must be integers (batch, tokens), not ", shape_text(ids));
    if (ids.numel() == 0) fail("no token ids: the text is empty or shorter than one window");
    const auto low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
    if (low < 0 || high >= config_.vocab) fail("token id ", low < 0 ? low : high, " is outside the vocabulary of ", config_.vocab);
    if (config_.is_opt() && ids.size(1) > config_.max_positions)
      fail("a window of ", ids.size(1), " tokens is longer than the model's ", config_.max_positions, " positions");
  }

 private:
  static constexpr int64_t position_offset = 2;  ///< OPT's table begins with two rows for padding
  static constexpr int site_after_attention = 3;

  [[nodiscard]] int last_site() const { return static_cast<int>(layout_.sites.size()) - 1; }

  /// Queries, keys, values, rotary positions, attention. x (batch, tokens, hidden) → (batch, tokens, heads · head).
  [[nodiscard]] Tensor attend(int64_t block, const Tensor& x, Operators& ops) const {
    const int64_t batch = x.size(0), tokens = x.size(1), d = config_.head_dim;
    const auto by_head = [&](int site) { return ops.linear(site, x).reshape({batch, tokens, -1, d}); };
    Tensor q = by_head(layout_.query), k = by_head(layout_.key), v = by_head(layout_.value);  // (batch, tokens, heads, head)
    double scale = 1 / std::sqrt(static_cast<double>(d));
    if (config_.is_opt()) {
      q = q * std::exchange(scale, 1.0);  // so that whoever rounds queries sees what the published code sees
    } else {
      if (config_.qk_norm) q = ops.norm(Layout::query_norm, q), k = ops.norm(Layout::key_norm, k);
      const Rotary& table = positions(tokens);
      q = rotate(q, table), k = rotate(k, table);
    }
    const Tensor y = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), {config_.window(block)}, scale, ops);
    return y.transpose(1, 2).reshape({batch, tokens, config_.heads * d});
  }

  /// Gated for the LLaMA family: act(gate) ⊙ up; OPT: act(fc1). x (batch, tokens, hidden) → (batch, tokens, ffn).
  [[nodiscard]] Tensor feed_forward(const Tensor& x, Operators& ops) const {
    const Tensor first = activate(config_.activation, ops.linear(4, x));
    return config_.is_opt() ? first : first * ops.linear(5, x);
  }

  /// The rotary table of this length; the last one is kept, for windows of one text are of one length.
  [[nodiscard]] const Rotary& positions(int64_t tokens) const {
    if (!rotary_.cos.defined() || rotary_.cos.size(0) != tokens) rotary_ = rotary(config_, tokens, options_);
    return rotary_;
  }

  ModelConfig config_;
  at::TensorOptions options_;
  Layout layout_;
  TensorLookup lookup_;
  mutable Rotary rotary_;
};

}  // namespace ptq
