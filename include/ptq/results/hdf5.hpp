// A run in HDF5, and back. The schema is in docs/formats.md.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/io/hdf5.hpp>
#include <ptq/results/run.hpp>

namespace ptq::results {

inline constexpr std::int64_t schema = 1;

namespace detail {

/// "0007", so that names sort as their numbers.
[[nodiscard]] inline std::string numbered(std::size_t number) {
  const std::string digits = std::to_string(number);
  return std::string(digits.size() < 4 ? 4 - digits.size() : 0, '0') + digits;
}

inline void put(io::Hdf5Writer& file, const std::string& object, const char* name, const std::optional<double>& value) {
  if (value) file.attribute(object, name, *value);
}

[[nodiscard]] inline std::optional<double> get(const io::Hdf5Reader& file, const std::string& object, const char* name) {
  if (!file.has_attribute(object, name)) return std::nullopt;
  return file.attribute<double>(object, name);
}

/// Named values as attributes of a group of their own.
template <class Value>
void put_all(io::Hdf5Writer& file, const std::string& group, const std::vector<std::pair<std::string, Value>>& values) {
  file.group(group);
  for (const auto& [name, value] : values) file.attribute(group, name, value);
}

template <class Value>
[[nodiscard]] std::vector<std::pair<std::string, Value>> get_all(const io::Hdf5Reader& file, const std::string& group) {
  std::vector<std::pair<std::string, Value>> values;
  if (file.exists(group))
    for (const std::string& name : file.attributes(group)) values.emplace_back(name, file.attribute<Value>(group, name));
  return values;
}

/// In columns an absent value is NaN.
[[nodiscard]] inline double or_nan(const std::optional<double>& value) { return value.value_or(std::numeric_limits<double>::quiet_NaN()); }
[[nodiscard]] inline std::optional<double> unless_nan(double value) {
  return std::isnan(value) ? std::nullopt : std::optional<double>(value);
}

inline void put_evaluation(io::Hdf5Writer& file, const std::string& at, const Evaluation& e) {
  file.dataset(at + "/nll", e.nll);
  file.attribute(at, "text", e.text);
  file.attribute(at, "protocol", e.protocol);
  file.attribute(at, "windows", e.windows);
  file.attribute(at, "window", e.window);
  file.attribute(at, "tokens", e.tokens);
  file.attribute(at, "perplexity", e.perplexity);
  put(file, at, "standard_error", e.standard_error);
  put(file, at, "difference", e.difference);
  put(file, at, "difference_standard_error", e.difference_standard_error);
}

[[nodiscard]] inline Evaluation get_evaluation(const io::Hdf5Reader& file, const std::string& at) {
  Evaluation e;
  e.text = file.attribute<std::string>(at, "text");
  e.protocol = file.attribute<std::string>(at, "protocol");
  e.windows = file.attribute<std::int64_t>(at, "windows");
  e.window = file.attribute<std::int64_t>(at, "window");
  e.tokens = file.attribute<std::int64_t>(at, "tokens");
  e.perplexity = file.attribute<double>(at, "perplexity");
  e.standard_error = get(file, at, "standard_error");
  e.difference = get(file, at, "difference");
  e.difference_standard_error = get(file, at, "difference_standard_error");
  e.nll = file.read<double>(at + "/nll");
  return e;
}

/// One row a block in /blocks, one row a linear in /linears, its numbers in /linears/numbers, losses in /losses/<row> and
/// /tracked/<row>.
inline void put_blocks(io::Hdf5Writer& file, const std::string& at, const std::vector<Block>& blocks) {
  std::vector<std::int64_t> index, block_of;
  std::vector<double> error, relative_error, relative_to_rtn, seconds;
  std::vector<std::string> names;
  std::vector<std::pair<std::string, std::vector<double>>> numbers;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    index.push_back(blocks[b].index);
    error.push_back(or_nan(blocks[b].error));
    if (!blocks[b].losses.empty()) file.dataset(at + "losses/" + numbered(b), blocks[b].losses);
    if (!blocks[b].tracked.empty()) file.dataset(at + "tracked/" + numbered(b), blocks[b].tracked);
    for (const Linear& linear : blocks[b].linears) {
      block_of.push_back(static_cast<std::int64_t>(b));
      names.push_back(linear.name);
      relative_error.push_back(or_nan(linear.relative_error));
      relative_to_rtn.push_back(or_nan(linear.relative_to_rtn));
      seconds.push_back(or_nan(linear.seconds));
      for (const auto& [name, value] : linear.numbers) {
        auto column = numbers.begin();
        while (column != numbers.end() && column->first != name) ++column;
        if (column == numbers.end()) column = numbers.insert(column, {name, {}});
        column->second.resize(names.size(), or_nan(std::nullopt));
        column->second.back() = value;
      }
    }
  }
  file.dataset(at + "blocks/index", index);
  file.dataset(at + "blocks/error", error);
  file.dataset(at + "linears/block", block_of);
  file.texts(at + "linears/name", names);
  file.dataset(at + "linears/relative_error", relative_error);
  file.dataset(at + "linears/relative_to_rtn", relative_to_rtn);
  file.dataset(at + "linears/seconds", seconds);
  for (auto& [name, column] : numbers) {
    column.resize(names.size(), or_nan(std::nullopt));
    file.dataset(at + "linears/numbers/" + name, column);
  }
}

[[nodiscard]] inline std::vector<Block> get_blocks(const io::Hdf5Reader& file, const std::string& at) {
  const auto index = file.read<std::int64_t>(at + "blocks/index"), block_of = file.read<std::int64_t>(at + "linears/block");
  const auto error = file.read<double>(at + "blocks/error"), relative_error = file.read<double>(at + "linears/relative_error"),
             relative_to_rtn = file.read<double>(at + "linears/relative_to_rtn"), seconds = file.read<double>(at + "linears/seconds");
  const auto names = file.read_texts(at + "linears/name");
  std::vector<std::pair<std::string, std::vector<double>>> numbers;
  if (file.exists(at + "linears/numbers"))
    for (const std::string& name : file.datasets(at + "linears/numbers"))
      numbers.emplace_back(name, file.read<double>(at + "linears/numbers/" + name));

  bool fits = error.size() == index.size();
  for (const std::size_t size : {block_of.size(), relative_error.size(), relative_to_rtn.size(), seconds.size()})
    fits = fits && size == names.size();
  for (const auto& column : numbers) fits = fits && column.second.size() == names.size();
  for (const std::int64_t b : block_of) fits = fits && b >= 0 && b < static_cast<std::int64_t>(index.size());
  if (!fits) fail(file.path().string(), ": ", at, "linears: its columns do not belong together");

  std::vector<Block> blocks(index.size());
  for (std::size_t b = 0; b < index.size(); ++b) {
    blocks[b].index = index[b];
    blocks[b].error = unless_nan(error[b]);
    const std::string losses = at + "losses/" + numbered(b), tracked = at + "tracked/" + numbered(b);
    if (file.exists(losses)) blocks[b].losses = file.read<double>(losses);
    if (file.exists(tracked)) blocks[b].tracked = file.read<double>(tracked);
  }
  for (std::size_t row = 0; row < names.size(); ++row) {
    Linear linear{names[row], unless_nan(relative_error[row]), unless_nan(relative_to_rtn[row]), unless_nan(seconds[row]), {}};
    for (const auto& [name, column] : numbers)
      if (!std::isnan(column[row])) linear.numbers.emplace_back(name, column[row]);
    blocks[static_cast<std::size_t>(block_of[row])].linears.push_back(std::move(linear));
  }
  return blocks;
}

}  // namespace detail

