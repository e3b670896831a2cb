// The calibration cache: the whole reference stream and its statistics in one file, computed once for all recipes.
//
// The name digests every upstream choice, so an option that is not in the key cannot influence the content.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ptq/calibration/reference.hpp>
#include <ptq/core/digest.hpp>
#include <ptq/io/file_lock.hpp>
#include <ptq/io/hdf5_tensor.hpp>

namespace ptq {

inline constexpr int64_t cache_schema = 1;

/// What the content of a cache follows from, besides the schema.
struct CacheKey {
  std::string model;      ///< digest of the model's files
  std::string tokenizer;  ///< its description
  std::string sampling;   ///< text digest, scheme, seed, sizes
  std::string dtype;

  [[nodiscard]] std::string digest(const Tensor& tokens) const {
    const Tensor ids = tokens.to(at::kLong).contiguous();
    return Sha256()
        .field("schema", cache_schema)
        .field("model", model)
        .field("tokenizer", tokenizer)
        .field("sampling", sampling)
        .field("dtype", dtype)
        .field("tokens", io::bytes_of(ids))
        .hex();
  }
};

/// Bytes of a cache of all block inputs: (layers + 1) · N · T · hidden elements.
[[nodiscard]] inline double cache_bytes(const ModelConfig& config, int64_t sequences, int64_t length, int64_t element) {
  return static_cast<double>(config.layers + 1) * static_cast<double>(sequences * length * config.hidden * element);
}

/// Reads the reference stream from a cache file; makes the file first where it is absent.
class CachedReference : public ReferenceStream {
 public:
  /// `told` hears which block is computed. tokens (N, T).
  CachedReference(const std::filesystem::path& folder, const CacheKey& key, const Transformer& model, const Tensor& tokens, int64_t batch_tokens,
                  const std::function<void(int64_t block)>& told = {})
      : layout_(model.layout()), path_(folder / (key.digest(tokens) + ".h5")) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail(folder.string(), ": cannot be made: ", error.message());
    if (!std::filesystem::exists(path_)) {
      const io::FileLock lock(path_, std::chrono::hours(24));  // another run may be making the same one
      if (!std::filesystem::exists(path_)) make(key, model, tokens, batch_tokens, told);
      else found_ = true;
    } else {
      found_ = true;
    }
  }

  [[nodiscard]] bool found() const { return found_; }  ///< whether the file was there
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  Tensor input(int64_t block) override {
    const io::Hdf5Reader file(path_, io::Hdf5Origin::ours);
    Tensor x = io::get(file, "stream", block, 1).squeeze(0);  // (N, T, hidden)
    return x;
  }
  std::vector<Statistics> statistics(int64_t block) override {
    const io::Hdf5Reader file(path_, io::Hdf5Origin::ours);
    std::vector<Statistics> all;
    for (const InputGroup& group : layout_.groups) {
      const auto row = [&](const char* what) { return io::get(file, std::string(what) + "/" + group.name, block, 1).squeeze(0); };  // (width)
      Statistics s;
      s.sequences = file.attribute<int64_t>("/", "sequences"), s.tokens = file.attribute<int64_t>("/", "tokens");
      s.absmax = row("absmax"), s.low = row("low"), s.high = row("high"), s.sum_abs = row("sum_abs");
      all.push_back(std::move(s));
    }
    return all;
  }

 private:
  void make(const CacheKey& key, const Transformer& model, const Tensor& tokens, int64_t batch_tokens, const std::function<void(int64_t)>& told) const {
    Tensor x = model.embed(tokens);  // (N, T, hidden)
    const int64_t blocks = model.blocks(), n = x.size(0), t = x.size(1), hidden = x.size(2);
    const io::DType type = io::stored_dtype(x, "stream");
    std::vector<io::BulkDataset> sets{{"stream", type, {blocks + 1, n, t, hidden}}};
    for (const InputGroup& g : layout_.groups)
      for (const char* what : {"absmax", "low", "high", "sum_abs"})
        sets.push_back({std::string(what) + "/" + g.name, std::string(what) == "sum_abs" ? io::DType::f64 : type, {blocks, g.width}});
    io::Hdf5Bulk file(path_, sets, [&](io::Hdf5Writer& f) {
      f.attribute("/", "schema", cache_schema);
      f.attribute("/", "model", key.model), f.attribute("/", "tokenizer", key.tokenizer);
      f.attribute("/", "sampling", key.sampling), f.attribute("/", "dtype", key.dtype);
      f.attribute("/", "sequences", n), f.attribute("/", "tokens", n * t);
      io::put(f, "tokens", tokens.to(at::kInt));
    });
    file.write(0, 0, io::bytes_of(x.contiguous()));
    for (int64_t block = 0; block < blocks; ++block) {
      if (told) told(block);
      std::vector<Statistics> stats;
      x = reference_forward(model, block, x, stats, batch_tokens);
      file.write(0, block + 1, io::bytes_of(x));
      for (size_t g = 0; g < stats.size(); ++g) {
        const Statistics& s = stats[g];
        const std::array<Tensor, 4> rows{s.absmax.contiguous(), s.low.contiguous(), s.high.contiguous(), s.sum_abs.contiguous()};
        for (size_t k = 0; k < rows.size(); ++k) file.write(1 + 4 * g + k, block, io::bytes_of(rows[k]));
      }
    }
    file.commit();
  }

  Layout layout_;
  std::filesystem::path path_;
  bool found_ = false;
};

}  // namespace ptq
