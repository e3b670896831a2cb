// A model of a few thousand weights that lives in memory: LLaMA with grouped heads, or OPT.
#pragma once

#include <ptq/model/transformer.hpp>
#include <ptq/quantize.hpp>

namespace ptq::test {

inline ModelConfig tiny_config(Family family) {
  ModelConfig c;
  c.family = family;
  c.vocab = 40, c.hidden = c.embedding_dim = 32, c.ffn = 48, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 8,
  c.max_positions = 64;
  if (c.is_opt()) c.kv_heads = 4, c.activation = Activation::relu, c.qkv_bias = c.out_bias = c.mlp_bias = true;
  return c;
}

/// Weights follow from the seed and the tensor's name.
inline Transformer tiny_model(Family family, at::ScalarType dtype = at::kFloat, uint64_t seed = 1) {
  const ModelConfig config = tiny_config(family);
  const auto weights = std::make_shared<NamedTensors>();
  at::manual_seed(seed);
  for (const auto& t : io::model_tensors(config)) {
    Tensor w = at::randn(t.shape, at::kDouble);
    const bool norm = t.name.find("norm") != std::string::npos, bias = t.name.ends_with("bias");
    if (norm && !bias)
      w = 1 + 0.3 * w, w[3] = 6;  // an outlier channel
    else
      w = w * (bias ? 0.1 : 0.25);
    (*weights)[t.name] = w;
  }
  return Transformer(
      config,
      {[=](const std::string& n) { return weights->count(n) > 0; }, [=](const std::string& n, at::IntArrayRef) { return weights->at(n); }},
      dtype);
}

inline Tensor tiny_tokens(int64_t sequences = 4, int64_t length = 24, uint64_t seed = 2) {
  at::manual_seed(seed);
  return at::randint(0, 40, {sequences, length}, at::kLong);
}

/// Keeps what a walk commits.
struct Kept : CommitSink {
  std::vector<QuantizedBlock> blocks;
  std::vector<BlockReport> reports;
  std::vector<Tensor> streams;
  void commit(int64_t, const QuantizedBlock& b, const Tensor& stream, const BlockReport& r) override {
    blocks.push_back(b), reports.push_back(r), streams.push_back(stream.clone());
  }
};

inline Kept walk(const Transformer& model, const Stages& stages, const Precision& precision, const Tensor& tokens, uint64_t seed = 0) {
  ComputedReference reference(model, tokens, 4096);
  Kept kept;
  Walk how;
  how.precision = precision, how.seed = seed;
  (void)quantize(stages, model, tokens, reference, kept, how);
  return kept;
}

inline Scheme weights(const std::string& text) { return Scheme::parse(text, "weights", Role::weight); }
inline Scheme activations(const std::string& text) { return Scheme::parse(text, "activations", Role::activation); }

inline Precision formats(const std::string& weight, const std::string& activation = "none") {
  Precision p;
  p.weights = weights(weight), p.activations = activations(activation);
  return p;
}

}  // namespace ptq::test
