// A committed block: artefacts of its linears, fused norms, number formats; and the operators that run it.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/activation.hpp>
#include <ptq/core/precision.hpp>
#include <ptq/core/quantized_linear.hpp>
#include <ptq/model/operators.hpp>

namespace ptq {

/// A format with its grid where that is static.
struct Format {
  Scheme scheme;
  Grid fixed;  ///< defined scale where the scheme is calibrated

  [[nodiscard]] Tensor operator()(const Tensor& x) const {
    if (!scheme.active()) return x;
    return scheme.calibrated ? quantize_activation(x, fixed) : quantize_activation(x, scheme);
  }
};

/// What is rounded besides weights.
struct Formats {
  std::vector<Format> inputs;       ///< by input group
  std::vector<Format> outputs;      ///< by site
  std::array<Scheme, 4> attention;  ///< by Operand
  Scheme branch;                    ///< of both products of a correction

  [[nodiscard]] bool attention_active() const {
    for (const Scheme& s : attention)
      if (s.active()) return true;
    return false;
  }
  /// Whether a result depends on which sequences share a call.
  [[nodiscard]] bool per_call() const {
    const auto whole = [](const Scheme& s) { return s.active() && s.granularity == Granularity::tensor && !s.calibrated; };
    for (const Format& f : inputs)
      if (whole(f.scheme)) return true;
    for (const Format& f : outputs)
      if (whole(f.scheme)) return true;
    for (const Scheme& s : attention)
      if (whole(s)) return true;
    return whole(branch);
  }
};

/// (x A) B, both products rounded to the format of branches. x (…, in) as the linear reads it → (…, out).
/// Zhang et al.: LQER, arXiv 2402.02446, as released: the quantized product beside it is not rounded.
[[nodiscard]] inline Tensor branch(const LowRank& c, const Tensor& x, const Scheme& format) {
  const Tensor inner = quantize_activation(affine(x, c.a.t()), format);  // (…, rank)
  return quantize_activation(affine(inner, c.b.t()), format);
}

/// The formats of one block by its precision; static grids still to be set.
[[nodiscard]] inline Formats formats_of(const Precision& precision, const Layout& layout, int block) {
  Formats f;
  f.inputs.assign(layout.groups.size(), Format{precision.activations, {}});
  for (const Site& site : layout.sites) f.outputs.push_back({precision.output("blocks." + std::to_string(block) + "." + site.name), {}});
  f.attention = precision.attention, f.branch = precision.branch;
  return f;
}

/// Runs a block on given float (or fake-quantized) parameters with its formats on.
struct FormatOperators : FloatOperators {
  FormatOperators(const ModelConfig& config, BlockParameters block, const Formats& formats,
                  const std::vector<LowRank>* corrections = nullptr)
      : FloatOperators(config, std::move(block)), formats_(&formats), corrections_(corrections) {}

  Tensor input(int group, const Tensor& x) override {
    return formats_->inputs[static_cast<size_t>(group)](FloatOperators::input(group, x));
  }
  Tensor linear(int site, const Tensor& x) override {
    const auto s = static_cast<size_t>(site);
    Tensor y = FloatOperators::linear(site, x);  // (…, out)
    if (corrections_ && (*corrections_)[s].defined()) y = y + branch((*corrections_)[s], x, formats_->branch);
    return formats_->outputs[s](y);
  }
  Tensor operand(Operand which, const Tensor& t) override { return Format{formats_->attention[static_cast<size_t>(which)], {}}(t); }
  [[nodiscard]] bool operands_pass() const override { return !formats_->attention_active(); }

 private:
  const Formats* formats_;
  const std::vector<LowRank>* corrections_;
};

/// What is committed for one block.
struct QuantizedBlock {
  std::vector<QuantizedLinear> linears;  ///< by site
  std::vector<NormParameters> norms;     ///< fused
  std::vector<Tensor> input_scale;       ///< by input group; undefined where folded or absent
  Tensor query_norm, key_norm;           // (head) or undefined
  Formats formats;
  NamedTensors state;  ///< of rounding and smoothing, learned or not: "rounding.<site>.<name>", "smoothing.<name>"

  [[nodiscard]] BitCount bits() const {
    BitCount all;
    for (const QuantizedLinear& l : linears)
      if (l.quantized()) all += l.bits();
    return all;
  }
  /// The float parameters it runs with; corrections stay apart.
  [[nodiscard]] BlockParameters parameters() const {
    BlockParameters p;
    for (const QuantizedLinear& l : linears) p.linears.push_back({l.weight(), l.bias});
    p.norms = norms, p.input_scale = input_scale, p.query_norm = query_norm, p.key_norm = key_norm;
    return p;
  }
  [[nodiscard]] std::vector<LowRank> corrections() const {
    std::vector<LowRank> all;
    for (const QuantizedLinear& l : linears) all.push_back(l.correction);
    return all;
  }
};

/// Owns what it runs: a committed block ready for a forward.
struct QuantizedOperators : Operators {
  QuantizedOperators(const ModelConfig& config, const QuantizedBlock& block)
      : formats_(block.formats), corrections_(block.corrections()), inner_(config, block.parameters(), formats_, &corrections_) {}
  QuantizedOperators(const QuantizedOperators&) = delete;
  QuantizedOperators& operator=(const QuantizedOperators&) = delete;

  Tensor norm(int norm, const Tensor& x) override { return inner_.norm(norm, x); }
  Tensor input(int group, const Tensor& x) override { return inner_.input(group, x); }
  Tensor linear(int site, const Tensor& x) override { return inner_.linear(site, x); }
  Tensor operand(Operand which, const Tensor& t) override { return inner_.operand(which, t); }
  [[nodiscard]] bool operands_pass() const override { return inner_.operands_pass(); }

 private:
  Formats formats_;
  std::vector<LowRank> corrections_;
  FormatOperators inner_;
};

}  // namespace ptq
