// Reading HDF5: nothing is allocated before the file has shown that it can hold it. Include ptq/io/hdf5.hpp.
#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <ptq/io/hdf5/extent.hpp>
#include <ptq/io/hdf5/handle.hpp>
#include <ptq/io/hdf5/seal.hpp>
#include <ptq/io/hdf5/value.hpp>

namespace ptq::io {

/// Which files a reader takes: those that carry our seal only, or those of other programs too. A seal that is there is always checked;
/// without one, the library is at the mercy of the file.
enum class Hdf5Origin { ours, any };

/// A file opened for reading. Objects are named by paths from the root ("blocks/0/q"). Errors name the file and the object.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& path, Hdf5Origin origin = Hdf5Origin::any) : path_(path) {
    hdf5::start();
    std::error_code error;
    size_ = std::filesystem::file_size(path, error);
    if (error) fail(path.string(), ": cannot be opened: ", error.message());
    const bool sealed = hdf5::check_seal(path);
    const htri_t known = H5Fis_hdf5(path.c_str());
    if (known < 0) fail(path.string(), ": cannot be read: ", hdf5::last_error());
    if (known == 0) fail(path.string(), ": is not an HDF5 file");
    if (!sealed && origin == Hdf5Origin::ours) fail(path.string(), ": was not written by ptq, or was changed since");
    const hdf5::Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, path.string());
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, false, true);  // files appear whole, by renaming: there is no writer to wait for
#endif
    file_ = hdf5::Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose, path.string());
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  [[nodiscard]] bool exists(const std::string& object) const {
    if (object.empty() || object == "/") return true;
    for (std::size_t end = object.find('/', 1);; end = object.find('/', end + 1)) {  // H5Lexists wants all parents to exist
      const std::string part = object.substr(0, end);
      if (H5Lexists(file_, part.c_str(), H5P_DEFAULT) <= 0 || H5Oexists_by_name(file_, part.c_str(), H5P_DEFAULT) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return false;
      }
      if (end == std::string::npos) return true;
    }
  }

  /// Names directly below a group, in the order of their creation where the file knows it, else by name.
  [[nodiscard]] std::vector<std::string> groups(const std::string& group = "/") const { return members(group, H5O_TYPE_GROUP); }
  [[nodiscard]] std::vector<std::string> datasets(const std::string& group = "/") const { return members(group, H5O_TYPE_DATASET); }

  /// Names of the attributes of an object, in the same order.
  [[nodiscard]] std::vector<std::string> attributes(const std::string& object = "/") const {
    const hdf5::Handle opened = open(object);
    std::vector<std::string> names;
    const auto add = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
      static_cast<std::vector<std::string>*>(out)->emplace_back(name);
      return 0;
    };
    hsize_t at = 0;
    if (H5Aiterate2(opened, H5_INDEX_CRT_ORDER, H5_ITER_INC, &at, add, &names) < 0) {
      names.clear();
      at = 0;
      hdf5::check(H5Aiterate2(opened, H5_INDEX_NAME, H5_ITER_INC, &at, add, &names) >= 0, where(object));
    }
    H5Eclear2(H5E_DEFAULT);
    return names;
  }

  [[nodiscard]] bool has_attribute(const std::string& object, const std::string& name) const {
    return H5Aexists(open(object), name.c_str()) > 0;
  }

  /// T: bool, integers, float, double, std::string, or a std::vector of numbers or strings. Numbers convert only where every value of
  /// the stored type is a value of T.
  template <class T>
  [[nodiscard]] T attribute(const std::string& object, const std::string& name) const {
    return hdf5::read_attribute<T>(open(object), name, where(object));
  }

  template <class T>
  [[nodiscard]] T attribute_or(const std::string& object, const std::string& name, T fallback) const {
    return exists(object) && has_attribute(object, name) ? attribute<T>(object, name) : fallback;
  }

  /// Shape and type; fails when the file is too short for what the dataset claims.
  [[nodiscard]] Hdf5Info info(const std::string& dataset) const { return hdf5::inspect(open_dataset(dataset), size_, where(dataset)); }

  /// All elements, row by row. Types convert as for attributes.
  template <hdf5::Number T>
  [[nodiscard]] std::vector<T> read(const std::string& dataset) const {
    std::vector<T> values(info(dataset).count);
    read_bytes(dataset, hdf5::dtype_of<T>(), std::as_writable_bytes(std::span(values)));
    return values;
  }

  /// Rows first … first + rows - 1 of the leading dimension.
  template <hdf5::Number T>
  [[nodiscard]] std::vector<T> read_rows(const std::string& dataset, std::int64_t first, std::int64_t rows) const {
    std::vector<T> values(info(dataset).count_rows(first, rows, where(dataset)));
    read_bytes(dataset, hdf5::dtype_of<T>(), std::as_writable_bytes(std::span(values)), first, rows);
    return values;
  }

  /// The same into memory that lies ready, as elements of type `as`: all of the dataset, or rows of it. `out` has exactly their size.
  void read_bytes(const std::string& dataset, DType as, std::span<std::byte> out, std::optional<std::int64_t> first = std::nullopt,
                  std::int64_t rows = 0) const;

  /// A list of texts, or a single one.
  [[nodiscard]] std::vector<std::string> read_texts(const std::string& dataset) const {
    const hdf5::Handle opened = open_dataset(dataset);
    const Hdf5Info what = hdf5::inspect(opened, size_, where(dataset));
    const hdf5::Handle type(H5Dget_type(opened), H5Tclose, where(dataset)), space(H5Dget_space(opened), H5Sclose, where(dataset));
    return hdf5::read_texts(type, space, what.count, where(dataset),
                            [&](hid_t memory, void* to) { return H5Dread(opened, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to); });
  }

  /// The byte of the file where the elements of a dataset begin, if they lie there one after the other as `as` lies in memory.
  [[nodiscard]] std::optional<std::uint64_t> offset(const std::string& dataset, DType as) const {
    const hdf5::Handle opened = open_dataset(dataset);
    const Hdf5Info what = hdf5::inspect(opened, size_, where(dataset));
    const hdf5::Handle type(H5Dget_type(opened), H5Tclose, where(dataset)),
        properties(H5Dget_create_plist(opened), H5Pclose, where(dataset));
    if (what.count == 0 || H5Pget_layout(properties) != H5D_CONTIGUOUS || H5Tequal(type, hdf5::stored_type(as)) <= 0) return std::nullopt;
    const haddr_t at = H5Dget_offset(opened);
    return at == HADDR_UNDEF ? std::nullopt : std::optional<std::uint64_t>(at);
  }

  /// For the writer, which copies objects between files.
  [[nodiscard]] hid_t id() const { return file_; }

 private:
  [[nodiscard]] std::string where(const std::string& object) const { return path_.string() + ": " + (object.empty() ? "/" : object); }

  [[nodiscard]] hdf5::Handle open(const std::string& object) const {
    if (!exists(object)) fail(where(object), ": is not in the file");
    return {H5Oopen(file_, object.empty() ? "/" : object.c_str(), H5P_DEFAULT), H5Oclose, where(object)};
  }

  [[nodiscard]] hdf5::Handle open_dataset(const std::string& dataset) const {
    hdf5::Handle opened = open(dataset);
    if (H5Iget_type(opened) != H5I_DATASET) fail(where(dataset), ": is no dataset");
    return opened;
  }

  [[nodiscard]] std::vector<std::string> members(const std::string& group, H5O_type_t kind) const {
    const hdf5::Handle opened = open(group);
    if (H5Iget_type(opened) != H5I_GROUP) fail(where(group), ": is no group");
    struct Found {
      std::vector<std::string> names{};
      H5O_type_t kind{};
    } found{{}, kind};
    const auto add = [](hid_t in, const char* name, const H5L_info_t*, void* out) -> herr_t {
      auto& to = *static_cast<Found*>(out);
      H5O_info_t object{};
      if (H5Oget_info_by_name2(in, name, &object, H5O_INFO_BASIC, H5P_DEFAULT) >= 0 && object.type == to.kind) to.names.emplace_back(name);
      return 0;
    };
    if (H5Literate(opened, H5_INDEX_CRT_ORDER, H5_ITER_INC, nullptr, add, &found) < 0) {
      found.names.clear();
      hdf5::check(H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &found) >= 0, where(group));
    }
    H5Eclear2(H5E_DEFAULT);
    return found.names;
  }

  std::filesystem::path path_;
  std::uint64_t size_ = 0;
  hdf5::Handle file_;
};

