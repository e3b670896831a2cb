// Attributes and texts of an HDF5 object, checked and converted. Include ptq/io/hdf5.hpp.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/io/hdf5/handle.hpp>

namespace ptq::io::hdf5 {

template <class T>
concept List = !std::same_as<T, std::string> && requires(T list, typename T::value_type value) {
  list.push_back(value);
};

/// Fails unless every value of the stored type is a value of `as`.
inline void require_exact(std::optional<DType> stored, DType as, const std::string& where) {
  if (!stored || !is_exact(*stored, as))
    fail(where, ": holds ", stored ? name(*stored) : "no numbers", ", which cannot be read as ", name(as));
}

/// Texts of fixed or variable length; `read(type, to)` is the library's call.
template <class Read>
[[nodiscard]] std::vector<std::string> read_texts(hid_t type, hid_t space, std::size_t count, const std::string& where, Read read) {
  if (H5Tget_class(type) != H5T_STRING) fail(where, ": is no text");
  std::vector<std::string> result(count);
  if (count == 0) return result;
  if (H5Tis_variable_str(type) > 0) {
    std::vector<char*> pointers(count, nullptr);
    check(read(type, pointers.data()) >= 0, where);
    for (std::size_t i = 0; i < count; ++i) result[i] = pointers[i] == nullptr ? "" : pointers[i];
    check(H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data()) >= 0, where);
    return result;
  }
  const std::size_t width = H5Tget_size(type);
  std::string all(count * width, '\0');
  check(read(type, all.data()) >= 0, where);
  const bool spaces = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view padded = std::string_view(all).substr(i * width, width);
    const std::string_view cut = padded.substr(0, padded.find('\0'));
    result[i] = spaces ? cut.substr(0, cut.find_last_not_of(' ') + 1) : cut;
  }
  return result;
}

/// One attribute. T: bool, numbers, std::string, or a std::vector of numbers or strings (which takes a single value as a list of one).
template <class T>
[[nodiscard]] T read_attribute(hid_t object, const std::string& attribute, const std::string& object_name) {
  constexpr std::uint64_t largest = std::uint64_t{64} << 20U;  // a file that claims more is damaged
  const std::string where = object_name + ", attribute " + attribute;
  if (H5Aexists(object, attribute.c_str()) <= 0) fail(where, ": is not in the file");
  const Handle opened(H5Aopen(object, attribute.c_str(), H5P_DEFAULT), H5Aclose, where);
  const Handle type(H5Aget_type(opened), H5Tclose, where), space(H5Aget_space(opened), H5Sclose, where);
  const hssize_t points = H5Sget_simple_extent_npoints(space);
  if (points < 0 || H5Tget_size(type) == 0 || static_cast<std::uint64_t>(points) > largest / H5Tget_size(type))
    fail(where, ": is larger than an attribute may be");
  const auto count = static_cast<std::size_t>(points);
  if (!List<T> && count != 1) fail(where, ": holds ", count, " values where one is expected");

  const auto read = [&](hid_t memory, void* to) { return H5Aread(opened, memory, to); };
  const auto read_numbers = [&]<class V>(V* to) {
    require_exact(dtype_of_stored(type), dtype_of<V>(), where);
    check(count == 0 || read(stored_type(dtype_of<V>()), to) >= 0, where);
  };
  if constexpr (std::same_as<T, std::vector<std::string>>) {
    return read_texts(type, space, count, where, read);
  } else if constexpr (std::same_as<T, std::string>) {
    return std::move(read_texts(type, space, count, where, read).front());
  } else if constexpr (List<T>) {
    T values(count);
    read_numbers(values.data());
    return values;
  } else if constexpr (std::same_as<T, bool>) {
    std::int64_t value = 0;
    read_numbers(&value);
    return value != 0;
  } else {
    T value{};
    read_numbers(&value);
    return value;
  }
}

}  // namespace ptq::io::hdf5
