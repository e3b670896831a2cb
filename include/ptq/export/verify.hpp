// Reads an exported folder back with our own reader and compares it with the quantized model in memory.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ptq/evaluate/perplexity.hpp>
#include <ptq/export/hugging_face.hpp>

namespace ptq {

/// Both models on the same windows, in float32, activations unquantized.
struct ExportCheck {
  double perplexity = 0;    ///< of the exported folder
  double expected = 0;      ///< of the quantized model in memory
  double logits_error = 0;  ///< ‖exported − expected‖ / ‖expected‖ over the first window
  double tolerance = 0;     ///< on both, relative
  bool identical = false;   ///< log-likelihoods and logits bit for bit; so wherever nothing had to be folded, in float32
  int64_t tokens = 0;       ///< evaluated

  [[nodiscard]] bool passed() const { return logits_error <= tolerance && std::abs(perplexity / expected - 1) <= tolerance; }
  /// "exported model: perplexity 70.3879, in memory 70.3879; logits differ by 0 (tolerance 0.0001)"
  [[nodiscard]] std::string text() const {
    return cat("exported model: perplexity ", perplexity, ", in memory ", expected, "; logits differ by ", logits_error, " (tolerance ",
               tolerance, identical ? "), identical" : ")");
  }
};

namespace detail {

/// Relative: what folding may move in float32, and what rounding weights to the stored type moves (8 and 11 bits of mantissa, many layers).
[[nodiscard]] inline double export_tolerance(io::DType dtype) {
  return dtype == io::DType::f32 ? 1e-4 : dtype == io::DType::f16 ? 1e-2 : 5e-2;
}

[[nodiscard]] inline TensorLookup lookup_of(const std::shared_ptr<const io::Checkpoint>& file) {
  return {[file](const std::string& name) { return file->has(name); },
          [file](const std::string& name, at::IntArrayRef shape) { return file->load(name, shape); }};
}

/// The same, with factors that lie in a file of their own added to their weights.
[[nodiscard]] inline TensorLookup with_factors(const TensorLookup& plain, const std::filesystem::path& folder) {
  const auto factors = std::make_shared<const io::SafetensorsFile>((folder / factors_file).string());
  return {plain.has, [plain, factors](const std::string& name, at::IntArrayRef shape) {
            const Tensor w = plain.load(name, shape);  // (out, in)
            const std::string linear = factor_name(name.substr(0, name.rfind('.')));
            const auto get = [&](const std::string& which) {
              const io::StoredTensor* found = factors->find(linear + which);
              if (found == nullptr) return Tensor();
              const auto type = scalar_type(io::known_dtype(*found, factors_file));
              const void* const bytes = factors->bytes(*found).data();
              return at::from_blob(const_cast<void*>(bytes), found->shape, at::dtype(type)).to(at::kFloat, false, /*copy=*/true);
            };
            const Tensor a = get(".lora_A.weight"), b = get(".lora_B.weight");  // (rank, in), (out, rank)
            return name.ends_with(".weight") && a.defined() && b.defined() ? w + at::mm(b, a).to(w.scalar_type()) : w;
          }};
}

/// A committed block in float32 with activations, outputs and attention operands unquantized; divisions and corrections as they run.
struct UnroundedOperators : Operators {
  UnroundedOperators(const ModelConfig& config, const QuantizedBlock& block)
      : corrections_(block.corrections()), inner_(config, parameters(block)) {
    for (LowRank& c : corrections_) c.a = as_float(c.a), c.b = as_float(c.b);
  }
  Tensor norm(int norm, const Tensor& x) override { return inner_.norm(norm, x); }
  Tensor input(int group, const Tensor& x) override { return inner_.input(group, x); }
  Tensor linear(int site, const Tensor& x) override {
    const LowRank& c = corrections_[static_cast<size_t>(site)];
    const Tensor y = inner_.linear(site, x);  // (…, out)
    return c.defined() ? y + at::matmul(at::matmul(x, c.a), c.b) : y;
  }

 private:
  static BlockParameters parameters(const QuantizedBlock& block) {
    BlockParameters p = block.parameters();
    for (LinearParameters& l : p.linears) l.weight = as_float(l.weight), l.bias = as_float(l.bias);
    for (NormParameters& n : p.norms) n.weight = as_float(n.weight), n.bias = as_float(n.bias);
    for (Tensor& s : p.input_scale) s = as_float(s);
    p.query_norm = as_float(p.query_norm), p.key_norm = as_float(p.key_norm);
    return p;
  }

  std::vector<LowRank> corrections_;
  FloatOperators inner_;
};

/// Output of the last block. ids (1, tokens) → (1, tokens, hidden).
[[nodiscard]] inline Tensor last_hidden(const Transformer& model, const Tensor& ids, const BlockOperators& operators) {
  Tensor x = model.embed(ids);
  for (int64_t block = 0; block < model.blocks(); ++block) x = model.forward(block, x, *operators(block));
  return x;
}

}  // namespace detail

/// Reads `folder` and walks `windows` (token ids, (n, length) each) through both models. Throws when the folder cannot be read; whether the
/// two agree is for the caller to ask. `options` are those of the export.
[[nodiscard]] inline ExportCheck verify_export(const io::Checkpoint& source, const CommittedBlocks& blocks,
                                               const std::filesystem::path& folder, const std::vector<Tensor>& windows,
                                               const ExportOptions& options = {}) {
  const at::NoGradGuard no_grad;
  if (windows.empty()) refuse("the check of an export needs a window of token ids");
  const auto open = [](const std::string& path) { return std::make_shared<const io::Checkpoint>(io::Checkpoint::open(path)); };
  const auto original = open(source.path()), exported = open(folder.string());
  const Transformer model(original->config(), detail::lookup_of(original)),
      reread(exported->config(),
             options.factors_apart ? detail::with_factors(detail::lookup_of(exported), folder) : detail::lookup_of(exported));
  Head head = model.load_head();
  if (options.head) head.weight = detail::as_float(options.head->effective_weight());
  const Head reread_head = reread.load_head();
  const BlockOperators committed = [&](int64_t block) {
    return std::make_unique<detail::UnroundedOperators>(model.config(), blocks(block));
  };
  const BlockOperators plain = float_operators(reread);

  const Perplexity expected = perplexity(model, head, windows, committed), found = perplexity(reread, reread_head, windows, plain);
  ExportCheck check;
  check.perplexity = found.estimate().value, check.expected = expected.estimate().value, check.tokens = found.tokens;
  check.tolerance = detail::export_tolerance(options.dtype);
  const Tensor ids = windows.front().narrow(0, 0, 1).narrow(1, 0, std::min<int64_t>(windows.front().size(1), 256));  // (1, tokens)
  const Tensor a = detail::last_hidden(reread, ids, plain), b = detail::last_hidden(model, ids, committed);          // (1, tokens, hidden)
  check.identical = expected.nll == found.nll;
  double apart = 0, length = 0;
  for (int64_t t = 0; t < ids.size(1); t += 32) {  // a few rows of logits at a time
    const int64_t rows = std::min<int64_t>(32, ids.size(1) - t);
    const Tensor p = reread.logits(reread_head, a.narrow(1, t, rows)), q = model.logits(head, b.narrow(1, t, rows));  // (1, rows, vocab)
    check.identical = check.identical && at::equal(p, q);
    apart += (p - q).square().sum(at::kDouble).item<double>(), length += q.square().sum(at::kDouble).item<double>();
  }
  check.logits_error = std::sqrt(apart / length);
  return check;
}

}  // namespace ptq
