// Files that exist whole or not at all: written aside, forced to disk, renamed, the folder forced to disk.
// A reader, a crash, a kill or a full disk never meets half a file under the final name.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <ptq/core/error.hpp>

namespace ptq::io {

namespace detail {

/// Room left for a file of this process in that folder, in bytes: of the disk, and of the limit `ulimit -f`.
[[nodiscard]] inline std::uint64_t room(const std::filesystem::path& folder) {
  struct statvfs disk {};
  return ::statvfs(folder.c_str(), &disk) == 0 ? std::uint64_t{disk.f_bavail} * disk.f_frsize : 0;
}

[[nodiscard]] inline std::uint64_t size_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : UINT64_MAX;
}

/// The folder of a file; "." for a bare name.
[[nodiscard]] inline std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

/// A file beside the target, gone with this object unless it was renamed. It is locked while its writer lives (an "open file
/// description" lock, which does not disturb readers' flock), so leftovers of killed writers are recognised whatever their pid means here.
class Temporary {
 public:
  explicit Temporary(const std::filesystem::path& target) {
    const std::filesystem::path folder = folder_of(target);
    sweep(folder, target.filename().string() + ".");
    static std::atomic<unsigned> counter{0};
    for (int attempt = 0; attempt < 100; ++attempt) {
      path_ = folder / cat(target.filename().string(), ".", ::getpid(), "-", counter++, suffix);
      descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ < 0 && errno != EEXIST) fail(target.string(), ": cannot be written in ", folder.string(), ": ", std::strerror(errno));
      if (descriptor_ < 0) continue;
      struct stat file {};
      // A sweep that came between open and lock holds the lock or has unlinked the file: try another name.
      const bool mine = lock(descriptor_) || (errno != EAGAIN && errno != EACCES);
      if (mine && ::fstat(descriptor_, &file) == 0 && file.st_nlink > 0) return;
      ::close(std::exchange(descriptor_, -1));
    }
    fail(target.string(), ": no temporary file could be made in ", folder.string());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (descriptor_ < 0) return;
    if (!renamed_) ::unlink(path_.c_str());
    ::close(descriptor_);
  }

  [[nodiscard]] int descriptor() const { return descriptor_; }
  [[nodiscard]] bool renamed() const { return renamed_; }

  [[nodiscard]] bool rename_to(const std::filesystem::path& target) { return renamed_ = std::rename(path_.c_str(), target.c_str()) == 0; }

 private:
  static constexpr std::string_view suffix = ".part";

  static bool lock(int descriptor) {
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    return ::fcntl(descriptor, F_OFD_SETLK, &whole) == 0;
  }

  /// Removes what killed writers of this target left in the folder.
  static void sweep(const std::filesystem::path& folder, const std::string& prefix) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix)) continue;
      const std::string_view middle = std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - suffix.size());
      if (middle.find_first_not_of("0123456789-") != std::string_view::npos) continue;
      const int descriptor = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
      if (descriptor < 0) continue;
      if (lock(descriptor)) ::unlink(entry.path().c_str());
      ::close(descriptor);
    }
  }

  std::filesystem::path path_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

}  // namespace detail

