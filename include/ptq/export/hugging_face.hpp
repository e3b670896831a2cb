// Export of a quantized model to a Hugging Face folder: dequantized weights, everything folded, tokenizer and configuration carried along.
#pragma once

#include <charconv>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/export/factors.hpp>
#include <ptq/export/folder.hpp>
#include <ptq/export/model_config.hpp>
#include <ptq/export/plain_block.hpp>
#include <ptq/export/tokenizer_files.hpp>
#include <ptq/io/atomic_file.hpp>
#include <ptq/io/checkpoint.hpp>
#include <ptq/io/safetensors_writer.hpp>

namespace ptq {

/// Yields a committed block; called a few times for each, in order. What it returns is dropped before the next call.
using CommittedBlocks = std::function<QuantizedBlock(int64_t block)>;

struct ExportOptions {
  io::DType dtype = io::DType::f32;                               ///< of all stored tensors: f32, bf16 or f16
  std::uint64_t shard_bytes = 5'000'000'000;                      ///< of one weight file; a tensor above it gets a file of its own
  std::optional<QuantizedLinear> head{};                          ///< replaces the head's weight; a tied head becomes one of its own
  bool factors_apart = false;                                     ///< factors of corrections in a file of their own; else in the weights
  std::string recipe{};                                           ///< label, for README.md
  std::vector<std::pair<std::string, std::string>> provenance{};  ///< what else README.md and ptq_export.json tell: precision, seed, texts
  std::function<void(int64_t block)> on_block{};                  ///< as each block is reached
};

namespace detail {

[[nodiscard]] inline at::ScalarType scalar_type(io::DType dtype) {
  if (dtype == io::DType::f32) return at::kFloat;
  if (dtype == io::DType::bf16) return at::kBFloat16;
  if (dtype == io::DType::f16) return at::kHalf;
  refuse("weights are exported as F32, BF16 or F16, not ", io::name(dtype));
}

/// The tensor as it is written. Throws, naming it, where it holds NaN or infinity, or overflows the stored type.
[[nodiscard]] inline Tensor stored(const Tensor& t, io::DType dtype, const std::string& name) {
  require_finite(t, name);
  const Tensor out = t.detach().to(at::kCPU, scalar_type(dtype)).contiguous();
  if (dtype != io::DType::f32 && !at::isfinite(out).all().item<bool>())
    fail(name, ": ", t.abs().max().item<double>(), " is beyond the range of ", io::name(dtype), "; export as F32",
         dtype == io::DType::f16 ? " or BF16" : "");
  return out;
}

/// The tensors of the exported model one by one, whatever block they belong to; one block is in memory.
class ExportedTensors {
 public:
  ExportedTensors(const io::Checkpoint& source, const CommittedBlocks& blocks, ModelConfig target, const ExportOptions& options)
      : source_(source), blocks_(blocks), target_(std::move(target)), layout_(layout(target_)), options_(options) {}

  [[nodiscard]] Tensor operator()(const io::NamedShape& wanted) {
    const Tensor t = find(wanted);
    if (t.sizes() != at::IntArrayRef(wanted.shape)) fail(wanted.name, " is ", shape_text(t), ", the model has ", io::text(wanted.shape));
    return stored(t, options_.dtype, wanted.name);
  }

 private:
  [[nodiscard]] Tensor find(const io::NamedShape& wanted) {
    const std::string& name = wanted.name;
    if (name == "lm_head.weight" && options_.head) return options_.head->effective_weight();
    const std::string layers = model_prefix(target_) + "layers.";
    if (!name.starts_with(layers)) return source_.load(name);
    int64_t block = 0;
    const char* const end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + layers.size(), end, block);
    if (error != std::errc() || rest == end) fail("no block has a tensor ", name);
    enter(block);
    const auto found = parts_.find(std::string(rest + 1, end));
    if (found != parts_.end()) return found->second;
    if (name.ends_with(".bias")) return at::zeros(wanted.shape, at::kFloat);  // the architecture has the place, the block no bias
    fail(name, ": the quantized block has no such tensor");
  }

  void enter(int64_t block) {
    if (block == block_) return;
    parts_.clear();
    parts_ = plain_block(target_, layout_, blocks_(block), options_.factors_apart);
    block_ = block;
    if (options_.on_block) options_.on_block(block);
  }

