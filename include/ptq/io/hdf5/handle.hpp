// HDF5's identifiers, errors and types, for the other headers of this folder only: include ptq/io/hdf5.hpp.
// As Debian builds it the library is not safe for threads: use it from one at a time.
#pragma once

#include <hdf5.h>
#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>  // 1.14: what a driver implements
#endif

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <ptq/core/error.hpp>
#include <ptq/io/dtype.hpp>

namespace ptq::io::hdf5 {

/// Starts the library once: it prints no errors of its own, and does nothing at exit (a file that could not be closed would crash there).
inline void start() {
  static const bool started = [] {
    H5dont_atexit();
    return H5open() >= 0 && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  }();
  if (!started) fail("the HDF5 library does not start");
}

/// "1.10.8": of the library that runs.
[[nodiscard]] inline std::string library_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return cat(major, '.', minor, '.', release);
}

/// The innermost message of the library's error stack, which is the telling one.
[[nodiscard]] inline std::string last_error() {
  std::string text;
  const auto keep = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    if (error->desc != nullptr && *error->desc != '\0') *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "the HDF5 library gives no reason" : text;
}

/// An open identifier, closed with its own function; `where` names file and object in the error when it is invalid.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close, std::string_view where) : id_(id), close_(close) {
    if (id < 0) fail(where, ": ", last_error());
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id_ >= 0 && close_(id_) < 0) H5Eclear2(H5E_DEFAULT);
  }
  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor): stands where the C functions want an identifier

 private:
  hid_t id_ = -1;
  Close close_ = H5Oclose;
};

/// Fails with file and object when a call of the library did.
inline void check(bool good, std::string_view where) {
  if (!good) fail(where, ": ", last_error());
}

/// The element types that datasets have in C++.
template <class T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, long double>;

template <Number T>
[[nodiscard]] constexpr DType dtype_of() {
  if constexpr (std::floating_point<T>) return sizeof(T) == 4 ? DType::f32 : DType::f64;
  if constexpr (sizeof(T) == 1) return std::is_signed_v<T> ? DType::i8 : DType::u8;
  if constexpr (sizeof(T) == 2) return std::is_signed_v<T> ? DType::i16 : DType::u16;
  if constexpr (sizeof(T) == 4) return std::is_signed_v<T> ? DType::i32 : DType::u32;
  return std::is_signed_v<T> ? DType::i64 : DType::u64;
}

/// The type on disk. Those that HDF5 1.10 has no name for are unsigned integers of their size (and carry an attribute `dtype`).
[[nodiscard]] inline hid_t stored_type(DType type) {
  switch (type) {
    case DType::f32:
      return H5T_IEEE_F32LE;
    case DType::f64:
      return H5T_IEEE_F64LE;
    case DType::i8:
      return H5T_STD_I8LE;
    case DType::i16:
      return H5T_STD_I16LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    default:
      break;
  }
  switch (bits(type)) {
    case 8:
      return H5T_STD_U8LE;
    case 16:
      return H5T_STD_U16LE;
    case 32:
      return H5T_STD_U32LE;
    case 64:
      return H5T_STD_U64LE;
    default:
      fail("elements of type ", name(type), " cannot be stored in HDF5");
  }
}

/// Whether `type` is stored as bare unsigned integers, named by an attribute.
[[nodiscard]] constexpr bool is_disguised(DType type) {
  return type == DType::f16 || type == DType::bf16 || type == DType::boolean || type == DType::f8_e4m3 || type == DType::f8_e5m2 ||
         type == DType::f8_e8m0;
}

/// Our name of a number type on disk, or nothing (texts, compounds, references, floats of other sizes).
[[nodiscard]] inline std::optional<DType> dtype_of_stored(hid_t type) {
  const std::size_t size = H5Tget_size(type);
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_FLOAT) {
    if (size == 2 && H5Tget_ebias(type) == 15) return DType::f16;
    return size == 4 ? std::optional(DType::f32) : size == 8 ? std::optional(DType::f64) : std::nullopt;
  }
  if (kind == H5T_ENUM) return size == 1 ? std::optional(DType::boolean) : std::nullopt;  // h5py's form of bool
  if (kind != H5T_INTEGER) return std::nullopt;
  const bool has_sign = H5Tget_sign(type) == H5T_SGN_2;
  switch (size) {
    case 1:
      return has_sign ? DType::i8 : DType::u8;
    case 2:
      return has_sign ? DType::i16 : DType::u16;
    case 4:
      return has_sign ? DType::i32 : DType::u32;
    case 8:
      return has_sign ? DType::i64 : DType::u64;
    default:
      return std::nullopt;
  }
}

/// Whether every value of `from` is a value of `to`.
[[nodiscard]] constexpr bool is_exact(DType from, DType to) {
  const auto real = [](DType t) { return t == DType::f16 || t == DType::f32 || t == DType::f64; };
  const auto whole = [](DType t) { return t >= DType::u8 && t <= DType::i64; };
  const auto has_sign = [](DType t) { return t == DType::i8 || t == DType::i16 || t == DType::i32 || t == DType::i64; };
  if (from == to) return true;
  if (from == DType::boolean) return whole(to) || real(to);
  if (real(from)) return real(to) && bits(from) < bits(to);
  if (!whole(from)) return false;
  if (real(to)) return to != DType::f16 && bits(from) < bits(to);
  return whole(to) && bits(from) < bits(to) && (has_sign(to) || !has_sign(from));
}

}  // namespace ptq::io::hdf5
