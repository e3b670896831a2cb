// The small LLaMA and OPT models of the golden files, as models.
#pragma once

#include <memory>
#include <string>

#include <ptq/model/transformer.hpp>

#include "golden.hpp"

namespace ptq::test {

/// Settings of the toys: what the file does not say follows the conventions of its README.
inline ModelConfig toy_config(const io::Hdf5Reader& file, Family family) {
  const auto size = [&](const char* name) { return file.attribute<int64_t>("/", name); };
  ModelConfig c;
  c.family = family;
  c.vocab = size("vocab"), c.hidden = size("hidden"), c.ffn = size("ffn"), c.layers = size("blocks");
  c.heads = size("heads"), c.kv_heads = size("kv_heads"), c.head_dim = c.hidden / c.heads, c.embedding_dim = c.hidden;
  c.max_positions = size("tokens");
  c.norm_eps = c.is_opt() ? 1e-5 : 1e-6;
  c.activation = c.is_opt() ? Activation::relu : Activation::silu;
  c.qkv_bias = c.out_bias = c.mlp_bias = c.is_opt();
  return c;
}

/// The model over in/weights/<module>/<parameter>, whose modules lack the prefix of Hugging Face files.
inline Transformer toy_model(const std::shared_ptr<const io::Hdf5Reader>& file, Family family, at::ScalarType dtype) {
  const ModelConfig config = toy_config(*file, family);
  const auto place = [prefix = model_prefix(config)](std::string name) {
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
    name[name.rfind('.')] = '/';
    return "in/weights/" + name;
  };
  return Transformer(config,
                     {[=](const std::string& name) { return file->exists(place(name)); },
                      [=](const std::string& name, at::IntArrayRef) { return io::get(*file, place(name)); }},
                     dtype);
}

}  // namespace ptq::test