  const io::Checkpoint& source_;
  const CommittedBlocks& blocks_;
  ModelConfig target_;
  Layout layout_;
  const ExportOptions& options_;
  int64_t block_ = -1;
  std::map<std::string, Tensor> parts_;  ///< of the block at hand
};

struct Shards {
  std::vector<std::vector<io::NamedShape>> files;
  std::uint64_t bytes = 0;

  [[nodiscard]] std::string name(std::size_t file) const {
    if (files.size() == 1) return "model.safetensors";
    const auto five = [](std::size_t n) {
      return std::string(n < 10 ? 4 : n < 100 ? 3 : n < 1000 ? 2 : n < 10000 ? 1 : 0, '0') + std::to_string(n);
    };
    return "model-" + five(file + 1) + "-of-" + five(files.size()) + ".safetensors";
  }
};

[[nodiscard]] inline Shards plan_shards(const ModelConfig& target, const ExportOptions& options) {
  Shards shards;
  std::uint64_t filled = 0;
  for (io::NamedShape& tensor : io::model_tensors(target)) {
    const std::uint64_t size = io::element_count(tensor.shape).value_or(0) * io::bits(options.dtype) / 8;
    if (shards.files.empty() || (filled > 0 && filled + size > options.shard_bytes)) shards.files.emplace_back(), filled = 0;
    shards.files.back().push_back(std::move(tensor));
    filled += size, shards.bytes += size;
  }
  return shards;
}

inline void write_shards(const std::filesystem::path& folder, const Shards& shards, ExportedTensors& tensors, io::DType dtype) {
  io::json index = {{"metadata", {{"total_size", shards.bytes}}}, {"weight_map", io::json::object()}};
  for (std::size_t i = 0; i < shards.files.size(); ++i) {
    std::vector<io::TensorPlan> plan;
    for (const io::NamedShape& tensor : shards.files[i]) {
      plan.push_back({tensor.name, dtype, tensor.shape});
      index["weight_map"][tensor.name] = shards.name(i);
    }
    io::SafetensorsWriter writer((folder / shards.name(i)).string(), std::move(plan));
    for (const io::NamedShape& tensor : shards.files[i]) {
      const Tensor t = tensors(tensor);
      writer.write(tensor.name, {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()});
    }
    writer.commit();
  }
  if (shards.files.size() > 1) io::write_atomically(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

/// Writes the factors of all blocks in the order of `plan`.
inline void write_factors(const std::filesystem::path& folder, const std::vector<io::TensorPlan>& plan, const CommittedBlocks& blocks,
                          const ModelConfig& target, io::DType dtype) {
  io::SafetensorsWriter writer((folder / factors_file).string(), plan);
  const Layout places = layout(target);
  for (int64_t block = 0; block < target.layers; ++block)
    for (const auto& [name, t] : plain_factors(places, blocks(block))) {
      const std::string full = factor_name(cat(model_prefix(target), "layers.", block, ".", name));
      const Tensor out = stored(t, dtype, full);
      writer.write(full, {static_cast<const std::byte*>(out.const_data_ptr()), out.nbytes()});
    }
  writer.commit();
}

/// What was left out, in words.
[[nodiscard]] inline std::vector<std::string> left_out(const BlockSurvey& blocks) {
  std::vector<std::string> list{
      "codes, scales and zero points: weights are stored dequantized, so the folder is as large as an unquantized model's"};
  for (const std::string& format : blocks.formats)
    list.push_back("rounding of " + format + ": activations are not rounded by whoever loads this folder");
  return list;
}

[[nodiscard]] inline std::string readme(const io::Checkpoint& source, const ExportOptions& options, const BlockSurvey& blocks) {
  std::string text = cat("# ", std::filesystem::path(source.path()).filename().string(), ", quantized by ptq\n\n");
  text += cat("Weights rounded by ", options.recipe.empty() ? "a recipe without a name" : options.recipe, ", written back as ",
              io::name(options.dtype),
              " under the names of Hugging Face:\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n",
              "model = AutoModelForCausalLM.from_pretrained(\"this folder\", dtype=\"auto\")\n",
              "tokenizer = AutoTokenizer.from_pretrained(\"this folder\")\n```\n\n");
  if (!options.provenance.empty()) text += "| | |\n|---|---|\n";
  for (const auto& [key, value] : options.provenance) text += cat("| ", key, " | ", value, " |\n");
  if (!options.provenance.empty()) text += "\n";
  if (options.factors_apart)
    text += cat("Low-rank corrections are not in the weights. ", factors_file, " and ", factors_config,
                " are a LoRA adapter: as adapter_model.safetensors and adapter_config.json in a folder of their own, PEFT adds them.\n\n");
  text += "Not in this folder:\n\n";
  for (const std::string& item : left_out(blocks)) text += "* " + item + "\n";
  return text;
}

}  // namespace detail

/// Writes `folder`: weights in the model's order, block by block, config.json, tokenizer, README.md and ptq_export.json. Smoothing,
/// corrections (unless they are to lie apart) and run-time divisions are folded into weights and biases; activation formats are left out,
/// and the folder says so. Refuses, before anything is written, what the architecture has no place for and a folder that is not ours to
/// replace. Throws where the disk has no room. Until the end nothing is seen under the final name, whatever happens.
inline void export_hugging_face(const io::Checkpoint& source, const CommittedBlocks& blocks, const std::filesystem::path& folder,
                                const ExportOptions& options = {}) {
  require_export_folder(folder, std::filesystem::path(source.files().front()).parent_path());
  (void)detail::scalar_type(options.dtype);
  if (options.shard_bytes == 0) refuse("weight files of 0 bytes hold nothing; the usual limit is 5000000000");
  const Layout places = layout(source.config());
  BlockSurvey needs;
  std::vector<io::TensorPlan> factors;
  for (int64_t block = 0; block < source.config().layers; ++block) {
    const QuantizedBlock committed = blocks(block);
    survey(source.config(), places, committed, cat("blocks.", block), needs);
    if (!options.factors_apart) continue;
    for (const auto& [name, t] : plain_factors(places, committed))
      factors.push_back({factor_name(cat(model_prefix(source.config()), "layers.", block, ".", name)), options.dtype, t.sizes().vec()});
  }
  if (options.factors_apart && factors.empty()) refuse(folder.string(), ": no linear has a correction whose factors could lie apart");
  const bool gguf = source.gguf() != nullptr;
  const ModelConfig target = exported_config(source.config(), needs, options.head.has_value(), gguf);
  auto files = companion_files(source);
  files["config.json"] = config_text(target, options.dtype, gguf ? io::json(nullptr) : io::read_json(source.files().back()));
  files["README.md"] = detail::readme(source, options, needs);
  if (options.factors_apart) files[factors_config] = factors_description(factors).dump(2) + "\n";

  const detail::Shards shards = detail::plan_shards(target, options);
  io::json marker = {{"made_by", "ptq"},
                     {"schema", 1},
                     {"recipe", options.recipe},
                     {"dtype", io::name(options.dtype)},
                     {"source", std::filesystem::path(source.path()).filename().string()},
                     {"not_included", detail::left_out(needs)}};
  for (const auto& [key, value] : options.provenance) marker["provenance"][key] = value;
  marker["files"] = {export_marker};
  for (const auto& [name, text] : files) marker["files"].push_back(name);
  for (std::size_t i = 0; i < shards.files.size(); ++i) marker["files"].push_back(shards.name(i));
  if (shards.files.size() > 1) marker["files"].push_back("model.safetensors.index.json");
  if (options.factors_apart) marker["files"].push_back(factors_file);
  files[export_marker] = marker.dump(2) + "\n";
  std::uint64_t bytes = shards.bytes;
  for (const auto& [name, text] : files) bytes += text.size();

  FolderDraft draft(folder);
  if (const auto room = io::detail::room(draft.path()); bytes > room)
    fail(folder.string(), ": no room for it: ", bytes, " bytes are needed, ", room, " may be used");
  for (const auto& [name, text] : files) io::write_atomically(draft.path() / name, text);
  detail::ExportedTensors tensors(source, blocks, target, options);
  detail::write_shards(draft.path(), shards, tensors, options.dtype);
  if (options.factors_apart) detail::write_factors(draft.path(), factors, blocks, target, options.dtype);
  draft.commit();
}

}  // namespace ptq
