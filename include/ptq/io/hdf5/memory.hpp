// Where HDF5 files are built: a driver of the library that keeps what is written in pages of memory and leaves the rest a hole.
//
// The library's own in-memory driver would need the whole length of the file, holes included, and its image of a file in the format of
// 1.8 carries a wrong checksum (H5Fget_file_image of 1.10.8). This one is as large as what was written, so the layout of a file larger
// than memory fits; and neither a full disk nor a limit on file sizes can make the library fail in the middle of closing a file.
// Include ptq/io/hdf5.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ptq/io/atomic_file.hpp>
#include <ptq/io/hdf5/handle.hpp>
#include <ptq/io/hdf5/seal.hpp>

namespace ptq::io::hdf5 {

/// Bytes at any address; those never written are zero and take no room.
class SparseBytes {
 public:
  void write(std::uint64_t at, std::span<const std::byte> bytes) {
    size_ = std::max(size_, at + bytes.size());
    while (!bytes.empty()) {
      const std::uint64_t inside = at % page;
      const std::size_t count = std::min<std::size_t>(page - inside, bytes.size());
      std::vector<std::byte>& to = pages_[at / page];
      if (to.empty()) to.resize(page);
      std::memcpy(to.data() + inside, bytes.data(), count);
      bytes = bytes.subspan(count);
      at += count;
    }
  }

  void read(std::uint64_t at, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const std::uint64_t inside = at % page;
      const std::size_t count = std::min<std::size_t>(page - inside, bytes.size());
      const auto from = pages_.find(at / page);
      if (from == pages_.end()) {
        std::memset(bytes.data(), 0, count);
      } else {
        std::memcpy(bytes.data(), from->second.data() + inside, count);
      }
      bytes = bytes.subspan(count);
      at += count;
    }
  }

  /// Writes all but the holes, and gives the file its length.
  void copy_to(AtomicFile& file) const {
    for (const auto& [number, bytes] : pages_) {
      const std::uint64_t at = number * page;
      if (at < size_) file.write_at(at, std::span(bytes).first(std::min<std::size_t>(page, size_ - at)));
    }
    file.extend(size_);
  }

  /// The seal of these bytes, those in `skipped` left out.
  [[nodiscard]] std::string seal_around(const std::vector<Extent>& skipped) const {
    const auto from = [this](std::uint64_t at, std::span<std::byte> bytes) { read(at, bytes); };
    return seal(size_, digest_around(size_, skipped, from), skipped);
  }

  void set_size(std::uint64_t size) { size_ = size; }
  [[nodiscard]] std::uint64_t size() const { return size_; }

 private:
  static constexpr std::uint64_t page = 1U << 16U;
  std::map<std::uint64_t, std::vector<std::byte>> pages_{};
  std::uint64_t size_ = 0;
};

/// An open file of the driver. The library allocates addresses up to `end`; the bytes belong to the writer.
struct MemoryFile {
  H5FD_t base{};  // first: the library sees this part only
  SparseBytes* bytes = nullptr;
  haddr_t end = 0;
};

/// The driver's identifier, registered once.
[[nodiscard]] inline hid_t memory_driver() {
  static const hid_t driver = [] {
    H5FD_class_t table{};
#ifdef H5FD_CLASS_VERSION
    table.version = H5FD_CLASS_VERSION;
    table.value = static_cast<H5FD_class_value_t>(600);
#endif
    table.name = "ptq memory";
    table.maxaddr = static_cast<haddr_t>(INT64_MAX);
    table.fc_degree = H5F_CLOSE_STRONG;
    table.fapl_size = sizeof(SparseBytes*);
    table.open = [](const char*, unsigned, hid_t access, haddr_t) -> H5FD_t* {
      const void* info = H5Pget_driver_info(access);
      if (info == nullptr) return nullptr;
      auto file = std::make_unique<MemoryFile>();
      file->bytes = *static_cast<SparseBytes* const*>(info);
      return &file.release()->base;
    };
    table.close = [](H5FD_t* file) -> herr_t {
      delete reinterpret_cast<MemoryFile*>(file);
      return 0;
    };
    table.query = [](const H5FD_t*, unsigned long* flags) -> herr_t {
      *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
      return 0;
    };
    table.get_eoa = [](const H5FD_t* file, H5FD_mem_t) { return reinterpret_cast<const MemoryFile*>(file)->end; };
    table.set_eoa = [](H5FD_t* file, H5FD_mem_t, haddr_t end) -> herr_t {
      reinterpret_cast<MemoryFile*>(file)->end = end;
      return 0;
    };
    table.get_eof = [](const H5FD_t* file, H5FD_mem_t) -> haddr_t { return reinterpret_cast<const MemoryFile*>(file)->bytes->size(); };
    table.read = [](H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t size, void* to) -> herr_t {
      reinterpret_cast<MemoryFile*>(file)->bytes->read(at, std::span(static_cast<std::byte*>(to), size));
      return 0;
    };
    table.write = [](H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t size, const void* from) -> herr_t {
      try {
        reinterpret_cast<MemoryFile*>(file)->bytes->write(at, std::span(static_cast<const std::byte*>(from), size));
        return 0;
      } catch (const std::exception&) {  // no memory; the library is C
        return -1;
      }
    };
    table.truncate = [](H5FD_t* file, hid_t, hbool_t) -> herr_t {
      auto* open = reinterpret_cast<MemoryFile*>(file);
      open->bytes->set_size(open->end);
      return 0;
    };
    return H5FDregister(&table);
  }();
  if (driver < 0) fail("the HDF5 library takes no driver: ", last_error());
  return driver;
}

/// File access properties: in `bytes`, in the format that 1.8 and all later libraries read. What has `alignment` bytes or more begins at a
/// multiple of it.
[[nodiscard]] inline Handle memory_access(SparseBytes& bytes, std::uint64_t alignment) {
  constexpr std::string_view what = "HDF5 in memory";
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, what);
  SparseBytes* const pointer = &bytes;
  check(H5Pset_driver(access, memory_driver(), &pointer) >= 0, what);
  check(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0, what);
  check(H5Pset_alignment(access, alignment, alignment) >= 0, what);
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0, what);
  return access;
}

}  // namespace ptq::io::hdf5
