// Weights of a model as tensors, one at a time, out of GGUF or safetensors. The only header that turns file bytes into tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/core/tensor.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/gguf_dequant.hpp>
#include <ptq/io/model_config.hpp>
#include <ptq/io/model_files.hpp>

namespace ptq::io {

namespace detail {

/// Elements that one thread decodes at least, a few milliseconds of work: waking and awaiting threads for less costs more.
inline constexpr std::int64_t parallel_grain = std::int64_t{1} << 22;

/// Elements of [begin, end), whole blocks, as float.
inline void decode(const StoredWeight& weight, DType plain, std::int64_t begin, std::int64_t end, float* out) {
  const std::span<float> to(out + begin, static_cast<std::size_t>(end - begin));
  const std::uint64_t per_block = weight.ggml != nullptr ? weight.ggml->elements : 1;
  const std::uint64_t width = weight.ggml != nullptr ? weight.ggml->bytes : bits(plain) / 8;
  const auto from = weight.bytes.subspan(static_cast<std::uint64_t>(begin) / per_block * width, to.size() / per_block * width);
  weight.ggml != nullptr ? dequantize(*weight.ggml, from, to) : to_float(plain, from, to);
}

/// Stored floating-point types that ATen has as well: their bytes are copied when no other type is asked for.
[[nodiscard]] inline std::optional<at::ScalarType> tensor_type(const std::string& dtype) {
  if (dtype == "F32") return at::kFloat;
  if (dtype == "F64") return at::kDouble;
  if (dtype == "F16") return at::kHalf;
  if (dtype == "BF16") return at::kBFloat16;
  return std::nullopt;
}

/// Rows 2p and 2p + 1 of a head go to p and p + d/2: GGUF turns neighbouring pairs, Hugging Face halves.
[[nodiscard]] inline Tensor halves_from_pairs(const Tensor& t, std::int64_t heads) {
  const std::int64_t pairs = t.size(0) / heads / 2;
  return t.reshape({heads, pairs, 2, -1}).transpose(1, 2).reshape(t.sizes());  // [heads, pairs, 2, columns]
}

}  // namespace detail

/// A model to load from, a tensor at a time. Names are those of the Hugging Face causal language model whatever the file calls them:
/// "model.layers.0.self_attn.q_proj.weight", "model.decoder.layers.0.fc1.bias", "lm_head.weight" (absent when config().tied).
class Checkpoint {
 public:
  /// See ModelFiles::open.
  static Checkpoint open(const std::string& path) { return Checkpoint(ModelFiles::open(path)); }

  [[nodiscard]] const ModelConfig& config() const noexcept { return files_.config(); }
  [[nodiscard]] const std::string& path() const noexcept { return files_.path(); }
  [[nodiscard]] const std::vector<std::string>& files() const noexcept { return files_.files(); }
  [[nodiscard]] std::string digest() const { return files_.digest(); }           ///< reads all weights once
  [[nodiscard]] const GgufFile* gguf() const noexcept { return files_.gguf(); }  ///< null for safetensors
  [[nodiscard]] bool has(const std::string& name) const { return files_.weights().contains(name); }

  /// All tensors under their canonical names: stored type, shape, bytes.
  [[nodiscard]] std::vector<StoredTensor> tensors() const {
    std::vector<StoredTensor> list;
    for (const auto& [name, weight] : files_.weights()) list.push_back(weight.tensor);
    return list;
  }

  /// A fresh contiguous tensor on the CPU. NaN and infinity in the file are passed on. Throws, naming tensor and file, when the model has
  /// no such tensor or its stored type has no values here.
  [[nodiscard]] Tensor load(const std::string& name, at::ScalarType dtype = at::kFloat) const {
    const StoredWeight& weight = files_.at(name);
    Tensor t = read(weight, dtype);
    if (weight.interleaved_heads != 0) t = detail::halves_from_pairs(t, weight.interleaved_heads);
    files_.forget(weight);
    return t.to(dtype);
  }

  /// The same, for a caller who knows the shape: any other throws, naming tensor, file and both shapes.
  [[nodiscard]] Tensor load(const std::string& name, at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) const {
    const StoredWeight& weight = files_.at(name);
    if (shape != at::IntArrayRef(weight.tensor.shape))
      fail(weight.file, ": tensor \"", name, "\" has shape ", text(weight.tensor.shape), ", expected ", text(shape.vec()));
    return load(name, dtype);
  }

 private:
  explicit Checkpoint(ModelFiles files) : files_(std::move(files)) {}

  static Tensor read(const StoredWeight& weight, at::ScalarType dtype) {
    const auto same = detail::tensor_type(weight.tensor.dtype);
    if (same && (*same == dtype || (*same == at::kDouble && dtype != at::kFloat))) {
      Tensor t = at::empty(weight.tensor.shape, *same);
      if (!weight.bytes.empty()) std::memcpy(t.data_ptr(), weight.bytes.data(), weight.bytes.size());
      return t;
    }
    const DType plain = weight.ggml != nullptr ? DType::f32 : known_dtype(weight.tensor, weight.file);
    const std::int64_t block = weight.ggml != nullptr ? weight.ggml->elements : 1;
    Tensor t = at::empty(weight.tensor.shape, at::kFloat);
    float* const out = t.data_ptr<float>();
    try {
      at::parallel_for(0, t.numel() / block, detail::parallel_grain / block,
                       [&](std::int64_t begin, std::int64_t end) { detail::decode(weight, plain, begin * block, end * block, out); });
    } catch (const Error& error) {
      fail(weight.file, ": tensor \"", weight.tensor.name, "\": ", error.what());
    }
    return t;
  }

  ModelFiles files_;
};

}  // namespace ptq::io
