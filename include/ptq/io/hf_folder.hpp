// Which files of a Hugging Face folder hold the weights, and which are refused.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/safetensors_shards.hpp>

namespace ptq::io {

namespace detail {

[[nodiscard]] inline bool is_pickle(const std::filesystem::path& file) {
  const std::string end = file.extension().string();
  return end == ".bin" || end == ".pt" || end == ".pth" || end == ".ckpt";
}

[[noreturn]] inline void refuse_pickle(const std::string& file) {
  fail(file, ": a PyTorch pickle, which can run code when it is read; convert it once with Python: ",
       "transformers.AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)");
}

/// Weights of a folder: the index, model.safetensors, or the only .safetensors file.
inline SafetensorsShards shards_of(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  if (const fs::path index = folder / "model.safetensors.index.json"; fs::exists(index)) return SafetensorsShards::indexed(index.string());
  if (const fs::path single = folder / "model.safetensors"; fs::exists(single)) return SafetensorsShards::single(single.string());
  std::vector<std::string> safe, pickles, ggufs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& file = entry.path();
    if (file.extension() == ".safetensors") safe.push_back(file.string());
    if (file.extension() == ".gguf") ggufs.push_back(file.string());
    if (is_pickle(file)) pickles.push_back(file.string());
  }
  if (safe.size() == 1) return SafetensorsShards::single(safe.front());
  if (safe.size() > 1)
    fail(folder.string(), ": ", safe.size(), " .safetensors files, but no model.safetensors.index.json says what they hold");
  if (!ggufs.empty()) fail(folder.string(), ": no safetensors; give the GGUF file itself, such as ", ggufs.front());
  if (!pickles.empty()) refuse_pickle(*std::min_element(pickles.begin(), pickles.end()));
  fail(folder.string(), ": no model.safetensors, no model.safetensors.index.json and no .gguf file");
}

}  // namespace detail

}  // namespace ptq::io
