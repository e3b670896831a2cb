// Writing HDF5: a file is built in memory and written atomically; the same content gives the same bytes.
// Include ptq/io/hdf5.hpp.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/atomic_file.hpp>
#include <ptq/io/hdf5/handle.hpp>
#include <ptq/io/hdf5/memory.hpp>

namespace ptq::io {

/// An HDF5 file under construction. Paths start at the root; parents are made as needed; names are kept in the order of creation.
class Hdf5Writer {
 public:
  /// Datasets of `alignment` bytes or more begin at a multiple of it.
  explicit Hdf5Writer(std::uint64_t alignment = 1) : bytes_(std::make_unique<hdf5::SparseBytes>()) {
    hdf5::start();
    const hdf5::Handle access = hdf5::memory_access(*bytes_, alignment);
    file_ = hdf5::Handle(H5Fcreate(name_.c_str(), H5F_ACC_TRUNC, ordered(H5P_FILE_CREATE), access), H5Fclose, name_);
  }

  /// Makes a group, or nothing when it is there.
  void group(const std::string& path) {
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      const std::string part = path.substr(0, end);
      if (!part.empty() && part != "/" && H5Lexists(file_, part.c_str(), H5P_DEFAULT) <= 0) {
        const hdf5::Handle properties = ordered(H5P_GROUP_CREATE);
        hdf5::Handle(H5Gcreate2(file_, part.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Gclose, where(part));
      }
      if (end == std::string::npos) return;
    }
  }

