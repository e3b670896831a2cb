// HDF5 files larger than memory: the library lays them out, we write the elements to their place. Include ptq/io/hdf5.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ptq/io/atomic_file.hpp>
#include <ptq/io/hdf5/write.hpp>

namespace ptq::io {

/// A dataset of a bulk file, known before its elements are.
struct BulkDataset {
  std::string path{};
  DType type = DType::f32;
  std::vector<std::int64_t> shape{};  ///< leading dimension: rows
};

/// Contiguous datasets, filled in any order and committed by a rename. They begin at pages of the file, so their rows can be mapped.
///
/// HDF5 only lays the file out, in memory, where the elements are a hole; so a disk that fills up is met by our own writes. Room for the
/// whole file is reserved at once.
class Hdf5Bulk {
 public:
  /// `rest` adds attributes and small datasets, which must be known now.
  Hdf5Bulk(const std::filesystem::path& target, std::vector<BulkDataset> datasets, const std::function<void(Hdf5Writer&)>& rest = {})
      : datasets_(std::move(datasets)), file_(target, needed(target)) {
    Hdf5Writer writer(page);
    {
      std::vector<hdf5::Handle> made;
      for (const BulkDataset& dataset : datasets_)
        made.push_back(writer.create(dataset.path, dataset.type, dataset.shape, H5D_ALLOC_TIME_EARLY));
      if (rest) rest(writer);
      for (const hdf5::Handle& dataset : made) offsets_.push_back(H5Dget_offset(dataset));
    }
    std::vector<hdf5::Extent> elements;  // not sealed: they come later, and are too many to be read at each opening
    for (std::size_t i = 0; i < datasets_.size(); ++i)
      if (all_bytes(datasets_[i]) > 0) elements.push_back({offsets_[i], offsets_[i] + all_bytes(datasets_[i])});
    std::sort(elements.begin(), elements.end(), [](const hdf5::Extent& a, const hdf5::Extent& b) { return a.begin < b.begin; });
    const hdf5::SparseBytes& layout = writer.finish();
    layout.copy_to(file_);
    file_.write(layout.seal_around(elements));
    left_ = bytes_;
  }

  /// Writes rows first, first + 1, … of a dataset (its index in the list given).
  void write(std::size_t dataset, std::int64_t first, std::span<const std::byte> rows) {
    const std::uint64_t offset = place(dataset, first, rows.size());
    if (rows.empty()) return;
    file_.write_at(offset, rows);
    left_ -= std::min<std::uint64_t>(left_, rows.size());
  }

  /// Writes a part of one row, from byte `inside` of it on.
  void write_part(std::size_t dataset, std::int64_t row, std::uint64_t inside, std::span<const std::byte> part) {
    const std::uint64_t all = row_bytes(datasets_.at(dataset)), offset = place(dataset, row, all);
    if (inside > all || part.size() > all - inside)
      fail(file_.target().string(), ": ", datasets_[dataset].path, ": ", part.size(), " bytes from ", inside, " are no part of a row of ",
           all);
    file_.write_at(offset + inside, part);
    left_ -= std::min<std::uint64_t>(left_, part.size());
  }

  /// Reads back rows that were written.
  void read(std::size_t dataset, std::int64_t first, std::span<std::byte> rows) const {
    file_.read_at(place(dataset, first, rows.size()), rows);
  }

  /// Makes the file appear; every element must have been written.
  void commit() {
    if (left_ != 0) fail(file_.target().string(), ": ", left_, " of ", bytes_, " bytes were never written");
    file_.commit();
  }

 private:
  static constexpr std::uint64_t page = 4096;

  [[nodiscard]] static std::uint64_t row_bytes(const BulkDataset& dataset) {
    std::uint64_t bytes = bits(dataset.type) / 8;
    for (std::size_t i = 1; i < dataset.shape.size(); ++i) bytes *= static_cast<std::uint64_t>(dataset.shape[i]);
    return bytes;
  }

  [[nodiscard]] static std::uint64_t all_bytes(const BulkDataset& dataset) {
    return row_bytes(dataset) * static_cast<std::uint64_t>(dataset.shape[0]);
  }

  [[nodiscard]] std::uint64_t needed(const std::filesystem::path& target) {
    for (const BulkDataset& dataset : datasets_) {
      std::uint64_t bytes = bits(dataset.type) / 8;
      for (const std::int64_t dim : dataset.shape)
        if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes)) bytes = UINT64_MAX;
      if (dataset.shape.empty() || bytes > INT64_MAX || __builtin_add_overflow(bytes_, bytes, &bytes_) || bytes_ > INT64_MAX / 2)
        fail(target.string(), ": ", dataset.path, ": its shape is absurd");
    }
    return bytes_ + page * (1 + datasets_.size());  // the metadata come on top, and what lies before a page
  }

  [[nodiscard]] std::uint64_t place(std::size_t dataset, std::int64_t first, std::size_t size) const {
    const BulkDataset& to = datasets_.at(dataset);
    const std::uint64_t row = row_bytes(to), count = row == 0 ? 0 : size / row;
    if (first < 0 || first > to.shape[0] || count * row != size || count > static_cast<std::uint64_t>(to.shape[0] - first))
      fail(file_.target().string(), ": ", to.path, ": ", size, " bytes are no rows from ", first, " of ", to.shape[0]);
    return offsets_[dataset] + static_cast<std::uint64_t>(first) * row;
  }

  std::vector<BulkDataset> datasets_;
  std::uint64_t bytes_ = 0, left_ = 0;
  AtomicFile file_;
  std::vector<std::uint64_t> offsets_{};
};

}  // namespace ptq::io
