// Tokens and their ids, both ways.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <ptq/core/error.hpp>

namespace ptq::io {

/// Hashes strings and views alike, so that a look-up needs no copy.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
};

template <class Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

class Vocabulary {
 public:
  /// Adds a token. Fails on a negative id, and on an id that another token has: `origin` names the file.
  void add(std::string token, std::int64_t id, std::string_view origin) {
    if (id < 0 || id > INT32_MAX) fail(origin, ": token \"", token, "\" has the id ", id, ", which is no 32-bit index");
    const auto [entry, fresh] = tokens_.emplace(static_cast<std::int32_t>(id), token);
    if (!fresh && entry->second != token) fail(origin, ": tokens \"", entry->second, "\" and \"", token, "\" share the id ", id);
    if (const auto known = ids_.find(token); known != ids_.end() && known->second != id)
      fail(origin, ": token \"", token, "\" has the ids ", known->second, " and ", id);
    ids_.emplace(std::move(token), static_cast<std::int32_t>(id));
    size_ = std::max(size_, id + 1);
  }

  [[nodiscard]] std::optional<std::int32_t> id(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  /// The token of an id, or nullptr.
  [[nodiscard]] const std::string* token(std::int32_t id) const {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : &found->second;
  }

  /// One more than the largest id.
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t count() const { return ids_.size(); }
  [[nodiscard]] const StringMap<std::int32_t>& ids() const { return ids_; }

 private:
  StringMap<std::int32_t> ids_;
  std::unordered_map<std::int32_t, std::string> tokens_;
  std::int64_t size_ = 0;
};

}  // namespace ptq::io
