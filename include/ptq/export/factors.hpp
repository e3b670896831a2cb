// Factors of corrections in a file of their own, beside weights that hold the grid's values alone: the layout of a LoRA adapter.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <ptq/export/plain_block.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/safetensors_writer.hpp>

namespace ptq {

inline constexpr const char* factors_file = "factors.safetensors";  ///< an adapter's adapter_model.safetensors
inline constexpr const char* factors_config = "factors.json";       ///< its adapter_config.json

/// The factors of a block under the names within a block, float32 on the CPU: W = Q + B A, "X.lora_A.weight" (rank, in), "X.lora_B.weight"
/// (out, rank). Divisors of inputs are folded into A.
[[nodiscard]] inline std::map<std::string, Tensor> plain_factors(const Layout& layout, const QuantizedBlock& block) {
  std::map<std::string, Tensor> tensors;
  for (size_t i = 0; i < layout.sites.size(); ++i) {
    const LowRank& c = block.linears[i].correction;
    if (!c.defined()) continue;
    const auto group = static_cast<size_t>(layout.sites[i].group);
    Tensor a = detail::as_float(c.a).t();  // (rank, in)
    if (group < block.input_scale.size() && block.input_scale[group].defined()) a = a / detail::as_float(block.input_scale[group]);
    tensors[layout.sites[i].name + ".lora_A.weight"] = a.contiguous();
    tensors[layout.sites[i].name + ".lora_B.weight"] = detail::as_float(c.b).t().contiguous();
  }
  return tensors;
}

/// The name of a factor in the file; `model` is "model.layers.3.self_attn.q_proj".
[[nodiscard]] inline std::string factor_name(const std::string& tensor) { return "base_model.model." + tensor; }

/// What an adapter's configuration tells: the rank of every linear, and a scale of 1.
[[nodiscard]] inline io::json factors_description(const std::vector<io::TensorPlan>& plan) {
  io::json ranks = io::json::object();
  std::set<std::string> targets;
  std::int64_t most = 1;
  for (const io::TensorPlan& t : plan) {
    const std::string tail = ".lora_A.weight", head = factor_name("");
    if (!t.name.ends_with(tail)) continue;
    const std::string linear = t.name.substr(head.size(), t.name.size() - head.size() - tail.size());
    ranks[linear] = t.shape.front();
    most = std::max<std::int64_t>(most, static_cast<std::int64_t>(t.shape.front()));
    targets.insert(linear);  // whole names: a linear that needed no factors gets none
  }
  return {{"peft_type", "LORA"},       {"task_type", "CAUSAL_LM"},       {"inference_mode", true}, {"r", most},
          {"lora_alpha", most},        {"rank_pattern", ranks},          {"alpha_pattern", ranks}, {"bias", "none"},
          {"target_modules", targets}, {"base_model_name_or_path", "."}, {"lora_dropout", 0.0}};
}

}  // namespace ptq
