// A model, its texts and an in-memory run, for tests of the whole pipeline.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ptq/evaluate/perplexity.hpp>
#include <ptq/io/checkpoint.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/tokenizer/open.hpp>
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>

#include "data.hpp"

namespace ptq::test {

/// A checkpoint that a Transformer reads from.
struct Loaded {
  std::shared_ptr<io::Checkpoint> file;
  std::unique_ptr<Transformer> model;

  explicit Loaded(const fs::path& path) : file(std::make_shared<io::Checkpoint>(io::Checkpoint::open(path.string()))) {
    const auto f = file;
    model =
        std::make_unique<Transformer>(f->config(), TensorLookup{[f](const std::string& n) { return f->has(n); },
                                                                [f](const std::string& n, at::IntArrayRef s) { return f->load(n, s); }});
  }
};

/// The first n windows of `length` ids of a shipped text, no special tokens: (n, length) int64.
inline Tensor windows(const fs::path& model, const std::string& text_name, int64_t n, int64_t length) {
  const io::MappedFile mapped(text(text_name).value().string());
  const auto ids =
      io::open_tokenizer(model).encode({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, io::Special::none);
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.begin() + n * length)).view({n, length});
}

/// Keeps committed blocks in memory.
struct MemorySink : CommitSink {
  std::vector<QuantizedBlock> blocks;
  std::vector<BlockReport> reports;
  void commit(int64_t, const QuantizedBlock& b, const Tensor&, const BlockReport& r) override { blocks.push_back(b), reports.push_back(r); }
};

inline Precision precision(const std::string& weights, const std::string& activations = "none") {
  Precision p;
  p.weights = Scheme::parse(weights, "weights", Role::weight);
  p.activations = Scheme::parse(activations, "activations", Role::activation);
  return p;
}

/// Perplexity of the committed blocks.
inline Perplexity evaluate(const Transformer& model, const MemorySink& sink, const Tensor& ids) {
  return perplexity(model, model.load_head(), {ids},
                    [&](int64_t b) { return std::make_unique<QuantizedOperators>(model.config(), sink.blocks[static_cast<size_t>(b)]); });
}

}  // namespace ptq::test
