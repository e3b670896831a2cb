// Memory that lies in a nameless file: as large as the disk, and the kernel writes pages out and drops them when it wants their room.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include <ptq/core/error.hpp>
#include <ptq/io/atomic_file.hpp>

namespace ptq::io {
namespace detail {

/// A descriptor of a file that had a name for an instant, where a file system makes no nameless ones; −1, and errno, when it cannot.
[[nodiscard]] inline int unlinked_file(const std::filesystem::path& folder) {
  std::string name = (folder / "scratch.XXXXXX").string();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

/// A descriptor of a file without a name: it goes with the last that holds it, whatever ends the process.
[[nodiscard]] inline int nameless_file(const std::filesystem::path& folder) {
  int descriptor = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) descriptor = unlinked_file(folder);
  if (descriptor < 0) throw NoRoom(cat(folder.string(), ": no temporary file can be made there: ", std::strerror(errno)));
  return descriptor;
}

/// Takes `bytes` of the disk for the file now: a page that finds no room when it is written would kill the process (SIGBUS).
inline void reserve(int descriptor, std::uint64_t bytes, const std::filesystem::path& folder) {
  const std::uint64_t free = std::min(room(folder), size_limit());
  int error = bytes > free ? ENOSPC : EINTR;
  while (error == EINTR) error = ::posix_fallocate(descriptor, 0, static_cast<off_t>(bytes));
  if (error == 0) return;
  const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
  throw NoRoom(cat(folder.string(), full ? ": no room for a temporary file: " : ": cannot take the room of a temporary file: ", bytes,
                   " bytes are needed, ", free, " may be used (", std::strerror(error), "); a folder on another disk may have it"));
}

}  // namespace detail

/// Bytes of a nameless file in a folder, zero at first; gone with this object, and with the process. Moves, never copies.
class ScratchMap {
 public:
  /// Throws, naming the folder, when no file can be made in it or the disk (or `ulimit -f`) has no room for all of it.
  ScratchMap(const std::filesystem::path& folder, std::size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    if (bytes > static_cast<std::size_t>(INT64_MAX))
      throw NoRoom(cat(folder.string(), ": ", bytes, " bytes are more than a file can hold"));
    const int descriptor = detail::nameless_file(folder);
    void* map = MAP_FAILED;
    int error = 0;
    try {
      detail::reserve(descriptor, bytes, folder);
      map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
      error = errno;
    } catch (...) {
      ::close(descriptor);
      throw;
    }
    ::close(descriptor);
    if (map == MAP_FAILED) throw NoRoom(cat(folder.string(), ": cannot map ", bytes, " bytes of a temporary file: ", std::strerror(error)));
    data_ = static_cast<std::byte*>(map);
  }
  ScratchMap(ScratchMap&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  ScratchMap& operator=(ScratchMap&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ScratchMap(const ScratchMap&) = delete;
  ScratchMap& operator=(const ScratchMap&) = delete;
  ~ScratchMap() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ptq::io
