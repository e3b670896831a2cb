// The calibration cache: the whole reference stream and its statistics in one file, computed once for all recipes.
//
// The name digests every upstream choice, so an option that is not in the key cannot influence the content.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/calibration/reference.hpp>
#include <ptq/calibration/stream_file.hpp>
#include <ptq/io/file_lock.hpp>
#include <ptq/io/hdf5_tensor.hpp>
#include <ptq/io/made_again.hpp>

namespace ptq {

inline constexpr int64_t cache_schema = 3;

/// What the content of a cache follows from, besides the schema.
struct CacheKey {
  std::string model;      ///< digest of the model's files
  std::string tokenizer;  ///< its description
  std::string sampling;   ///< text digest, scheme, seed, sizes
  std::string dtype;
  std::string arithmetic;  ///< threads, instructions, library: what decides the last bits

  [[nodiscard]] std::string digest(const Tensor& tokens) const {
    const Tensor ids = tokens.to(at::kLong).contiguous();
    return Sha256()
        .field("schema", cache_schema)
        .field("model", model)
        .field("tokenizer", tokenizer)
        .field("sampling", sampling)
        .field("dtype", dtype)
        .field("arithmetic", arithmetic)
        .field("tokens", io::bytes_of(ids))
        .hex();
  }
};

/// Bytes of a cache of all block inputs: (layers + 1) · N · T · hidden elements.
[[nodiscard]] inline double cache_bytes(const ModelConfig& config, int64_t sequences, int64_t length, int64_t element) {
  return static_cast<double>(config.layers + 1) * static_cast<double>(sequences * length * config.hidden * element);
}

/// Reads the reference stream from a cache file, or maps it where memory is mapped; makes the file first where it is absent. Rows of the
/// large datasets lie outside the file's seal, so each has a SHA-256 of its own, checked when the row is read.
class CachedReference : public ReferenceStream {
 public:
  /// `told` hears which block is computed. tokens (N, T).
  CachedReference(const std::filesystem::path& folder, const CacheKey& key, const Transformer& model, const Tensor& tokens,
                  int64_t batch_tokens, const std::function<void(int64_t block)>& told = {}, StreamMemory memory = {})
      : layout_(model.layout()), path_(folder / (key.digest(tokens) + ".h5")), memory_(std::move(memory)) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail(folder.string(), ": cannot be made: ", error.message());
    if (!std::filesystem::exists(path_)) {
      const io::FileLock lock(path_, std::chrono::hours(24));  // another run may be making the same one
      if (!std::filesystem::exists(path_))
        make(key, model, tokens, batch_tokens, told);
      else
        found_ = true;
    } else {
      found_ = true;
    }
  }

  [[nodiscard]] bool found() const { return found_; }  ///< whether the file was there
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  Tensor input(int64_t block) override {
    for (const auto& [row, x] : mapped_)
      if (row == block && x.defined()) return x;
    Tensor read = io::made_again([&] {
      const io::Hdf5Reader file(path_, io::Hdf5Origin::ours);
      Tensor x = read_stream(file, "stream", block, memory_);  // (N, T, hidden)
      require_same(file, "sha256/stream", block, stream_digest(x));
      return x;
    });
    if (memory_.mapped()) mapped_[static_cast<size_t>(block % 2)] = {block, read};
    return read;
  }
  std::vector<Statistics> statistics(int64_t block) override {
    return io::made_again([&] {
      const io::Hdf5Reader file(path_, io::Hdf5Origin::ours);
      std::vector<Statistics> all;
      for (const InputGroup& group : layout_.groups) {
        const auto row = [&](const char* what) {
          return io::get(file, std::string(what) + "/" + group.name, block, 1).squeeze(0);
        };  // (width); profile: (sequences, width)
        Statistics s;
        s.sequences = file.attribute<int64_t>("/", "sequences"), s.tokens = file.attribute<int64_t>("/", "tokens");
        s.absmax = row("absmax"), s.low = row("low"), s.high = row("high"), s.middle = row("middle");
        s.profile = row("profile"), s.square = row("square");
        all.push_back(std::move(s));
      }
      require_same(file, "sha256/statistics", block, digest(all));
      return all;
    });
  }

