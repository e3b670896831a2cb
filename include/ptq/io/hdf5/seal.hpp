// A seal behind the HDF5 part of our files: the SHA-256 of everything before it but the elements of bulk datasets.
//
// HDF5 1.10 crashes on about one in a hundred files with a few changed bytes; a sealed file is checked before the library sees it.
// HDF5 and h5py ignore what follows the end of their part. Include ptq/io/hdf5.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/digest.hpp>
#include <ptq/core/error.hpp>

namespace ptq::io::hdf5 {

/// Bytes begin … end - 1 of a file.
struct Extent {
  std::uint64_t begin = 0, end = 0;
};

/// The last bytes of a sealed file: this, and in 20 digits where the seal begins, and a line break.
inline constexpr std::string_view seal_mark = "ptq-seal 1 ";
inline constexpr std::size_t seal_tail = seal_mark.size() + 21;

/// SHA-256 of bytes 0 … size - 1 without those in `skipped` (ascending); `read(at, bytes)` yields them.
template <class Read>
[[nodiscard]] std::string digest_around(std::uint64_t size, const std::vector<Extent>& skipped, Read read) {
  Sha256 digest;
  std::vector<std::byte> chunk(std::size_t{1} << 16U);
  std::uint64_t at = 0;
  const auto take = [&](std::uint64_t end) {
    while (at < end) {
      const std::span<std::byte> part = std::span(chunk).first(std::min<std::uint64_t>(chunk.size(), end - at));
      read(at, part);
      digest.update(part);
      at += part.size();
    }
  };
  for (const Extent& extent : skipped) {
    take(extent.begin);
    at = std::max(at, extent.end);
  }
  take(size);
  return digest.hex();
}

/// The seal of a file whose HDF5 part has `size` bytes: the digest, the extents left out, one a line, and the tail.
[[nodiscard]] inline std::string seal(std::uint64_t size, const std::string& digest, const std::vector<Extent>& skipped) {
  std::string text = digest + "\n";
  for (const Extent& extent : skipped) text += cat(extent.begin, ' ', extent.end, '\n');
  const std::string digits = std::to_string(size);
  return text + std::string(seal_mark) + std::string(20 - digits.size(), '0') + digits + "\n";
}

/// Whether the file is sealed; fails when it is and its bytes are not those that were sealed.
[[nodiscard]] inline bool check_seal(const std::filesystem::path& path) {
  const auto damaged = [&]() { fail(path.string(), ": is damaged: its bytes are not those that were written"); };
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail(path.string(), ": cannot be opened");
  const auto length = static_cast<std::uint64_t>(file.tellg());
  const auto read = [&](std::uint64_t at, std::span<std::byte> bytes) {
    file.seekg(static_cast<std::streamoff>(at));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) fail(path.string(), ": cannot be read at byte ", at);
  };
  const auto text_at = [&](std::uint64_t at, std::uint64_t size) {
    std::string text(size, '\0');
    read(at, std::as_writable_bytes(std::span(text)));
    return text;
  };
  if (length < seal_tail) return false;
  const std::string tail = text_at(length - seal_tail, seal_tail);
  if (!tail.starts_with(seal_mark)) return false;
  const std::string digits = tail.substr(seal_mark.size(), 20);
  if (digits.find_first_not_of("0123456789") != std::string::npos) damaged();
  std::istringstream number(digits);
  std::uint64_t size = 0;
  if (!(number >> size) || size > length - seal_tail || length - size > (std::uint64_t{1} << 24U)) damaged();

  const std::string text = text_at(size, length - size);
  std::istringstream lines(text);
  std::string digest;
  std::vector<Extent> skipped;
  lines >> digest;
  for (Extent extent; lines >> extent.begin >> extent.end;) {
    const std::uint64_t last = skipped.empty() ? 0 : skipped.back().end;
    if (extent.begin < last || extent.end < extent.begin || extent.end > size) damaged();
    skipped.push_back(extent);
  }
  if (seal(size, digest, skipped) != text) damaged();
  if (digest_around(size, skipped, read) != digest) damaged();
  return true;
}

}  // namespace ptq::io::hdf5
