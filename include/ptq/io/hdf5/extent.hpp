// What an HDF5 dataset holds, and whether its file can hold that: asked before anything is allocated. Include ptq/io/hdf5.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ptq/io/hdf5/handle.hpp>
#include <ptq/io/hdf5/value.hpp>

namespace ptq::io {

/// What a dataset holds.
struct Hdf5Info {
  std::vector<std::int64_t> shape{};  ///< empty for a single value
  std::optional<DType> type{};        ///< none for texts and for types that are no numbers
  bool disguised = false;             ///< `type` comes from an attribute, the elements are unsigned integers of its size
  bool text = false;                  ///< texts, of fixed or variable length
  std::uint64_t count = 1;            ///< elements
  std::uint64_t bytes = 0;            ///< of all elements, uncompressed

  /// Elements in rows first … first + rows - 1 of the leading dimension; fails where there are none such.
  [[nodiscard]] std::uint64_t count_rows(std::int64_t first, std::int64_t rows, const std::string& where) const {
    const std::int64_t all = shape.empty() ? 0 : shape[0];
    if (shape.empty() || first < 0 || rows < 0 || first > all || rows > all - first)
      fail(where, ": ", rows, " rows from row ", first, " were asked of ", all);
    return all == 0 ? 0 : count / static_cast<std::uint64_t>(all) * static_cast<std::uint64_t>(rows);
  }
};

namespace hdf5 {

/// The name of the real element type where an attribute `dtype` gives one ("BF16" over 16-bit integers).
inline void unmask(hid_t dataset, const std::string& where, Hdf5Info& what) {
  if (what.type != DType::u8 && what.type != DType::u16) return;
  if (H5Aexists(dataset, "dtype") <= 0) return;
  const auto text = read_attribute<std::string>(dataset, "dtype", where);
  const std::optional<DType> real = dtype_named(text);
  if (!real || bits(*real) != bits(*what.type)) fail(where, ": its attribute dtype, '", text, "', does not suit its elements");
  what.disguised = real != what.type;
  what.type = real;
}

/// Shape, type and size of an open dataset of a file of `file_size` bytes. Fails when the claimed elements wrap, lie beyond the end of
/// the file, or are more than compressed data can expand to.
[[nodiscard]] inline Hdf5Info inspect(hid_t dataset, std::uint64_t file_size, const std::string& where) {
  constexpr std::uint64_t expansion = 1100;                    // deflate makes at most 1032 bytes of one
  constexpr std::uint64_t unstored = std::uint64_t{1} << 20U;  // what may be claimed of fill values, which are nowhere
  const Handle space(H5Dget_space(dataset), H5Sclose, where), type(H5Dget_type(dataset), H5Tclose, where);
  const Handle properties(H5Dget_create_plist(dataset), H5Pclose, where);
  if (H5Sget_simple_extent_type(space) == H5S_NULL) fail(where, ": has an empty dataspace");
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> dims(static_cast<std::size_t>(std::max(rank, 0)));
  check(rank >= 0 && H5Sget_simple_extent_dims(space, dims.data(), nullptr) == rank, where);

  Hdf5Info what;
  const auto grow = [&](std::uint64_t& product, std::uint64_t factor) {
    if (__builtin_mul_overflow(product, factor, &product) || product > INT64_MAX) fail(where, ": its shape is absurd");
  };
  what.bytes = H5Tget_size(type);
  std::uint64_t claimed = what.bytes;
  for (const hsize_t dim : dims) {
    grow(claimed, std::max<hsize_t>(dim, 1));  // a shape such as (2^40, 2^40, 0) is absurd too
    what.count *= dim;
    what.shape.push_back(static_cast<std::int64_t>(dim));
  }
  what.bytes *= what.count;
  what.text = H5Tget_class(type) == H5T_STRING;
  what.type = dtype_of_stored(type);
  unmask(dataset, where, what);
  if (what.count == 0) return what;

  const H5D_layout_t layout = H5Pget_layout(properties);
  if (layout == H5D_VIRTUAL || (layout == H5D_CONTIGUOUS && H5Pget_external_count(properties) > 0))
    fail(where, ": keeps its data in other files, which is not supported");
  const std::uint64_t stored = std::min<std::uint64_t>(H5Dget_storage_size(dataset), file_size);
  if (layout == H5D_CHUNKED) {
    std::vector<hsize_t> chunk(dims.size());
    check(H5Pget_chunk(properties, rank, chunk.data()) == rank, where);
    std::uint64_t bytes = H5Tget_size(type);
    for (const hsize_t dim : chunk) grow(bytes, dim);
    claimed = std::max(claimed, bytes);
    if (claimed / expansion > stored && claimed > unstored) fail(where, ": claims ", claimed, " bytes, which the file cannot hold");
  } else if (stored == 0 ? claimed > unstored : claimed > stored) {
    fail(where, ": claims ", claimed, " bytes, which the file cannot hold");
  } else if (layout == H5D_CONTIGUOUS && stored > 0 && H5Dget_offset(dataset) > file_size - stored) {
    fail(where, ": its ", claimed, " bytes lie beyond the end of the file");
  }
  return what;
}

}  // namespace hdf5
}  // namespace ptq::io
