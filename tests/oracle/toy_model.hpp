// The small LLaMA and OPT models of the golden files, as models.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include <ptq/model/transformer.hpp>

#include "golden.hpp"

namespace ptq::test {

/// Settings of the toys: what the file does not say follows the conventions of its README.
inline ModelConfig toy_config(const io::Hdf5Reader& file, Family family, int64_t blocks = 0) {
  const auto size = [&](const char* name) { return file.attribute<int64_t>("/", name); };
  const auto known = file.attributes("/");
  const auto has = [&](const char* name) { return std::find(known.begin(), known.end(), name) != known.end(); };
  ModelConfig c;
  c.family = family;
  c.vocab = has("vocab") ? size("vocab") : 8, c.hidden = size("hidden"), c.ffn = size("ffn");
  c.layers = blocks > 0 ? blocks : size("blocks");
  c.heads = size("heads"), c.kv_heads = has("kv_heads") ? size("kv_heads") : c.is_opt() ? c.heads : size("kv_heads_llama");
  c.head_dim = c.hidden / c.heads, c.embedding_dim = c.hidden;
  c.max_positions = size("tokens");
  c.norm_eps = c.is_opt() ? 1e-5 : 1e-6;
  c.activation = c.is_opt() ? Activation::relu : Activation::silu;
  c.qkv_bias = c.out_bias = c.mlp_bias = c.is_opt();
  return c;
}

/// The model over <root>in/weights/<module>/<parameter>, whose modules lack the prefix of Hugging Face files. With `blocks`, of a file that
/// holds blocks only: what is around them is zero.
inline Transformer toy_model(const std::shared_ptr<const io::Hdf5Reader>& file, Family family, at::ScalarType dtype,
                             const std::string& root = "", int64_t blocks = 0) {
  const ModelConfig config = toy_config(*file, family, blocks);
  const auto place = [prefix = model_prefix(config), root](std::string name) {
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
    name[name.rfind('.')] = '/';
    return root + "in/weights/" + name;
  };
  if (blocks > 0) {
    const auto around = [=](const std::string& name) { return name.find("layers.") == std::string::npos; };
    return Transformer(config,
                       {[=](const std::string& name) { return around(name) || file->exists(place(name)); },
                        [=](const std::string& name, at::IntArrayRef shape) {
                          return around(name) ? at::zeros(shape, at::kFloat) : io::get(*file, place(name));
                        }},
                       dtype);
  }
  return Transformer(config,
                     {[=](const std::string& name) { return file->exists(place(name)); },
                      [=](const std::string& name, at::IntArrayRef) { return io::get(*file, place(name)); }},
                     dtype);
}

}  // namespace ptq::test
