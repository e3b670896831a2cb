// A fresh folder for a test, removed at the end; and child processes that may be limited or killed.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <string>

struct TemporaryFolder {
  std::filesystem::path path;

  explicit TemporaryFolder(const std::string& name)
      : path(std::filesystem::temp_directory_path() / ("ptq_" + name + "_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path / name; }

  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path)) found.insert(entry.path().filename().string());
    return found;
  }
};

[[nodiscard]] inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What in_child returns when the child could not set the stage (no right to mount, for instance).
inline constexpr int could_not_try = 77;

/// Runs `work` in a child process that ends by std::exit, and returns its status: what `work` returned, 99 after an exception, or minus
/// the signal that killed it.
template <class Work>
[[nodiscard]] int in_child(Work work) {
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = work();
    } catch (const std::exception& error) {
      std::cerr << error.what() << '\n';
    }
    std::exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Starts `work` in a child process, over and over, kills it after `microseconds` and waits for its end.
template <class Work>
void kill_during(Work work, useconds_t microseconds) {
  const pid_t child = ::fork();
  if (child == 0)
    for (;;) work();
  ::usleep(microseconds);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

/// Limits the size of files of this process, as `ulimit -f` does.
[[nodiscard]] inline bool limit_file_size(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  return ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

/// Mounts a disk of that size over a folder, for this process only; false where the user may not.
[[nodiscard]] inline bool mount_small_disk(const std::filesystem::path& folder, const std::string& size) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
}
