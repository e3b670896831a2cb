// The one door to nlohmann/json: strict parsing of untrusted text.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/printable.hpp>

namespace ptq::io {

using json = nlohmann::json;

namespace detail {

/// Builds the document, and refuses what a plain parser lets pass: a key twice in one object, and nesting deeper than `limit`.
class StrictReader : public nlohmann::json_sax<json> {
 public:
  explicit StrictReader(std::size_t limit) : limit_(limit) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return stop("binary value"); }
  bool start_object(std::size_t /*size*/) override { return open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) return stop(cat("key \"", printable(name), "\" occurs twice"));
    slot_ = &(*stack_.back())[name];
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/, const json::exception& error) override {
    const std::string_view what = error.what();
    const auto prefix = what.find("] ");  // "[json.exception.parse_error.101] "
    return stop(cat("not valid JSON, byte ", position, ": ", prefix == what.npos ? what : what.substr(prefix + 2)));
  }

  json document{};
  std::string trouble{};

 private:
  bool stop(std::string why) {
    trouble = std::move(why);
    return false;
  }
  template <class Value>
  json* place(Value&& value) {
    if (stack_.empty()) return &(document = std::forward<Value>(value));
    if (stack_.back()->is_object()) return &(*slot_ = std::forward<Value>(value));
    return &stack_.back()->emplace_back(std::forward<Value>(value));
  }
  template <class Value>
  bool put(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(json&& empty) {
    if (stack_.size() >= limit_) return stop(cat("nested deeper than ", limit_, " levels"));
    stack_.push_back(place(std::move(empty)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  std::size_t limit_;
  std::vector<json*> stack_{};  ///< open objects and arrays; stable, for only the innermost grows
  json* slot_ = nullptr;        ///< where the value of the last key goes
};

}  // namespace detail

/// Parses a whole text. Errors begin with `where` (a file name): syntax, invalid UTF-8, a key given twice, nesting deeper than `depth`.
inline json parse_json(std::string_view text, const std::string& where, std::size_t depth = 64) {
  detail::StrictReader reader(depth);
  if (!json::sax_parse(text.begin(), text.end(), &reader)) fail(where, ": ", reader.trouble);
  return std::move(reader.document);
}

/// Parses a file; see `parse_json`.
inline json read_json(const std::string& path, std::size_t depth = 64) {
  const MappedFile file(path);
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.size()}, path, depth);
}

}  // namespace ptq::io
