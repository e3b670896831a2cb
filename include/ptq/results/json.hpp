// Runs as JSON: {"runs": […]}, full precision first.
#pragma once

#include <cmath>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include <ptq/io/atomic_file.hpp>
#include <ptq/io/json.hpp>
#include <ptq/results/run.hpp>

namespace ptq::results {

namespace detail {

using Json = nlohmann::ordered_json;

/// null for what is absent; JSON has no NaN or infinity either.
[[nodiscard]] inline Json number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

template <class Pairs>
[[nodiscard]] Json object(const Pairs& pairs) {
  Json all = Json::object();
  for (const auto& [name, value] : pairs) all[name] = value;
  return all;
}

[[nodiscard]] inline Json json(const Evaluation& e) {
  return {{"text", e.text},
          {"protocol", e.protocol},
          {"windows", e.windows},
          {"window", e.window},
          {"tokens", e.tokens},
          {"perplexity", number(e.perplexity)},
          {"standard_error", number(e.standard_error)},
          {"difference", number(e.difference)},
          {"difference_standard_error", number(e.difference_standard_error)}};
}

[[nodiscard]] inline Json json(const Block& block) {
  Json linears = Json::array();
  for (const Linear& linear : block.linears) {
    linears.push_back({{"name", linear.name},
                       {"relative_error", number(linear.relative_error)},
                       {"relative_to_rtn", number(linear.relative_to_rtn)},
                       {"seconds", number(linear.seconds)}});
    for (const auto& [name, value] : linear.numbers) linears.back()["numbers"][name] = number(value);
  }
  return {{"index", block.index}, {"error", number(block.error)}, {"linears", linears}};
}

[[nodiscard]] inline Json json(const Run& run) {
  Json evaluations = Json::array(), blocks = Json::array(), stages = Json::object();
  for (const Evaluation& e : run.evaluations) evaluations.push_back(json(e));
  for (const Block& block : run.blocks) blocks.push_back(json(block));
  for (const auto& [name, seconds] : run.stages) stages[name] = number(seconds);
  return {{"recipe", run.recipe},
          {"label", run.label},
          {"digest", run.digest},
          {"full_precision", run.full_precision},
          {"bits_per_weight", number(run.bits_per_weight)},
          {"nominal_bits_per_weight", number(nominal_bits(run))},
          {"model_bits_per_parameter", number(run.model_bits_per_parameter)},
          {"evaluations", evaluations},
          {"blocks", blocks},
          {"seconds", number(run.seconds)},
          {"peak_memory_bytes", run.peak_memory_bytes},
          {"stages", stages},
          {"seed", run.seed},
          {"started", run.started},
          {"revision", run.revision},
          {"description", object(run.description)},
          {"precision", object(run.precision)},
          {"settings", object(run.settings)},
          {"versions", object(run.versions)},
          {"machine", object(run.machine)},
          {"model", object(run.model)}};
}

}  // namespace detail

/// The text of the file; bytes that are no UTF-8 (of paths) are replaced.
[[nodiscard]] inline std::string to_json(std::span<const Run> runs) {
  detail::Json list = detail::Json::array();
  for (const bool full_precision : {true, false})
    for (const Run& run : runs)
      if (run.full_precision == full_precision) list.push_back(detail::json(run));
  return detail::Json{{"runs", list}}.dump(2, ' ', false, detail::Json::error_handler_t::replace) + "\n";
}

/// Writes it, atomically.
inline void write_json(const std::filesystem::path& path, std::span<const Run> runs) { io::write_atomically(path, to_json(runs)); }

}  // namespace ptq::results
