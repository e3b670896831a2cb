// Tensor types of ggml: name and block geometry. A type's values are made by gguf_dequant.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ptq/core/error.hpp>
#include <ptq/io/stored_tensor.hpp>

namespace ptq::io {

/// `elements` consecutive values of a row are stored in `bytes`.
struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  std::uint32_t elements;
  std::uint32_t bytes;
};

/// Identifiers and sizes as ggml fixes them. Identifiers that are absent here were withdrawn or came later.
inline constexpr std::array<GgmlType, 33> ggml_types{{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},
    {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},
    {13, "Q5_K", 256, 176},   {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 292}, {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18}, {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},       {25, "I16", 1, 2},      {26, "I32", 1, 4},        {27, "I64", 1, 8},
    {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56}, {30, "BF16", 1, 2},     {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},  {41, "Q1_0", 128, 18},
}};

[[nodiscard]] constexpr const GgmlType* ggml_type(std::uint32_t id) noexcept {
  for (const GgmlType& type : ggml_types)
    if (type.id == id) return &type;
  return nullptr;
}

[[nodiscard]] constexpr const GgmlType* ggml_type(std::string_view name) noexcept {
  for (const GgmlType& type : ggml_types)
    if (type.name == name) return &type;
  return nullptr;
}

/// Bytes of a tensor whose last dimension runs along the blocks. Throws, naming the tensor, when a row is not whole blocks or the size
/// cannot be counted.
[[nodiscard]] inline std::uint64_t ggml_size(const GgmlType& type, const StoredTensor& tensor, const std::string& where) {
  const auto count = element_count(tensor.shape);
  if (!count) fail(where, ": tensor \"", tensor.name, "\": shape ", text(tensor.shape), " has more elements than can be counted");
  const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % type.elements != 0)
    fail(where, ": tensor \"", tensor.name, "\": rows of ", row, " elements are not whole blocks of ", type.elements, " (", type.name, ')');
  const auto size = times(*count / type.elements, type.bytes);
  if (!size) fail(where, ": tensor \"", tensor.name, "\": shape ", text(tensor.shape), " takes more bytes than can be counted");
  return *size;
}

}  // namespace ptq::io
