// Lenient access to the fields of a configuration file: numbers in any spelling, nulls, defaults.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>

namespace ptq::io {

/// One JSON object. A field that is absent or null has no value; a value of the wrong kind throws, naming file and field.
class ConfigFields {
 public:
  /// `object` must outlive this.
  ConfigFields(const json& object, std::string where) : object_(&object), where_(std::move(where)) {
    if (!object.is_object()) fail(where_, ": not a JSON object");
  }

  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  /// Present, be it null.
  [[nodiscard]] bool has(const char* field) const { return object_->contains(field); }
  /// The value, or null when the field is absent or null.
  [[nodiscard]] const json* find(const char* field) const {
    const auto found = object_->find(field);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }

  /// A whole number, also when written as a float (2048.0).
  [[nodiscard]] std::optional<std::int64_t> integer(const char* field) const {
    const json* value = find(field);
    if (value == nullptr) return std::nullopt;
    return whole(*value, field);
  }
  [[nodiscard]] std::optional<double> real(const char* field) const {
    const json* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) fail(where_, ": ", field, " is ", value->type_name(), ", not a number");
    return value->get<double>();
  }
  [[nodiscard]] std::optional<bool> flag(const char* field) const {
    const json* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) fail(where_, ": ", field, " is ", value->type_name(), ", not true or false");
    return value->get<bool>();
  }
  [[nodiscard]] std::optional<std::string> text(const char* field) const {
    const json* value = find(field);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) fail(where_, ": ", field, " is ", value->type_name(), ", not a string");
    return value->get<std::string>();
  }
  [[nodiscard]] std::vector<std::string> texts(const char* field) const {
    const json* value = find(field);
    std::vector<std::string> list;
    if (value == nullptr) return list;
    if (!value->is_array()) fail(where_, ": ", field, " is ", value->type_name(), ", not a list of strings");
    for (const json& entry : *value) {
      if (!entry.is_string()) fail(where_, ": ", field, " has an entry that is ", entry.type_name(), ", not a string");
      list.push_back(entry.get<std::string>());
    }
    return list;
  }
  /// One whole number or a list of them.
  [[nodiscard]] std::vector<std::int64_t> integers(const char* field) const {
    const json* value = find(field);
    std::vector<std::int64_t> list;
    if (value == nullptr) return list;
    if (!value->is_array()) return {whole(*value, field)};
    for (const json& entry : *value) list.push_back(whole(entry, field));
    return list;
  }

 private:
  [[nodiscard]] std::int64_t whole(const json& value, const char* field) const {
    if (!value.is_number()) fail(where_, ": ", field, " is ", value.type_name(), ", not a number");
    const double number = value.get<double>();
    if (!(std::abs(number) <= 9007199254740992.0) || number != std::floor(number))
      fail(where_, ": ", field, " is ", number, ", not a whole number");
    return static_cast<std::int64_t>(number);
  }

  const json* object_;
  std::string where_;
};

}  // namespace ptq::io