/// A file being written. Nothing is seen under `target` until commit(); without it, nothing remains.
class AtomicFile {
 public:
  /// `expected` bytes are reserved at once, so that a full disk is found before the work; 0 when their number is unknown.
  /// Fails, naming the file, when the folder does not exist or may not be written, or the target is no regular file.
  explicit AtomicFile(const std::filesystem::path& target, std::uint64_t expected = 0)
      : target_(checked(target)), temporary_(target_), expected_(expected) {
    if (expected == 0) return;
    require_room(expected);
    while (::fallocate(temporary_.descriptor(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(expected)) != 0 && errno != EOPNOTSUPP &&
           errno != ENOSYS) {
      if (errno != EINTR) refuse_write(errno);
    }
  }

  /// Appends.
  void write(std::span<const std::byte> bytes) { write_at(size_, bytes); }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// Writes at an offset; a gap before it reads as zeros.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    const std::uint64_t end = offset + bytes.size();
    expected_ = std::max(expected_, end);
    if (end > detail::size_limit()) refuse_write(EFBIG);  // else the kernel would send SIGXFSZ
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(temporary_.descriptor(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) refuse_write(count == 0 ? EIO : errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    size_ = std::max(size_, end);
  }

  /// Lengthens the file to `size` bytes; what was not written reads as zeros.
  void extend(std::uint64_t size) {
    expected_ = std::max(expected_, size);
    if (size > detail::size_limit()) refuse_write(EFBIG);
    if (size > size_ && ::ftruncate(temporary_.descriptor(), static_cast<off_t>(size)) != 0) refuse_write(errno);
    size_ = std::max(size_, size);
  }

  /// Reads back what was written; beyond it, fails.
  void read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pread(temporary_.descriptor(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail(target_.string(), ": cannot read back byte ", offset, ": ", count == 0 ? "never written" : std::strerror(errno));
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
  }

  /// Makes the file appear, whole and on disk. Afterwards this object only remembers the name.
  void commit() {
    if (temporary_.renamed()) fail(target_.string(), ": committed twice");
    if (::ftruncate(temporary_.descriptor(), static_cast<off_t>(size_)) != 0 || ::fsync(temporary_.descriptor()) != 0) refuse_write(errno);
    if (!temporary_.rename_to(target_)) fail(target_.string(), ": cannot be replaced: ", std::strerror(errno));
    const int folder = ::open(detail::folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool safe = folder >= 0 && (::fsync(folder) == 0 || errno == EINVAL);  // EINVAL: a file system that cannot
    const int error = errno;
    if (folder >= 0) ::close(folder);
    if (!safe) fail(target_.string(), ": was written, but its folder cannot be forced to disk: ", std::strerror(error));
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] const std::filesystem::path& target() const { return target_; }

 private:
  /// Follows a link, so that the file is replaced and not the link to it.
  static std::filesystem::path checked(std::filesystem::path target) {
    std::error_code ignored;
    if (std::filesystem::is_symlink(target, ignored)) target = std::filesystem::weakly_canonical(target);
    const auto status = std::filesystem::status(target, ignored);
    if (std::filesystem::is_directory(status)) fail(target.string(), ": is a folder, not a file");
    if (!std::filesystem::exists(status)) return target;
    if (!std::filesystem::is_regular_file(status)) fail(target.string(), ": is no regular file, so it cannot be replaced");
    if (::access(target.c_str(), W_OK) != 0) fail(target.string(), ": may not be written: ", std::strerror(errno));
    return target;
  }

  void require_room(std::uint64_t bytes) const {
    if (bytes > detail::size_limit()) refuse_write(EFBIG);
    if (bytes > detail::room(detail::folder_of(target_))) refuse_write(ENOSPC);
  }

  [[noreturn]] void refuse_write(int error) const {
    if (error != ENOSPC && error != EFBIG && error != EDQUOT) fail(target_.string(), ": cannot be written: ", std::strerror(error));
    fail(target_.string(), ": no room for it: ", expected_, " bytes are needed, ",
         std::min(detail::room(detail::folder_of(target_)), detail::size_limit()), " may be used (", std::strerror(error), ")");
  }

  std::filesystem::path target_;
  detail::Temporary temporary_;
  std::uint64_t expected_ = 0;
  std::uint64_t size_ = 0;
};

/// Replaces a file by these bytes, atomically and durably.
inline void write_atomically(const std::filesystem::path& target, std::span<const std::byte> bytes) {
  AtomicFile file(target, bytes.size());
  file.write(bytes);
  file.commit();
}

inline void write_atomically(const std::filesystem::path& target, std::string_view text) {
  write_atomically(target, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace ptq::io
