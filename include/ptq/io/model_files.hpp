// A model on disk, whatever its container: which files, which configuration, and where the bytes of each canonical tensor lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>
#include <ptq/io/gguf.hpp>
#include <ptq/io/gguf_config.hpp>
#include <ptq/io/hf_config.hpp>
#include <ptq/io/hf_folder.hpp>
#include <ptq/io/model_config.hpp>
#include <ptq/io/model_tensors.hpp>
#include <ptq/io/safetensors_shards.hpp>

namespace ptq::io {

/// Bytes of one tensor in a mapped file.
struct StoredWeight {
  StoredTensor tensor{};  ///< under its canonical name
  std::string file{};
  std::span<const std::byte> bytes{};  ///< not necessarily aligned
  const GgmlType* ggml = nullptr;      ///< block type; null in safetensors
  std::int64_t interleaved_heads = 0;  ///< rows are in GGUF's rotary order within this many heads; 0: in Hugging Face's order
};

/// An opened model. Every tensor that the forward reads is there and has the shape that the configuration asks for.
class ModelFiles {
 public:
  /// Opens a .gguf file, a Hugging Face folder (one or many safetensors files), or a .safetensors or .index.json file with config.json
  /// beside it. Throws, naming file and tensor, when something is missing, broken, unsupported, or would be ignored silently.
  static ModelFiles open(const std::string& path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }
  /// Weight files, then the configuration file (which a GGUF file contains).
  [[nodiscard]] const std::vector<std::string>& files() const noexcept { return files_; }
  [[nodiscard]] const GgufFile* gguf() const noexcept { return gguf_.get(); }  ///< null for safetensors; its vocabulary is in there
  [[nodiscard]] const std::map<std::string, StoredWeight>& weights() const noexcept { return weights_; }
  /// The tensor of that canonical name; throws when the model has none.
  [[nodiscard]] const StoredWeight& at(const std::string& name) const {
    const auto found = weights_.find(name);
    if (found == weights_.end()) fail(path_, ": this ", ptq::name(config_.family), " model has no tensor \"", name, '"');
    return found->second;
  }
  /// Gives back the memory that reading a weight has mapped in.
  void forget(const StoredWeight& weight) const noexcept {
    if (gguf_ != nullptr) return gguf_->forget(weight.tensor);
    for (const SafetensorsFile& file : shards_->files())
      if (file.path() == weight.file) file.forget(weight.tensor);
  }
  /// Identity of weights and configuration: a GGUF file's own SHA-256; else SHA-256 over the names and SHA-256 of files(), in order of
  /// names.
  [[nodiscard]] std::string digest() const {
    if (gguf_ != nullptr) return sha256_file(path_);
    std::map<std::string, std::string> files;
    for (const std::string& file : files_) files.emplace(std::filesystem::path(file).filename().string(), file);
    Sha256 all;
    for (const auto& [name, file] : files) all.field(name, sha256_file(file));
    return all.hex();
  }

 private:
  void open_gguf();
  void open_safetensors(SafetensorsShards shards, const std::string& config_file);
  void add(const NamedShape& expected, StoredWeight weight);

