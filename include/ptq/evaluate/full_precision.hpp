// Losses of the full-precision model on a text, kept in the cache: every quantized row is compared with them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include <ptq/core/digest.hpp>
#include <ptq/evaluate/perplexity.hpp>
#include <ptq/io/hdf5.hpp>
#include <ptq/io/made_again.hpp>

namespace ptq {

/// What those losses follow from.
struct FullPrecisionKey {
  std::string model, tokenizer, text, protocol, dtype;  ///< digests and names
  std::string ids;                                      ///< digest of the windows' token ids, the first one (BOS or not) included
  std::string arithmetic;                               ///< threads, instructions, library
  int64_t window = 0, windows = 0;

  [[nodiscard]] std::string digest() const {
    return Sha256()
        .field("full precision", 1)
        .field("model", model)
        .field("tokenizer", tokenizer)
        .field("text", text)
        .field("protocol", protocol)
        .field("dtype", dtype)
        .field("ids", ids)
        .field("arithmetic", arithmetic)
        .field("window", window)
        .field("windows", windows)
        .hex();
  }
};

/// Reads them from `<cache>/<digest>.h5`, or computes and keeps them. `found` tells which.
[[nodiscard]] inline Perplexity cached_full_precision(const std::filesystem::path& cache, const FullPrecisionKey& key, bool& found,
                                                      const std::function<Perplexity()>& compute) {
  const auto path = cache / (key.digest() + ".h5");
  found = std::filesystem::exists(path);
  if (found)
    return io::made_again([&] {
      const io::Hdf5Reader file(path, io::Hdf5Origin::ours);
      return Perplexity{file.read<double>("nll"), file.read<int64_t>("predicted"), file.attribute<int64_t>("/", "tokens")};
    });
  Perplexity p = compute();
  std::error_code error;
  std::filesystem::create_directories(cache, error);
  if (error) fail(cache.string(), ": cannot be made: ", error.message());
  io::Hdf5Writer file;
  file.attribute("/", "model", key.model), file.attribute("/", "text", key.text), file.attribute("/", "protocol", key.protocol);
  file.attribute("/", "tokens", p.tokens), file.attribute("/", "window", key.window);
  file.dataset("nll", p.nll);
  file.dataset("predicted", p.predicted);
  file.save(path);
  return p;
}

}  // namespace ptq
