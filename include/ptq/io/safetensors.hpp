// Reader of one safetensors file: u64 header length, JSON header, data. Everything is checked before anything is believed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/printable.hpp>
#include <ptq/io/stored_tensor.hpp>

namespace ptq::io {

inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;  ///< bytes; the reference reader's limit

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors{};  ///< in the order of their data
  std::map<std::string, std::string> metadata{};
};

namespace detail {

inline std::uint64_t exact_unsigned(const json& value, const std::string& what) {
  if (!value.is_number_unsigned()) fail(what, " must be a whole number from 0, not ", value.is_number() ? value.dump() : value.type_name());
  return value.get<std::uint64_t>();
}

inline StoredTensor safetensors_entry(const std::string& name, const json& entry, const std::string& where) {
  const std::string what = cat(where, ": tensor \"", printable(name), "\": ");
  if (printable(name) != name) fail(what, "its name holds control characters");
  if (!entry.is_object()) fail(what, "its header entry is not an object");
  for (const char* field : {"dtype", "shape", "data_offsets"})
    if (!entry.contains(field)) fail(what, "its header entry lacks \"", field, '"');
  if (entry.size() != 3) fail(what, "its header entry has fields besides dtype, shape and data_offsets");
  const json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  if (!dtype.is_string()) fail(what, "dtype is not a string");
  if (!shape.is_array()) fail(what, "shape is not a list");
  if (!offsets.is_array() || offsets.size() != 2) fail(what, "data_offsets is not a pair");
  StoredTensor tensor{name, dtype.get<std::string>(), {}, 0, 0};
  for (const json& size : shape) {
    const std::uint64_t value = exact_unsigned(size, what + "a size in shape");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      fail(what, "shape has the size ", value, ", too large");
    tensor.shape.push_back(static_cast<std::int64_t>(value));
  }
  tensor.offset = exact_unsigned(offsets[0], what + "data_offsets");
  const std::uint64_t end = exact_unsigned(offsets[1], what + "data_offsets");
  if (end < tensor.offset) fail(what, "data_offsets [", tensor.offset, ", ", end, "] end before they begin");
  tensor.bytes = end - tensor.offset;
  return tensor;
}

/// The span of a tensor must be what its dtype and shape need. Unknown types have no size; they are refused when read.
inline void check_span(const StoredTensor& tensor, const std::string& where) {
  const auto dtype = dtype_named(tensor.dtype);
  if (!dtype) return;
  const auto count = element_count(tensor.shape);
  const auto size = count ? times(*count, bits(*dtype)) : count;
  if (!size) fail(where, ": tensor \"", tensor.name, "\": shape ", text(tensor.shape), " has more elements than can be counted");
  if (*size % 8 != 0) fail(where, ": tensor \"", tensor.name, "\": ", *count, " elements of ", tensor.dtype, " end inside a byte");
  if (*size / 8 != tensor.bytes)
    fail(where, ": tensor \"", tensor.name, "\": shape ", text(tensor.shape), " of ", tensor.dtype, " needs ", *size / 8,
         " bytes, data_offsets give ", tensor.bytes);
}

}  // namespace detail

/// Checks and reads the header of a whole file. Offsets of the result count from the start of the file. Errors begin with `where`.
inline SafetensorsHeader read_safetensors_header(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < 8) fail(where, ": ", file.size(), " bytes; header too small for a safetensors file");
  const auto length = load_raw<std::uint64_t>(file.data());
  if (length > safetensors_header_limit)
    fail(where, ": header of ", length, " bytes is larger than the limit of ", safetensors_header_limit, "; not a safetensors file?");
  if (length > file.size() - 8) fail(where, ": header of ", length, " bytes in a file of ", file.size(), "; the file is cut short");
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, static_cast<std::size_t>(length));
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos || text[first] != '{') fail(where, ": the header does not begin with {; not a safetensors file?");
  const json document = parse_json(text, where + ": header", 8);

  SafetensorsHeader header;
  for (const auto& [key, value] : document.items()) {
    if (key != "__metadata__") {
      header.tensors.push_back(detail::safetensors_entry(key, value, where));
      continue;
    }
    if (!value.is_object()) fail(where, ": __metadata__ is not an object");
    for (const auto& [name, entry] : value.items()) {
      if (!entry.is_string()) fail(where, ": __metadata__ entry \"", printable(name), "\" is not a string");
      header.metadata.emplace(name, entry.get<std::string>());
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes); });
  std::uint64_t end = 0;  // no holes, no overlaps
  for (const StoredTensor& tensor : header.tensors) {
    if (tensor.offset != end)
      fail(where, ": tensor \"", tensor.name, "\" begins at ", tensor.offset, " of the data, the one before ends at ", end,
           "; tensors must neither overlap nor leave holes");
    end = tensor.offset + tensor.bytes;  // both came from a checked [begin, end)
  }
  for (const StoredTensor& tensor : header.tensors) detail::check_span(tensor, where);
  const std::uint64_t data = file.size() - 8 - length;
  if (end > data)
    fail(where, ": the header promises ", end, " bytes of data, the file holds ", data, "; the file is cut short (last tensor \"",
         header.tensors.back().name, "\")");
  if (end < data) fail(where, ": ", data - end, " bytes lie behind the last tensor");
  for (StoredTensor& tensor : header.tensors) tensor.offset += 8 + length;
  return header;
}

/// A mapped file and its checked header.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path) : file_(path), header_(read_safetensors_header(file_.bytes(), path)) {
    for (const StoredTensor& tensor : header_.tensors) by_name_.emplace(tensor.name, &tensor);
  }

  [[nodiscard]] const std::string& path() const noexcept { return file_.path(); }
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const noexcept { return header_.tensors; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept { return header_.metadata; }
  /// The tensor of that name, or null.
  [[nodiscard]] const StoredTensor* find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }
  /// Its bytes in the map, not necessarily aligned.
  [[nodiscard]] std::span<const std::byte> bytes(const StoredTensor& tensor) const {
    return file_.bytes().subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes));
  }
  void forget(const StoredTensor& tensor) const noexcept { file_.forget(bytes(tensor)); }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  std::map<std::string, const StoredTensor*> by_name_{};  ///< into header_, whose heap memory moves along
};

/// Element type of a tensor; throws, naming tensor, file and type, when it is unknown.
[[nodiscard]] inline DType known_dtype(const StoredTensor& tensor, const std::string& where) {
  const auto dtype = dtype_named(tensor.dtype);
  if (!dtype) fail(where, ": tensor \"", tensor.name, "\" has the unknown dtype \"", printable(tensor.dtype), '"');
  return *dtype;
}

}  // namespace ptq::io
