// Reader of GGUF files, versions 2 and 3: key/value metadata, tensor descriptions, data. Little-endian.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/gguf_cursor.hpp>
#include <ptq/io/gguf_metadata.hpp>
#include <ptq/io/gguf_types.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/printable.hpp>
#include <ptq/io/stored_tensor.hpp>

namespace ptq::io {

struct GgufHeader {
  GgufMetadata metadata{};
  std::vector<StoredTensor> tensors{};  ///< in file order; shapes outermost first
};

namespace detail {

/// Name, shape, type and offset in the data section of one tensor.
inline std::pair<StoredTensor, const GgmlType*> read_gguf_tensor(GgufCursor& in) {
  StoredTensor tensor;
  tensor.name = in.read_string();
  if (tensor.name.size() >= 64) in.stop(cat("a tensor name has ", tensor.name.size(), " bytes; the format allows 63"));
  in.part = "tensor \"" + printable(tensor.name) + '"';
  if (printable(tensor.name) != tensor.name) in.stop("its name holds control characters");
  const auto dimensions = in.read<std::uint32_t>();
  if (dimensions > 4) in.stop(cat(dimensions, " dimensions; the format allows 4"));
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.read<std::uint64_t>();
    if (size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) in.stop(cat("the size ", size, " is too large"));
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());  // stored innermost first
  const auto id = in.read<std::uint32_t>();
  const GgmlType* type = ggml_type(id);
  tensor.dtype = type != nullptr ? std::string(type->name) : cat("type ", id);
  tensor.offset = in.read<std::uint64_t>();
  return {std::move(tensor), type};
}

}  // namespace detail

/// Checks and reads everything before the data of a whole file; offsets of the result count from its start. Errors begin with `where`.
inline GgufHeader read_gguf_header(std::span<const std::byte> file, const std::string& where) {
  detail::GgufCursor in(file, where);
  if (file.size() < 24 || std::string_view(reinterpret_cast<const char*>(file.data()), 4) != "GGUF")
    fail(where, ": not a GGUF file (", file.size(), " bytes; it must begin with GGUF)");
  in.read<std::uint32_t>();
  const auto version = in.read<std::uint32_t>();
  if ((version & 0xffffu) == 0) fail(where, ": a big-endian GGUF file; convert it to little-endian");
  if (version != 2 && version != 3) fail(where, ": GGUF version ", version, "; versions 2 and 3 are supported");
  const std::uint64_t tensor_count = in.read_count(24, "tensors");  // name length, dimensions, type, offset
  const std::uint64_t pair_count = in.read_count(13, "key/value pairs");

  GgufHeader header{GgufMetadata(where), {}};
  for (std::uint64_t i = 0; i < pair_count; ++i) {
    in.part = cat("key ", i);
    std::string key = in.read_string();
    in.part = "key \"" + printable(key) + '"';
    GgufValue value = detail::read_gguf_value(in);
    if (!header.metadata.add(std::move(key), std::move(value))) in.stop("occurs twice");
  }
  if (header.metadata.integer("split.count", 1) > 1) fail(where, ": one part of a split GGUF; merge the parts into one file");
  const std::int64_t alignment = header.metadata.integer("general.alignment", 32);
  if (alignment < 1 || alignment > (1 << 20) || !std::has_single_bit(static_cast<std::uint64_t>(alignment)))
    fail(where, ": general.alignment is ", alignment, ", not a power of two up to 1048576");
  const auto align = static_cast<std::uint64_t>(alignment);
  const auto aligned = [align](std::uint64_t offset) { return (offset + align - 1) & ~(align - 1); };

  std::set<std::string> names;
  std::vector<const GgmlType*> types;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    in.part = cat("tensor ", i);
    auto [tensor, type] = detail::read_gguf_tensor(in);
    if (!names.insert(tensor.name).second) in.stop("occurs twice");
    header.tensors.push_back(std::move(tensor));
    types.push_back(type);
  }
  const std::uint64_t data = aligned(in.position());
  std::uint64_t end = 0;  // of the tensor before, in the data section
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    StoredTensor& tensor = header.tensors[i];
    const bool after_unknown = i > 0 && types[i - 1] == nullptr;  // whose size nobody knows
    if (after_unknown ? tensor.offset < end || tensor.offset % align != 0 : tensor.offset != aligned(end))
      fail(where, ": tensor \"", tensor.name, "\" begins at ", tensor.offset, " of the data; after the tensor before it, ", aligned(end),
           " is expected");
    tensor.bytes = types[i] == nullptr ? 0 : ggml_size(*types[i], tensor, where);
    if (data > file.size() || tensor.offset > file.size() - data || tensor.bytes > file.size() - data - tensor.offset)
      fail(where, ": tensor \"", tensor.name, "\" (", tensor.bytes, " bytes at ", tensor.offset, " of the data) ends behind the file of ",
           file.size(), " bytes; the file is cut short");
    end = tensor.offset + tensor.bytes;
    tensor.offset += data;
  }
  return header;
}

/// A mapped file and its checked header.
class GgufFile {
 public:
  explicit GgufFile(const std::string& path) : file_(path), header_(read_gguf_header(file_.bytes(), path)) {
    for (const StoredTensor& tensor : header_.tensors) by_name_.emplace(tensor.name, &tensor);
  }

  [[nodiscard]] const std::string& path() const noexcept { return file_.path(); }
  [[nodiscard]] const GgufMetadata& metadata() const noexcept { return header_.metadata; }
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const noexcept { return header_.tensors; }
  /// The tensor of that name, or null.
  [[nodiscard]] const StoredTensor* find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }
  [[nodiscard]] std::span<const std::byte> bytes(const StoredTensor& tensor) const {
    return file_.bytes().subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes));
  }
  void forget(const StoredTensor& tensor) const noexcept { file_.forget(bytes(tensor)); }

 private:
  MappedFile file_;
  GgufHeader header_;
  std::map<std::string, const StoredTensor*> by_name_{};  ///< into header_, whose heap memory moves along
};

}  // namespace ptq::io
