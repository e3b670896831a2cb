// Where results lie: one file a run in `<results>.d`, and `<results>` itself, a collection rebuilt from them.
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <system_error>
#include <tuple>
#include <vector>

#include <ptq/io/atomic_file.hpp>
#include <ptq/io/file_lock.hpp>
#include <ptq/results/hdf5.hpp>

namespace ptq::results {

/// The folder of the runs of a results file.
[[nodiscard]] inline std::filesystem::path runs_folder(const std::filesystem::path& results) { return results.string() + ".d"; }

/// The file of one run.
[[nodiscard]] inline std::filesystem::path run_file(const std::filesystem::path& results, const std::string& digest) {
  if (digest.empty() || digest.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-_") != std::string::npos)
    fail("the digest of a run, '", digest, "', cannot name a file");
  return runs_folder(results) / (digest + ".h5");
}

/// All runs of a collection, or the one run of a file; fails where the file holds neither.
[[nodiscard]] inline std::vector<Run> load(const std::filesystem::path& path) {
  const io::Hdf5Reader file(path, io::Hdf5Origin::ours);
  if (!file.exists("runs")) return {get_run(file)};
  std::vector<Run> runs;
  for (const std::string& name : file.groups("runs")) runs.push_back(get_run(file, "runs/" + name + "/"));
  return runs;
}

/// Fails, before any work is done, when results could not be saved there: the folder cannot be written, or the name belongs to a file
/// that is no results file and would be lost.
inline void require_writable(const std::filesystem::path& results) {
  const io::AtomicFile probe(results);  // checks folder and rights, leaves nothing
  std::error_code error;
  if (std::filesystem::exists(results, error) && std::filesystem::file_size(results, error) > 0) {
    try {
      (void)load(results);
    } catch (const Error& reason) {
      fail(results.string(), ": exists and is not replaced, for it holds no results of ours (", reason.what(),
           "); name another file, or move it away, whereupon it is made again from ", runs_folder(results).string());
    }
  }
  std::filesystem::create_directories(runs_folder(results), error);
  if (error) fail(runs_folder(results).string(), ": cannot be made: ", error.message());
  const io::AtomicFile run_probe(runs_folder(results) / "probe.h5");
}

/// Rebuilds the collection from the files of the runs, under the lock the caller holds. Full precision comes first, then runs in the order
/// they came to this collection; those it has not seen follow by their start.
inline void collect(const std::filesystem::path& results, const io::FileLock& held) {
  if (held.path() != results) fail(results.string(), ": the lock held is that of ", held.path().string());
  std::vector<std::string> known;
  if (std::filesystem::exists(results) && std::filesystem::file_size(results) > 0)
    for (const Run& run : load(results)) known.push_back(run.digest);
  std::vector<Run> runs;
  for (const auto& entry : std::filesystem::directory_iterator(runs_folder(results)))
    if (entry.is_regular_file() && entry.path().extension() == ".h5")
      runs.push_back(get_run(io::Hdf5Reader(entry.path(), io::Hdf5Origin::ours)));
  const auto order = [&](const Run& run) {
    return std::tuple(!run.full_precision, std::find(known.begin(), known.end(), run.digest) - known.begin(), run.started, run.digest);
  };
  std::sort(runs.begin(), runs.end(), [&](const Run& a, const Run& b) { return order(a) < order(b); });
  io::Hdf5Writer file;
  file.group("runs");
  for (std::size_t i = 0; i < runs.size(); ++i) put_run(file, runs[i], "runs/" + detail::numbered(i) + "/");
  file.save(results);
}

/// The run with the evaluations that an earlier run of the same digest, so of the same bytes, made on other texts. An earlier file that
/// cannot be read is as good as none: it is about to be replaced.
[[nodiscard]] inline Run with_earlier_evaluations(Run run, const std::filesystem::path& earlier) {
  if (!std::filesystem::exists(earlier)) return run;
  std::vector<Evaluation> all;
  try {
    all = get_run(io::Hdf5Reader(earlier, io::Hdf5Origin::ours)).evaluations;
  } catch (const Error&) {
    return run;
  }
  for (Evaluation& e : run.evaluations) {
    const auto same = std::find_if(all.begin(), all.end(), [&](const Evaluation& old) { return old.same_windows(e); });
    if (same == all.end()) {
      all.push_back(std::move(e));
    } else {
      *same = std::move(e);
    }
  }
  run.evaluations = std::move(all);
  return run;
}

/// Saves a run in its own file, then the collection; each atomically. What an earlier run of the same digest found on other texts is kept.
/// The lock is held by the caller, or taken here, where another program that is saving just now is waited for.
inline void save(const std::filesystem::path& results, const Run& run, const io::FileLock& held) {
  std::error_code error;
  std::filesystem::create_directories(runs_folder(results), error);
  if (error) fail(runs_folder(results).string(), ": cannot be made: ", error.message());
  const std::filesystem::path target = run_file(results, run.digest);
  io::Hdf5Writer file;
  put_run(file, with_earlier_evaluations(run, target));
  file.save(target);
  collect(results, held);
}
inline void save(const std::filesystem::path& results, const Run& run) {
  save(results, run, io::FileLock(results, std::chrono::seconds(30)));
}

}  // namespace ptq::results
