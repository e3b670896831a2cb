// Key/value metadata of a GGUF file: typed look-up that names file and key when something is amiss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq::io {

/// Integers of every stored width are int64 (uint64 when they do not fit), floats double; bool lists become integer lists.
using GgufValue = std::variant<bool, std::int64_t, std::uint64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>,
                               std::vector<std::string>>;

[[nodiscard]] inline std::string_view kind_of(const GgufValue& value) {
  constexpr std::string_view names[] = {"a truth value", "an integer", "an integer", "a float",
                                        "a string",      "integers",   "floats",     "strings"};
  return names[value.index()];
}

class GgufMetadata {
 public:
  explicit GgufMetadata(std::string file = "") : file_(std::move(file)) {}

  /// Adds a pair; false when the key is there already.
  bool add(std::string key, GgufValue value) { return values_.emplace(std::move(key), std::move(value)).second; }
  [[nodiscard]] const std::map<std::string, GgufValue>& values() const noexcept { return values_; }
  [[nodiscard]] const std::string& file() const noexcept { return file_; }

  [[nodiscard]] const GgufValue* find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] bool has(const std::string& key) const { return find(key) != nullptr; }

  /// The value of a key that must be there; throws when it is absent or of another kind. T is an alternative of GgufValue.
  template <class T>
  [[nodiscard]] const T& get(const std::string& key) const {
    const GgufValue* value = find(key);
    if (value == nullptr) fail(file_, ": GGUF key \"", key, "\" is missing");
    const T* typed = std::get_if<T>(value);
    if (typed == nullptr) fail(file_, ": GGUF key \"", key, "\" holds ", kind_of(*value), ", not ", kind_of(GgufValue(T{})));
    return *typed;
  }

  /// An integer; a list of equal integers counts as one (values given per block), a list of different ones is refused.
  [[nodiscard]] std::int64_t integer(const std::string& key) const {
    const GgufValue* value = find(key);
    if (const auto* list = value == nullptr ? nullptr : std::get_if<std::vector<std::int64_t>>(value); list != nullptr) {
      if (list->empty()) fail(file_, ": GGUF key \"", key, "\" is an empty list");
      for (const std::int64_t entry : *list)
        if (entry != list->front()) fail(file_, ": GGUF key \"", key, "\" differs between blocks; such models are not supported");
      return list->front();
    }
    return get<std::int64_t>(key);
  }
  [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }

  /// A float, or an integer as one.
  [[nodiscard]] double real(const std::string& key) const {
    const GgufValue* value = find(key);
    if (const auto* whole = value == nullptr ? nullptr : std::get_if<std::int64_t>(value); whole != nullptr)
      return static_cast<double>(*whole);
    return get<double>(key);
  }
  [[nodiscard]] double real(const std::string& key, double otherwise) const { return has(key) ? real(key) : otherwise; }

  [[nodiscard]] const std::string& text(const std::string& key) const { return get<std::string>(key); }
  [[nodiscard]] bool flag(const std::string& key, bool otherwise) const { return has(key) ? get<bool>(key) : otherwise; }
  [[nodiscard]] const std::vector<std::string>& texts(const std::string& key) const { return get<std::vector<std::string>>(key); }

 private:
  std::string file_;
  std::map<std::string, GgufValue> values_{};
};

}  // namespace ptq::io