  /// One number, truth value (as h5py stores it) or text of an object; it must exist and not have that attribute yet.
  template <class T>
  requires(std::is_arithmetic_v<T>) void attribute(const std::string& object, const std::string& name, T value) {
    const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose, where(object));
    if constexpr (std::same_as<T, bool>) {
      const std::int8_t byte = value ? 1 : 0;
      put_attribute(object, name, truth_type(), space, &byte);
    } else {
      put_attribute(object, name, hdf5::stored_type(hdf5::dtype_of<T>()), space, &value);
    }
  }
  void attribute(const std::string& object, const std::string& name, std::string_view text) {
    const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose, where(object));
    const std::string copy = plain(text, object, name);
    const char* pointer = copy.c_str();
    put_attribute(object, name, text_type(), space, &pointer);
  }
  void attribute(const std::string& object, const std::string& name, const char* text) { attribute(object, name, std::string_view(text)); }

  /// A list.
  template <hdf5::Number T>
  void attribute(const std::string& object, const std::string& name, const std::vector<T>& values) {
    put_attribute(object, name, hdf5::stored_type(hdf5::dtype_of<T>()), line(values.size()), values.data());
  }
  void attribute(const std::string& object, const std::string& name, const std::vector<std::string>& texts) {
    const std::vector<const char*> pointers = pointers_to(texts, object, name);
    put_attribute(object, name, text_type(), line(texts.size()), pointers.data());
  }

  /// A contiguous dataset, row by row; the product of `shape` is the number of values, and an empty shape means one value.
  template <hdf5::Number T>
  void dataset(const std::string& path, std::span<const T> values, const std::vector<std::int64_t>& shape) {
    dataset(path, hdf5::dtype_of<T>(), std::as_bytes(values), shape);
  }
  template <hdf5::Number T>
  void dataset(const std::string& path, const std::vector<T>& values) {
    dataset(path, std::span<const T>(values), {static_cast<std::int64_t>(values.size())});
  }
  void dataset(const std::string& path, DType type, std::span<const std::byte> bytes, const std::vector<std::int64_t>& shape) {
    const hdf5::Handle made = create(path, type, shape, H5D_ALLOC_TIME_LATE);
    const hdf5::Handle space(H5Dget_space(made), H5Sclose, where(path));
    const auto count = static_cast<std::uint64_t>(H5Sget_simple_extent_npoints(space));
    if (count * (bits(type) / 8) != bytes.size())
      fail(where(path), ": ", bytes.size(), " bytes do not fill ", count, " elements of ", name(type));
    if (bytes.empty()) return;
    hdf5::check(H5Dwrite(made, hdf5::stored_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) >= 0, where(path));
  }

  /// A list of texts.
  void texts(const std::string& path, const std::vector<std::string>& values) {
    make_parent(path);
    const hdf5::Handle properties = ordered(H5P_DATASET_CREATE), space = line(values.size());
    const hdf5::Handle made(H5Dcreate2(file_, path.c_str(), text_type(), space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose,
                            where(path));
    const std::vector<const char*> pointers = pointers_to(values, path, "");
    if (!values.empty()) hdf5::check(H5Dwrite(made, text_type(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) >= 0, where(path));
  }

  /// Ends the writing and saves the file under this name, atomically.
  void save(const std::filesystem::path& target) {
    const hdf5::SparseBytes& bytes = finish();
    AtomicFile file(target, bytes.size() + hdf5::seal_tail);
    bytes.copy_to(file);
    file.write(bytes.seal_around({}));
    file.commit();
  }

 private:
  friend class Hdf5Bulk;

  /// Ends the writing: the bytes of the whole file.
  const hdf5::SparseBytes& finish() {
    hdf5::check(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0, name_);
    file_ = hdf5::Handle();
    return *bytes_;
  }

  [[nodiscard]] std::string where(const std::string& object) const { return name_ + ": " + object; }

  /// Properties of a new object: no times, names in order, attributes in its header (which takes less room than the heap for many).
  [[nodiscard]] hdf5::Handle ordered(hid_t kind) const {
    hdf5::Handle properties(H5Pcreate(kind), H5Pclose, name_);
    constexpr unsigned order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    bool good = H5Pset_attr_creation_order(properties, order) >= 0 && H5Pset_obj_track_times(properties, false) >= 0 &&
                H5Pset_attr_phase_change(properties, 256, 128) >= 0;
    if (kind != H5P_DATASET_CREATE) good = good && H5Pset_link_creation_order(properties, order) >= 0;
    hdf5::check(good, name_);
    return properties;
  }

  [[nodiscard]] hdf5::Handle create(const std::string& path, DType type, const std::vector<std::int64_t>& shape, H5D_alloc_time_t when) {
    make_parent(path);
    std::vector<hsize_t> dims;
    std::uint64_t product = bits(type) / 8;
    for (const std::int64_t dim : shape) {
      if (dim < 0 || __builtin_mul_overflow(product, static_cast<std::uint64_t>(dim), &product) || product > INT64_MAX)
        fail(where(path), ": cannot have a dimension of ", dim);
      dims.push_back(static_cast<hsize_t>(dim));
    }
    const hdf5::Handle properties = ordered(H5P_DATASET_CREATE);
    hdf5::check(H5Pset_alloc_time(properties, when) >= 0 && H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER) >= 0, name_);
    const hdf5::Handle space(dims.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                             H5Sclose, where(path));
    hdf5::Handle made(H5Dcreate2(file_, path.c_str(), hdf5::stored_type(type), space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose,
                      where(path));
    if (hdf5::is_disguised(type)) attribute(path, "dtype", name(type));
    return made;
  }

  void make_parent(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    if (slash != std::string::npos && slash > 0) group(path.substr(0, slash));
  }

  void put_attribute(const std::string& object, const std::string& name, hid_t type, hid_t space, const void* value) {
    const std::string place = where(object) + ", attribute " + name;
    const hdf5::Handle owner(H5Oopen(file_, object.empty() ? "/" : object.c_str(), H5P_DEFAULT), H5Oclose, place);
    const hdf5::Handle made(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, place);
    if (value != nullptr) hdf5::check(H5Awrite(made, type, value) >= 0, place);
  }

  /// UTF-8 of any length: what h5py gives as str.
  [[nodiscard]] hdf5::Handle text_type() const {
    hdf5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose, name_);
    hdf5::check(H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0, name_);
    return type;
  }

  /// What h5py gives as bool.
  [[nodiscard]] hdf5::Handle truth_type() const {
    hdf5::Handle type(H5Tenum_create(H5T_STD_I8LE), H5Tclose, name_);
    const std::int8_t no = 0, yes = 1;
    hdf5::check(H5Tenum_insert(type, "FALSE", &no) >= 0 && H5Tenum_insert(type, "TRUE", &yes) >= 0, name_);
    return type;
  }

  [[nodiscard]] hdf5::Handle line(std::size_t count) const {
    const hsize_t dim = count;
    return {H5Screate_simple(1, &dim, nullptr), H5Sclose, name_};
  }

  [[nodiscard]] std::string plain(std::string_view text, const std::string& object, const std::string& name) const {
    if (text.find('\0') != std::string_view::npos) fail(where(object), ", ", name, ": a text with a zero byte cannot be stored");
    return std::string(text);
  }

  [[nodiscard]] std::vector<const char*> pointers_to(const std::vector<std::string>& texts, const std::string& object,
                                                     const std::string& name) const {
    std::vector<const char*> pointers;
    for (const std::string& text : texts) {
      (void)plain(text, object, name);
      pointers.push_back(text.c_str());
    }
    return pointers;
  }

  std::string name_ = "HDF5 in memory";
  std::unique_ptr<hdf5::SparseBytes> bytes_;  // outlives the file, and stays where it is when the writer is moved
  hdf5::Handle file_{};
};

}  // namespace ptq::io
