// Where a run keeps its blocks, and from where a killed one goes on.
//
// <folder>/block_0003.h5 is committed by its rename. Before it, stream_0003.h5 (the quantized stream after the block) and report_0003.h5
// are written; after it the older stream goes. So whatever the instant of a kill, the blocks 0 … k−1 that are there are whole, and the
// stream after block k−1 is there too.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ptq/calibration/stream_file.hpp>
#include <ptq/io/atomic_file.hpp>
#include <ptq/io/file_lock.hpp>
#include <ptq/io/made_again.hpp>
#include <ptq/quantize.hpp>
#include <ptq/run/block_file.hpp>

namespace ptq {
namespace detail {

[[nodiscard]] inline std::string numbered(const char* kind, int64_t block) {
  std::string digits = std::to_string(block);
  if (digits.size() < 4) digits.insert(0, 4 - digits.size(), '0');
  return std::string(kind) + "_" + digits + ".h5";
}

inline void save_report(const std::filesystem::path& path, const BlockReport& r) {
  io::Hdf5Writer f;
  f.attribute("/", "index", r.index);
  f.attribute("/", "error", r.error);
  f.attribute("/", "losses", r.losses);
  f.attribute("/", "tracked", r.tracked);
  std::vector<std::string> stages;
  std::vector<double> seconds;
  for (const auto& [stage, s] : r.seconds) stages.push_back(stage), seconds.push_back(s);
  f.attribute("/", "stages", stages);
  f.attribute("/", "seconds", seconds);
  f.attribute("/", "bits", std::vector<double>{r.bits.codes, r.bits.grid, r.bits.extra, static_cast<double>(r.bits.weights)});
  for (const LinearReport& l : r.linears) {
    const std::string at = "linears/" + l.name;
    f.group(at);
    f.attribute(at, "relative_error", l.relative_error);
    f.attribute(at, "relative_to_rtn", l.relative_to_rtn);
    f.attribute(at, "seconds", l.seconds);
    for (const auto& [name, value] : l.numbers) f.attribute(at, "solver." + name, value);
  }
  f.save(path);
}

[[nodiscard]] inline BlockReport load_report(const std::filesystem::path& path) {
  const io::Hdf5Reader f(path, io::Hdf5Origin::ours);
  BlockReport r;
  r.index = f.attribute<int64_t>("/", "index");
  r.error = f.attribute<double>("/", "error");
  r.losses = f.attribute<std::vector<double>>("/", "losses");
  for (const std::string& a : f.attributes("/"))
    if (a == "tracked") r.tracked = f.attribute<std::vector<double>>("/", a);
  const auto stages = f.attribute<std::vector<std::string>>("/", "stages");
  const auto seconds = f.attribute<std::vector<double>>("/", "seconds");
  for (size_t i = 0; i < std::min(stages.size(), seconds.size()); ++i) r.seconds.emplace_back(stages[i], seconds[i]);
  const auto bits = f.attribute<std::vector<double>>("/", "bits");
  if (bits.size() == 4) r.bits = {bits[0], bits[1], bits[2], static_cast<int64_t>(bits[3])};
  for (const std::string& name : f.groups("linears")) {
    const std::string at = "linears/" + name;
    LinearReport l;
    l.name = name;
    l.relative_error = f.attribute<double>(at, "relative_error");
    l.relative_to_rtn = f.attribute<double>(at, "relative_to_rtn");
    l.seconds = f.attribute<double>(at, "seconds");
    for (const std::string& a : f.attributes(at))
      if (a.starts_with("solver.")) l.numbers.emplace_back(a.substr(7), f.attribute<double>(at, a));
    r.linears.push_back(std::move(l));
  }
  return r;
}

}  // namespace detail

/// The state of one run; a writer holds its folder's lock as long as it lives.
class RunStore : public CommitSink {
 public:
  enum class Access { read, write };

  /// `folder` is named by the digest of everything that changes bytes; another writer in it is an error. Readers see whole blocks always.
  /// `memory` is where the stream of an interrupted run goes on.
  RunStore(std::filesystem::path folder, const Layout& layout, int64_t blocks, Access access = Access::write, StreamMemory memory = {})
      : folder_(std::move(folder)), layout_(layout), blocks_(blocks), memory_(std::move(memory)) {
    if (access == Access::read) return;
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    if (error) fail(folder_.string(), ": cannot be made: ", error.message());
    lock_ = std::make_unique<io::FileLock>(folder_ / "run");
  }

  [[nodiscard]] std::filesystem::path block_path(int64_t block) const { return folder_ / detail::numbered("block", block); }
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  /// Blocks committed without a gap.
  [[nodiscard]] int64_t committed() const {
    int64_t n = 0;
    while (n < blocks_ && std::filesystem::exists(block_path(n)) && std::filesystem::exists(report_path(n))) ++n;
    return n;
  }

  int64_t resume(Tensor& stream) override {
    const int64_t n = committed();
    for (int64_t i = 0; i < n; ++i) (void)block(i), (void)report(i);  // damage shows now, not after the rest is computed
    for (int64_t i = 0; i < blocks_; ++i)
      if (i + 1 != n) std::filesystem::remove(stream_path(i));  // a kill came between commit and tidying
    if (n == 0 || n == blocks_) return n;
    if (!std::filesystem::exists(stream_path(n - 1))) return 0;  // blocks from elsewhere: start over, they come out the same
    stream = load_stream(n - 1);
    return n;
  }

  void commit(int64_t block, const QuantizedBlock& artefact, const Tensor& stream, const BlockReport& report) override {
    if (block + 1 < blocks_) save_stream(block, stream);
    detail::save_report(report_path(block), report);
    save_block(block_path(block), artefact, layout_);
    if (block > 0) std::filesystem::remove(stream_path(block - 1));
  }

  [[nodiscard]] QuantizedBlock block(int64_t i) const {
    return io::made_again([&] { return load_block_file(block_path(i), layout_); });
  }
  [[nodiscard]] BlockReport report(int64_t i) const {
    return io::made_again([&] { return detail::load_report(report_path(i)); });
  }

 private:
  [[nodiscard]] std::filesystem::path stream_path(int64_t block) const { return folder_ / detail::numbered("stream", block); }
  [[nodiscard]] std::filesystem::path report_path(int64_t block) const { return folder_ / detail::numbered("report", block); }

  [[nodiscard]] Tensor load_stream(int64_t block) const {
    return io::made_again([&] {
      const io::Hdf5Reader file(stream_path(block), io::Hdf5Origin::ours);
      const Tensor t = read_stream(file, "stream", {}, memory_);  // (N, T, hidden)
      if (stream_digest(t).hex() != file.attribute<std::string>("/", "sha256"))
        fail(file.path().string(), ": is damaged: its elements are not those that were written");
      return t;
    });
  }
  void save_stream(int64_t block, const Tensor& stream) const {  // stream (N, T, hidden)
    const Tensor t = stream.contiguous();
    const std::string digest = stream_digest(t).hex();  // elements of bulk datasets are not sealed
    io::Hdf5Bulk file(stream_path(block), {{"stream", io::stored_dtype(t, "stream"), t.sizes().vec()}},
                      [&](io::Hdf5Writer& f) { f.attribute("/", "sha256", digest); });
    write_stream(file, 0, {}, t);
    file.commit();
  }

  std::filesystem::path folder_;
  Layout layout_;
  int64_t blocks_;
  StreamMemory memory_;
  std::unique_ptr<io::FileLock> lock_;
};

}  // namespace ptq
