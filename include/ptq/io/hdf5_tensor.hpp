// Tensors in and out of HDF5 files.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/tensor.hpp>
#include <ptq/io/hdf5.hpp>
#include <ptq/io/mapped_tensor.hpp>

namespace ptq::io {

/// The element types that both sides know.
inline constexpr std::array<std::pair<at::ScalarType, DType>, 10> tensor_dtypes{{{at::kFloat, DType::f32},
                                                                                 {at::kDouble, DType::f64},
                                                                                 {at::kHalf, DType::f16},
                                                                                 {at::kBFloat16, DType::bf16},
                                                                                 {at::kLong, DType::i64},
                                                                                 {at::kInt, DType::i32},
                                                                                 {at::kShort, DType::i16},
                                                                                 {at::kChar, DType::i8},
                                                                                 {at::kByte, DType::u8},
                                                                                 {at::kBool, DType::boolean}}};

[[nodiscard]] inline DType stored_dtype(const Tensor& t, const std::string& path) {
  for (const auto& [tensor, stored] : tensor_dtypes)
    if (tensor == t.scalar_type()) return stored;
  fail(path, ": ", shape_text(t), " has no stored form");
}

[[nodiscard]] inline std::span<const std::byte> bytes_of(const Tensor& contiguous) {
  return {static_cast<const std::byte*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

/// Writes a tensor; an undefined one is left out.
inline void put(Hdf5Writer& file, const std::string& path, const Tensor& tensor) {
  if (!tensor.defined()) return;
  const Tensor t = tensor.detach().cpu().contiguous();
  file.dataset(path, stored_dtype(t, path), bytes_of(t), t.sizes().vec());
}

/// Makes the tensor that is read into.
using TensorMaker = std::function<Tensor(at::IntArrayRef sizes, at::ScalarType type)>;

/// Reads a dataset, or its rows first … first + rows − 1. Throws, naming file and dataset, when it is absent or has no tensor form.
[[nodiscard]] inline Tensor get(const Hdf5Reader& file, const std::string& path, std::optional<int64_t> first = std::nullopt,
                                int64_t rows = 0, const TensorMaker& make = {}) {
  const Hdf5Info info = file.info(path);
  std::vector<int64_t> shape = info.shape;
  if (first && !shape.empty()) (void)info.count_rows(*first, rows, file.path().string() + ": " + path), shape[0] = rows;
  for (const auto& [tensor, stored] : tensor_dtypes) {
    if (info.type != stored) continue;
    Tensor t = make ? make(shape, tensor) : at::empty(shape, tensor);
    file.read_bytes(path, stored, {static_cast<std::byte*>(t.mutable_data_ptr()), t.nbytes()}, first, rows);
    return t;
  }
  fail(file.path().string(), ": ", path, ": its type has no tensor form");
}

/// The dataset, or its rows, as a read-only tensor over the file itself. Undefined where elements do not lie in the file as in memory, or
/// not at a multiple of 64 bytes, where tensors begin: products could then differ in their last bits.
[[nodiscard]] inline Tensor map_rows(const Hdf5Reader& file, const std::string& path, std::optional<int64_t> first = std::nullopt,
                                     int64_t rows = 0) {
  constexpr std::uint64_t alignment = 64;
  const Hdf5Info info = file.info(path);
  for (const auto& [tensor, stored] : tensor_dtypes) {
    if (info.type != stored) continue;
    const std::optional<std::uint64_t> begin = file.offset(path, stored);
    if (!begin) return {};
    std::vector<int64_t> shape = info.shape;
    std::uint64_t at = *begin, bytes = info.bytes;
    if (first) {
      bytes = info.count_rows(*first, rows, file.path().string() + ": " + path) * (bits(stored) / 8);
      at += info.bytes / static_cast<std::uint64_t>(shape[0]) * static_cast<std::uint64_t>(*first), shape[0] = rows;
    }
    const auto map = std::make_shared<const MappedFile>(file.path().string());
    if (at % alignment != 0 || at > map->size() || bytes > map->size() - at) return {};
    return tensor_over(map->bytes().subspan(at, bytes), map, shape, tensor);
  }
  return {};
}

/// What `get` gives, or an undefined tensor where the dataset is absent.
[[nodiscard]] inline Tensor get_if(const Hdf5Reader& file, const std::string& path) {
  return file.exists(path) ? get(file, path) : Tensor();
}

}  // namespace ptq::io
