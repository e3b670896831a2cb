// A folder that appears whole or not at all: made aside, filled, renamed. Only folders of our own making are replaced.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/json.hpp>

namespace ptq {

/// The file by which a folder of our own making is known; it lists the files that were made.
inline constexpr const char* export_marker = "ptq_export.json";

namespace detail {

/// The files that the marker of a folder lists, or nothing where there is no marker of ours.
[[nodiscard]] inline std::vector<std::string> exported_files(const std::filesystem::path& folder) {
  std::vector<std::string> files;
  const auto marker = folder / export_marker;
  if (!std::filesystem::is_regular_file(marker)) return files;
  try {
    const io::json document = io::read_json(marker.string());
    if (!document.is_object() || document.value("made_by", "") != "ptq") return files;
    for (const io::json& file : document.at("files")) files.push_back(file.get<std::string>());
  } catch (const std::exception&) {
    files.clear();  // not a marker that we can believe
  }
  return files;
}

inline void force_to_disk(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool safe = descriptor >= 0 && (::fsync(descriptor) == 0 || errno == EINVAL);  // EINVAL: a file system that cannot
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!safe) fail(folder.string(), ": cannot be forced to disk: ", std::strerror(error));
}

}  // namespace detail

/// Refuses a place where no export may go: a file, the folder `source` that is being read, or a folder with files that we did not make.
inline void require_export_folder(const std::filesystem::path& folder, const std::filesystem::path& source = {}) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (folder.empty()) refuse("an export needs the name of a folder");
  if (!fs::exists(folder, ignored)) return;
  if (!fs::is_directory(folder, ignored)) refuse(folder.string(), ": is a file; an export needs a folder of its own");
  if (!source.empty() && fs::equivalent(folder, source, ignored))
    refuse(folder.string(), ": holds the model that is read; export elsewhere");
  const auto ours = detail::exported_files(folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (std::find(ours.begin(), ours.end(), name) != ours.end()) continue;
    if (ours.empty())
      refuse(folder.string(), ": holds files, such as ", name, ", and no export of ours to replace; name an empty or a new folder");
    refuse(folder.string(), ": holds ", name, " besides an earlier export; move it away or name another folder");
  }
}

/// A folder being filled beside its final name. Without commit() nothing remains; what a killed process left goes with the next draft.
class FolderDraft {
 public:
  explicit FolderDraft(const std::filesystem::path& folder) : target_(followed(folder)) {
    require_export_folder(target_);
    const auto parent = target_.has_parent_path() ? target_.parent_path() : std::filesystem::path(".");
    std::error_code error;
    std::filesystem::create_directories(parent, error);
    if (error) fail(target_.string(), ": its folder ", parent.string(), " cannot be made: ", error.message());
    const std::string prefix = target_.filename().string() + ".tmp-";
    sweep(parent, prefix);
    for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
      path_ = parent / cat(prefix, ::getpid(), "-", attempt);
      if (::mkdir(path_.c_str(), 0777) == 0)
        descriptor_ = locked(path_);
      else if (errno != EEXIST)
        fail(target_.string(), ": cannot be written in ", parent.string(), ": ", std::strerror(errno));
    }
    if (descriptor_ < 0) fail(target_.string(), ": no temporary folder could be made in ", parent.string());
  }
  FolderDraft(const FolderDraft&) = delete;
  FolderDraft& operator=(const FolderDraft&) = delete;
  ~FolderDraft() {
    std::error_code ignored;
    if (!committed_) std::filesystem::remove_all(path_, ignored);
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }  ///< where to write

  /// Makes the folder appear under its final name, in the place of an earlier export.
  void commit() {
    require_export_folder(target_);  // it may have changed meanwhile
    const auto parent = target_.has_parent_path() ? target_.parent_path() : std::filesystem::path(".");
    const auto earlier = std::filesystem::exists(target_) ? detail::exported_files(target_) : std::vector<std::string>();
    detail::force_to_disk(path_);
    if (earlier.empty()) {
      if (std::rename(path_.c_str(), target_.c_str()) != 0) fail(target_.string(), ": cannot be made: ", std::strerror(errno));
      committed_ = true;
      return detail::force_to_disk(parent);
    }
    std::filesystem::path old = path_;
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
      if (errno != EINVAL && errno != ENOSYS) fail(target_.string(), ": cannot be replaced: ", std::strerror(errno));
      old += "-old";  // a file system that cannot exchange: for an instant there is neither
      if (std::rename(target_.c_str(), old.c_str()) != 0) fail(target_.string(), ": cannot be replaced: ", std::strerror(errno));
      if (std::rename(path_.c_str(), target_.c_str()) != 0) {
        const int error = errno;
        const bool back = std::rename(old.c_str(), target_.c_str()) == 0;
        fail(target_.string(), ": cannot be replaced: ", std::strerror(error), back ? "" : "; the earlier export is now ",
             back ? "" : old.string());
      }
    }
    committed_ = true;
    detail::force_to_disk(parent);
    for (const std::string& file : earlier) ::unlink((old / file).c_str());
    ::rmdir(old.c_str());
  }

 private:
  static std::filesystem::path followed(std::filesystem::path folder) {
    std::error_code ignored;
    if (!folder.empty() && !folder.has_filename()) folder = folder.parent_path();  // "out/"
    return std::filesystem::is_symlink(folder, ignored) ? std::filesystem::weakly_canonical(folder) : folder;
  }

  /// The folder opened and locked for as long as this process lives; -1 when another process has it or has removed it.
  static int locked(const std::filesystem::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) return -1;
    struct stat state {};
    const bool mine = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    if (mine && ::fstat(descriptor, &state) == 0 && state.st_nlink > 0) return descriptor;
    ::close(descriptor);
    return -1;
  }

  /// Removes what killed processes left.
  static void sweep(const std::filesystem::path& parent, const std::string& prefix) {
    std::vector<std::filesystem::path> left;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(parent, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(prefix) && name.size() > prefix.size() && name.find_first_not_of("0123456789-", prefix.size()) == name.npos)
        left.push_back(entry.path());
    }
    for (const auto& folder : left)
      if (const int descriptor = locked(folder); descriptor >= 0) {
        std::filesystem::remove_all(folder, ignored);
        ::close(descriptor);
      }
  }

  std::filesystem::path target_, path_;
  int descriptor_ = -1;
  bool committed_ = false;
};

}  // namespace ptq