  std::vector<Tensor> second_moments(int64_t block, const std::function<std::vector<Tensor>()>& compute) override {
    std::filesystem::path file = path_;
    file.replace_extension(cat("moments.", block, ".h5"));
    std::vector<Tensor> all;
    if (std::filesystem::exists(file))
      return io::made_again([&] {
        const io::Hdf5Reader kept(file, io::Hdf5Origin::ours);
        all.clear();
        for (const InputGroup& group : layout_.groups) {
          all.push_back(io::get(kept, "second_moment/" + group.name));
          if (all.back().sizes() != at::IntArrayRef({group.width, group.width}))
            fail(file.string(), ": a second moment of ", shape_text(all.back()), " does not fit ", group.name);
        }
        return all;
      });
    all = compute();
    io::Hdf5Writer made;
    for (size_t g = 0; g < all.size(); ++g) io::put(made, "second_moment/" + layout_.groups[g].name, all[g]);
    made.save(file);
    return all;
  }

 private:
  static constexpr int64_t hex_digits = 64;

  static constexpr std::array<const char*, 6> names{"absmax", "low", "high", "middle", "profile", "square"};
  static std::array<Tensor, 6> rows(const Statistics& s) {
    return {s.absmax.contiguous(), s.low.contiguous(),     s.high.contiguous(),
            s.middle.contiguous(), s.profile.contiguous(), s.square.contiguous()};
  }

  static Sha256 digest(const std::vector<Statistics>& all) {
    Sha256 d;
    for (const Statistics& s : all)
      for (const Tensor& row : rows(s)) d.update(io::bytes_of(row));
    return d;
  }
  static void require_same(const io::Hdf5Reader& file, const std::string& dataset, int64_t row, const Sha256& found) {
    const Tensor kept = io::get(file, dataset, row, 1).contiguous();  // (1, 64) characters
    if (std::string(reinterpret_cast<const char*>(io::bytes_of(kept).data()), kept.nbytes()) != found.hex())
      fail(file.path().string(), ": is damaged: block ", row, " is not what was written");
  }

  void make(const CacheKey& key, const Transformer& model, const Tensor& tokens, int64_t batch_tokens,
            const std::function<void(int64_t)>& told) const {
    Tensor x = embed_stream(model, tokens, batch_tokens, memory_);  // (N, T, hidden)
    const int64_t blocks = model.blocks(), n = x.size(0), t = x.size(1), hidden = x.size(2);
    const io::DType type = io::stored_dtype(x, "stream");
    std::vector<io::BulkDataset> sets{{"stream", type, {blocks + 1, n, t, hidden}}};
    for (const InputGroup& g : layout_.groups)
      for (const std::string what : names) {
        const bool sum = what == "profile" || what == "square";
        sets.push_back({what + "/" + g.name, sum ? io::DType::f64 : type, {blocks, g.width}});
        if (what == "profile") sets.back().shape = {blocks, n, g.width};
      }
    const size_t stream_digests = sets.size(), statistics_digests = stream_digests + 1;
    sets.push_back({"sha256/stream", io::DType::u8, {blocks + 1, hex_digits}});
    sets.push_back({"sha256/statistics", io::DType::u8, {blocks, hex_digits}});
    io::Hdf5Bulk file(path_, sets, [&](io::Hdf5Writer& f) {
      f.attribute("/", "schema", cache_schema);
      f.attribute("/", "model", key.model), f.attribute("/", "tokenizer", key.tokenizer);
      f.attribute("/", "sampling", key.sampling), f.attribute("/", "dtype", key.dtype), f.attribute("/", "arithmetic", key.arithmetic);
      f.attribute("/", "sequences", n), f.attribute("/", "tokens", n * t);
      io::put(f, "tokens", tokens.to(at::kInt));
    });
    const auto write_digest = [&](size_t set, int64_t row, const Sha256& d) {
      const std::string text = d.hex();
      file.write(set, row, std::as_bytes(std::span(text.data(), text.size())));
    };
    const auto write_stream = [&](int64_t row) {
      const Tensor whole = x.contiguous();
      ptq::write_stream(file, 0, row, whole);
      write_digest(stream_digests, row, stream_digest(whole));
    };
    write_stream(0);
    for (int64_t block = 0; block < blocks; ++block) {
      if (told) told(block);
      std::vector<Statistics> stats;
      x = reference_forward(model, block, x, stats, batch_tokens, memory_);
      write_stream(block + 1);
      for (size_t g = 0; g < stats.size(); ++g) {
        const auto all = rows(stats[g]);
        for (size_t k = 0; k < all.size(); ++k) file.write(1 + all.size() * g + k, block, io::bytes_of(all[k]));
      }
      write_digest(statistics_digests, block, digest(stats));
    }
    file.commit();
  }

  Layout layout_;
  std::filesystem::path path_;
  StreamMemory memory_;
  std::array<std::pair<int64_t, Tensor>, 2> mapped_{};  // rows that are as written, for they cost no memory
  bool found_ = false;
};

}  // namespace ptq