inline void Hdf5Reader::read_bytes(const std::string& dataset, DType as, std::span<std::byte> out, std::optional<std::int64_t> first,
                                   std::int64_t rows) const {
  const std::string place = where(dataset);
  const hdf5::Handle opened = open_dataset(dataset);
  const Hdf5Info what = hdf5::inspect(opened, size_, place);
  hdf5::require_exact(what.type, as, place);
  if (what.disguised && as != *what.type) fail(place, ": holds ", name(*what.type), "; read it as such and convert");
  const hsize_t count = first ? what.count_rows(*first, rows, place) : what.count;
  if (out.size() != count * (bits(as) / 8)) fail(place, ": ", count, " elements of ", name(as), " do not fill ", out.size(), " bytes");
  if (count == 0) return;

  const hdf5::Handle space(H5Dget_space(opened), H5Sclose, place), memory(H5Screate_simple(1, &count, nullptr), H5Sclose, place);
  if (first) {
    std::vector<hsize_t> start(what.shape.size(), 0), extent(what.shape.begin(), what.shape.end());
    start[0] = static_cast<hsize_t>(*first);
    extent[0] = static_cast<hsize_t>(rows);
    hdf5::check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr) >= 0, place);
  }
  hdf5::Handle half;  // a 16-bit float that HDF5 knows as such, rather than a disguised one
  if (as == DType::f16 && !what.disguised) {
    half = hdf5::Handle(H5Dget_type(opened), H5Tclose, place);
    half = hdf5::Handle(H5Tcopy(half), H5Tclose, place);
    hdf5::check(H5Tset_order(half, H5T_ORDER_LE) >= 0, place);
  }
  const hid_t type = half >= 0 ? hid_t{half} : hdf5::stored_type(as);
  hdf5::check(H5Dread(opened, type, memory, space, H5P_DEFAULT, out.data()) >= 0, place);
}

}  // namespace ptq::io
