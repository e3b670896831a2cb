// SHA-256 (FIPS 180-4): names of cached work and proof of what a file contained. The one door to OpenSSL; no ATen.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <bit>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq {

/// A running SHA-256. `update` hashes bytes as they are; `field` hashes a named, typed, length-prefixed value, so that different
/// sequences of fields never feed the same bytes ("ab" + "c" is not "a" + "bc", the number 1 is not the text "1").
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) fail("OpenSSL offers no SHA-256 here");
  }

  Sha256& update(std::span<const std::byte> bytes) { return absorb(bytes.data(), bytes.size()); }
  Sha256& update(std::string_view text) { return absorb(text.data(), text.size()); }

  Sha256& field(std::string_view name, std::string_view text) { return open(name, 's', text.size()).update(text); }
  Sha256& field(std::string_view name, const char* text) { return field(name, std::string_view(text)); }
  Sha256& field(std::string_view name, bool value) { return open(name, 'b', 1).number(std::uint8_t{value}); }

  /// Integers and enumerations enter as int64, or as uint64 where they are unsigned; so the width of a type does not matter.
  template <class T>
  requires(std::integral<T> || std::is_enum_v<T>) Sha256& field(std::string_view name, T value) {
    if constexpr (std::is_enum_v<T>) {
      return field(name, static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_signed_v<T>) {
      return open(name, 'i', 8).number(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
    } else {
      return open(name, 'u', 8).number(static_cast<std::uint64_t>(value));
    }
  }

  /// Floating point enters as the bits of a double; -0 and 0 differ.
  template <std::floating_point T>
  Sha256& field(std::string_view name, T value) {
    return open(name, 'd', 8).number(std::bit_cast<std::uint64_t>(static_cast<double>(value)));
  }

  /// Raw bytes under a name, their number first.
  Sha256& field(std::string_view name, std::span<const std::byte> bytes) { return open(name, 'x', bytes.size()).update(bytes); }

  /// The digest so far, 64 lower-case hexadecimal digits; the object can go on hashing.
  [[nodiscard]] std::string hex() const {
    const Context copy(EVP_MD_CTX_new());
    std::array<unsigned char, 32> raw{};
    unsigned int length = 0;
    if (copy == nullptr || EVP_MD_CTX_copy_ex(copy.get(), context_.get()) != 1 || EVP_DigestFinal_ex(copy.get(), raw.data(), &length) != 1)
      fail("SHA-256 could not be finished");
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    text.reserve(64);
    for (const unsigned char byte : raw) (text += digits[byte >> 4U]) += digits[byte & 15U];
    return text;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  using Context = std::unique_ptr<EVP_MD_CTX, Free>;

  Sha256& absorb(const void* data, std::size_t size) {
    if (size != 0 && EVP_DigestUpdate(context_.get(), data, size) != 1) fail("SHA-256 could not take ", size, " bytes");
    return *this;
  }

  /// Name, type and length of what follows; every number is little-endian.
  Sha256& open(std::string_view name, char type, std::uint64_t size) {
    return number(std::uint64_t{name.size()}).update(name).update(std::string_view(&type, 1)).number(size);
  }

  template <std::unsigned_integral T>
  Sha256& number(T value) {
    std::array<unsigned char, sizeof(T)> bytes{};
    for (std::size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
    return absorb(bytes.data(), bytes.size());
  }

  Context context_;
};

/// SHA-256 of these bytes, in hexadecimal.
[[nodiscard]] inline std::string sha256(std::string_view bytes) { return Sha256().update(bytes).hex(); }

/// SHA-256 of a file's contents, read a mebibyte at a time; fails with the file's name when it cannot be read.
[[nodiscard]] inline std::string sha256_file(const std::filesystem::path& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) fail(path.string(), ": cannot be opened: ", std::strerror(errno));
  std::vector<std::byte> chunk(std::size_t{1} << 20U);
  Sha256 digest;
  while (const std::size_t count = std::fread(chunk.data(), 1, chunk.size(), file.get())) digest.update(std::span(chunk).first(count));
  if (std::ferror(file.get()) != 0) fail(path.string(), ": cannot be read: ", std::strerror(errno));
  return digest.hex();
}

}  // namespace ptq