  std::string path_{};
  ModelConfig config_{};
  std::vector<std::string> files_{};
  std::unique_ptr<GgufFile> gguf_{};
  std::unique_ptr<SafetensorsShards> shards_{};
  std::map<std::string, StoredWeight> weights_{};
};

inline void ModelFiles::add(const NamedShape& expected, StoredWeight weight) {
  if (weight.tensor.shape != expected.shape)
    fail(weight.file, ": tensor \"", weight.tensor.name, "\" has shape ", text(weight.tensor.shape), ", the configuration asks for ",
         text(expected.shape));
  weight.tensor.name = expected.name;
  weights_.emplace(expected.name, std::move(weight));
}

namespace detail {

/// A tensor that no forward reads may only lie in the file when leaving it out changes nothing.
inline void refuse_ignored(const std::string& file, const StoredTensor& tensor, std::span<const std::byte> bytes, Family family) {
  const std::string_view name = tensor.name;
  const auto zero = [](std::byte byte) { return byte == std::byte{0}; };
  if (harmless_extra(name) || (name.ends_with(".bias") && std::all_of(bytes.begin(), bytes.end(), zero))) return;
  for (const char* part : {"qweight", "qzeros", "g_idx", "weight_packed", "weight_scale", "absmax", "weight_scale_inv"})
    if (name.ends_with(part)) fail(file, ": tensor \"", name, "\": the weights are already quantized; give the full-precision model");
  fail(file, ": tensor \"", name, "\" has no place in a ", ptq::name(family),
       " model of this configuration; ignoring it would change the results");
}

}  // namespace detail

inline void ModelFiles::open_gguf() {
  gguf_ = std::make_unique<GgufFile>(path_);
  files_ = {path_};
  config_ = read_gguf_config(*gguf_);
  const bool interleaved = config_.family == Family::llama;  // writers reorder q and k of this architecture alone
  std::map<std::string, bool> used{{detail::gguf_rope_table, true}};
  for (const NamedShape& expected : model_tensors(config_)) {
    const std::string theirs = gguf_name(expected.name);
    const StoredTensor* tensor = gguf_->find(theirs);
    if (tensor == nullptr) fail(path_, ": tensor \"", theirs, "\" (", expected.name, ") is missing");
    used.emplace(theirs, true);
    StoredWeight weight{*tensor, path_, gguf_->bytes(*tensor), ggml_type(tensor->dtype), 0};
    const auto of = [&](const char* part) { return interleaved && expected.name.find(part) != std::string::npos; };
    if (of("self_attn.q_proj.")) weight.interleaved_heads = config_.heads;
    if (of("self_attn.k_proj.")) weight.interleaved_heads = config_.kv_heads;
    add(expected, std::move(weight));
  }
  for (const StoredTensor& tensor : gguf_->tensors())
    if (!used.contains(tensor.name)) detail::refuse_ignored(path_, tensor, gguf_->bytes(tensor), config_.family);
}

inline void ModelFiles::open_safetensors(SafetensorsShards shards, const std::string& config_file) {
  shards_ = std::make_unique<SafetensorsShards>(std::move(shards));
  config_ = read_hf_config(read_json(config_file), config_file);
  for (const SafetensorsFile& file : shards_->files()) files_.push_back(file.path());
  files_.push_back(config_file);
  const std::string where = shards_->index().empty() ? files_.front() : shards_->index();

  const auto prefixes = known_prefixes(config_);
  const auto there = [&](const std::string& prefix) { return shards_->find(prefix + "embed_tokens.weight").tensor != nullptr; };
  const auto prefix = std::find_if(prefixes.begin(), prefixes.end(), there);
  if (prefix == prefixes.end())
    fail(where, ": no token embedding; looked for \"", prefixes.front(),
         "embed_tokens.weight\" and the same without or with other prefixes");
  const auto stored_name = [&](const std::string& name) {
    return name.starts_with(prefixes.front()) ? *prefix + name.substr(prefixes.front().size()) : name;
  };

  const auto head = shards_->find("lm_head.weight"), embedding = shards_->find(stored_name(embedding_name(config_)));
  if (config_.tied && head.tensor != nullptr) {  // the file's head counts only if it differs
    const auto a = head.file->bytes(*head.tensor), b = embedding.file->bytes(*embedding.tensor);
    config_.tied = head.tensor->dtype == embedding.tensor->dtype && head.tensor->shape == embedding.tensor->shape &&
                   std::equal(a.begin(), a.end(), b.begin(), b.end());
    head.file->forget(*head.tensor);
    embedding.file->forget(*embedding.tensor);
  }
  std::map<std::string, bool> used{{"lm_head.weight", true}};
  const auto missing = shards_->missing();
  for (const NamedShape& expected : model_tensors(config_)) {
    const std::string theirs = stored_name(expected.name);
    const auto [file, tensor] = shards_->find(theirs);
    for (const auto& [name, shard] : missing)
      if (name == theirs) fail(where, ": tensor \"", theirs, "\" is not in shard \"", shard, "\", where the index puts it");
    if (tensor == nullptr)
      fail(where, ": tensor \"", theirs, "\" is missing", theirs == "lm_head.weight" ? " although tie_word_embeddings is false" : "");
    used.emplace(theirs, true);
    add(expected, StoredWeight{*tensor, file->path(), file->bytes(*tensor), nullptr, 0});
  }
  for (const SafetensorsFile& file : shards_->files())
    for (const StoredTensor& tensor : file.tensors())
      if (!used.contains(tensor.name)) detail::refuse_ignored(file.path(), tensor, file.bytes(tensor), config_.family);
}

inline ModelFiles ModelFiles::open(const std::string& path) {
  namespace fs = std::filesystem;
  ModelFiles model;
  model.path_ = path;
  if (!fs::exists(path)) refuse(path, ": no such file or folder; a model is a .gguf file or a Hugging Face folder");
  const bool folder = fs::is_directory(path);
  const fs::path config = (folder ? fs::path(path) : fs::path(path).parent_path()) / "config.json";
  const auto needs_config = [&] {
    if (!fs::exists(config)) fail(config.string(), ": missing; a Hugging Face model needs it beside its weights");
  };
  if (folder) {
    SafetensorsShards shards = detail::shards_of(path);
    needs_config();
    model.open_safetensors(std::move(shards), config.string());
    return model;
  }
  std::string magic(4, '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), 4);
  if (magic == "GGUF") {
    model.open_gguf();
  } else if (path.ends_with(".safetensors")) {
    needs_config();
    model.open_safetensors(SafetensorsShards::single(path), config.string());
  } else if (path.ends_with(".safetensors.index.json")) {
    needs_config();
    model.open_safetensors(SafetensorsShards::indexed(path), config.string());
  } else if (detail::is_pickle(path) || magic.starts_with("PK")) {
    detail::refuse_pickle(path);
  } else {
    fail(path, ": neither a GGUF file nor .safetensors; a model is one of these or a Hugging Face folder");
  }
  return model;
}

}  // namespace ptq::io