/// Writes a run below `at`: "" for the root of a file, else a path that ends with a slash.
inline void put_run(io::Hdf5Writer& file, const Run& run, const std::string& at = "") {
  const std::string self = at.empty() ? "/" : at.substr(0, at.size() - 1);
  file.group(self);
  file.attribute(self, "schema", schema);
  file.attribute(self, "digest", run.digest);
  file.attribute(self, "label", run.label);
  file.attribute(self, "recipe", run.recipe);
  file.attribute(self, "full_precision", run.full_precision);
  file.attribute(self, "seed", run.seed);
  file.attribute(self, "started", run.started);
  file.attribute(self, "revision", run.revision);
  detail::put(file, self, "bits_per_weight", run.bits_per_weight);
  detail::put(file, self, "model_bits_per_parameter", run.model_bits_per_parameter);
  file.attribute(self, "seconds", run.seconds);
  file.attribute(self, "peak_memory_bytes", run.peak_memory_bytes);
  detail::put_all(file, at + "description", run.description);
  detail::put_all(file, at + "precision", run.precision);
  detail::put_all(file, at + "settings", run.settings);
  detail::put_all(file, at + "versions", run.versions);
  detail::put_all(file, at + "machine", run.machine);
  detail::put_all(file, at + "model", run.model);
  detail::put_all(file, at + "stages", run.stages);
  file.group(at + "evaluations");
  for (std::size_t i = 0; i < run.evaluations.size(); ++i)
    detail::put_evaluation(file, at + "evaluations/" + detail::numbered(i), run.evaluations[i]);
  detail::put_blocks(file, at, run.blocks);
}

/// Reads it back; fails, naming file and object, where the schema is not kept.
[[nodiscard]] inline Run get_run(const io::Hdf5Reader& file, const std::string& at = "") {
  const std::string self = at.empty() ? "/" : at.substr(0, at.size() - 1);
  if (!file.has_attribute(self, "schema") || !file.has_attribute(self, "label"))
    fail(file.path().string(), ": ", self, ": is no result of ptq");
  const auto found = file.attribute<std::int64_t>(self, "schema");
  if (found != schema) fail(file.path().string(), ": ", self, ": has schema ", found, ", this program reads schema ", schema);
  Run run;
  run.digest = file.attribute<std::string>(self, "digest");
  run.label = file.attribute<std::string>(self, "label");
  run.recipe = file.attribute<std::string>(self, "recipe");
  run.full_precision = file.attribute<bool>(self, "full_precision");
  run.seed = file.attribute<std::int64_t>(self, "seed");
  run.started = file.attribute<std::string>(self, "started");
  run.revision = file.attribute<std::string>(self, "revision");
  run.bits_per_weight = detail::get(file, self, "bits_per_weight");
  run.model_bits_per_parameter = detail::get(file, self, "model_bits_per_parameter");
  run.seconds = file.attribute<double>(self, "seconds");
  run.peak_memory_bytes = file.attribute<std::int64_t>(self, "peak_memory_bytes");
  run.description = detail::get_all<std::string>(file, at + "description");
  run.precision = detail::get_all<std::string>(file, at + "precision");
  run.settings = detail::get_all<std::string>(file, at + "settings");
  run.versions = detail::get_all<std::string>(file, at + "versions");
  run.machine = detail::get_all<std::string>(file, at + "machine");
  run.model = detail::get_all<std::string>(file, at + "model");
  run.stages = detail::get_all<double>(file, at + "stages");
  for (const std::string& name : file.groups(at + "evaluations"))
    run.evaluations.push_back(detail::get_evaluation(file, at + "evaluations/" + name));
  run.blocks = detail::get_blocks(file, at);
  return run;
}

}  // namespace ptq::results
