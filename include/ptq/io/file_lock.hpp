// One writer at a time: flock on a file of its own, `<path>.lock`, which a kill releases.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <ptq/core/error.hpp>

namespace ptq::io {

/// Holds `<path>.lock` until destroyed; the holder's process id is in it while it is held.
class FileLock {
 public:
  /// Tries for as long as `patience`, by default once; then fails naming the file and, if known, the process that holds it.
  explicit FileLock(const std::filesystem::path& path, std::chrono::milliseconds patience = std::chrono::milliseconds(0)) : path_(path) {
    const std::string name = path.string() + ".lock";
    descriptor_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(path.string(), ": its lock ", name, " cannot be made: ", std::strerror(errno));
    const auto end = std::chrono::steady_clock::now() + patience;
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (error == EINTR || (error == EWOULDBLOCK && std::chrono::steady_clock::now() < end)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      const std::string holder = read_holder();
      ::close(std::exchange(descriptor_, -1));
      if (error != EWOULDBLOCK) fail(path.string(), ": cannot be locked: ", std::strerror(error));
      fail(path.string(), ": is being written by ", holder.empty() ? "another process" : "process " + holder, ", which holds ", name,
           "; wait for it to end or write to another file");
    }
    const std::string pid = std::to_string(::getpid());
    const bool noted = ::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, pid.data(), pid.size(), 0) > 0;
    (void)noted;  // the id is a courtesy: the lock holds without it, on a full disk too
  }
  FileLock(FileLock&& other) noexcept : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock() {
    if (descriptor_ < 0) return;
    const bool emptied = ::ftruncate(descriptor_, 0) == 0;
    (void)emptied;
    ::close(descriptor_);  // the file stays: to remove it would race with the next writer
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  [[nodiscard]] std::string read_holder() const {
    std::array<char, 20> text{};
    const ssize_t count = ::pread(descriptor_, text.data(), text.size(), 0);
    int pid = 0;
    const bool number = count > 0 && std::from_chars(text.data(), text.data() + count, pid).ec == std::errc{} && pid > 0;
    return number ? std::to_string(pid) : std::string();
  }

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace ptq::io
