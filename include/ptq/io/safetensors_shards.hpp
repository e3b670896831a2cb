// A model's weights in one or many safetensors files: the index, the shards, and one table of all tensors.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/printable.hpp>
#include <ptq/io/safetensors.hpp>

namespace ptq::io {

/// Whether a name from an untrusted index stays in its folder: no separators, no parent, no drive letter, no control characters.
[[nodiscard]] inline bool plain_file_name(std::string_view name) {
  if (name.empty() || name == "." || name.find("..") != name.npos || printable(name) != name) return false;
  return name.find_first_of("/\\:") == name.npos;
}

/// The weight map of an index file: tensor to shard. Errors begin with `where`.
inline std::map<std::string, std::string> read_weight_map(const json& index, const std::string& where) {
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail(where, ": no \"weight_map\" object in the index");
  std::map<std::string, std::string> map;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) fail(where, ": tensor \"", printable(tensor), "\": its shard is not a string");
    const auto& file = shard.get_ref<const std::string&>();
    if (!plain_file_name(file))
      fail(where, ": tensor \"", printable(tensor), "\": shard \"", printable(file), "\" is not a plain file name");
    map.emplace(tensor, file);
  }
  if (map.empty()) fail(where, ": the weight_map is empty");
  return map;
}

/// All tensors of a single file, or of the shards that an index names. Each header is read once.
class SafetensorsShards {
 public:
  /// One safetensors file.
  static SafetensorsShards single(const std::string& path) {
    SafetensorsShards all;
    all.add(path);
    return all;
  }

  /// An index file (model.safetensors.index.json); shards lie beside it. A shard that is absent or broken, or a tensor in two shards,
  /// throws.
  static SafetensorsShards indexed(const std::string& path) {
    SafetensorsShards all;
    all.index_ = path;
    all.weight_map_ = read_weight_map(read_json(path), path);
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : all.weight_map_) {
      if (!shards.insert(shard).second) continue;
      const std::string file = (folder / shard).string();
      if (!std::filesystem::exists(file))
        fail(path, ": shard \"", shard, "\" (tensor \"", printable(tensor), "\") is missing from the folder");
      all.add(file);
    }
    return all;
  }

  [[nodiscard]] const std::vector<SafetensorsFile>& files() const noexcept { return files_; }
  [[nodiscard]] const std::string& index() const noexcept { return index_; }  ///< path of the index; empty for a single file

  /// File and description of a tensor; both null when no shard holds it.
  struct Found {
    const SafetensorsFile* file = nullptr;
    const StoredTensor* tensor = nullptr;
  };
  [[nodiscard]] Found find(const std::string& name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return {};
    const SafetensorsFile& file = files_[found->second];
    return {&file, file.find(name)};
  }

  /// Tensors that the index names but its shard lacks, with that shard: an error for whoever needs them.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> missing() const {
    std::vector<std::pair<std::string, std::string>> names;
    for (const auto& [tensor, shard] : weight_map_) {
      const Found found = find(tensor);
      if (found.file == nullptr || std::filesystem::path(found.file->path()).filename() != shard) names.emplace_back(tensor, shard);
    }
    return names;
  }

  /// Tensors that lie in a shard without being in the index.
  [[nodiscard]] std::vector<std::string> unlisted() const {
    std::vector<std::string> names;
    for (const auto& [tensor, file] : by_name_)
      if (!weight_map_.empty() && !weight_map_.contains(tensor)) names.push_back(tensor);
    return names;
  }

 private:
  void add(const std::string& path) {
    files_.emplace_back(path);
    for (const StoredTensor& tensor : files_.back().tensors()) {
      const auto [found, fresh] = by_name_.emplace(tensor.name, files_.size() - 1);
      if (!fresh) fail(path, ": tensor \"", tensor.name, "\" lies in ", files_[found->second].path(), " as well");
    }
  }

  std::string index_{};
  std::map<std::string, std::string> weight_map_{};
  std::vector<SafetensorsFile> files_{};
  std::map<std::string, std::size_t> by_name_{};
};

}  // namespace ptq::io
