// The quantized stream advances through a committed block; on the way errors are measured.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <ptq/calibration/observer.hpp>
#include <ptq/calibration/stream_memory.hpp>
#include <ptq/model/transformer.hpp>
#include <ptq/quantize/report.hpp>
#include <ptq/quantized_block.hpp>

namespace ptq {
namespace detail {

/// Squared output errors of the linears of a block on a few tokens.
class ErrorMeter {
 public:
  ErrorMeter(const Layout& layout, const BlockParameters& fused, const std::vector<Scheme>& schemes, const Scheme& branch, int64_t tokens)
      : layout_(layout),
        fused_(fused),
        schemes_(schemes),
        branch_(branch),
        left_(layout.groups.size(), tokens),
        sums_(layout.sites.size()) {}

  /// x the group's input before its format, seen after it; (B, T, in). done: parameters and corrections that run.
  void add(int group, const Tensor& x, const Tensor& seen, const BlockParameters& done, const std::vector<LowRank>& corrections) {
    int64_t& left = left_[static_cast<size_t>(group)];
    if (left <= 0) return;
    const Tensor flat = x.reshape({-1, x.size(-1)}), quantized = seen.reshape({-1, x.size(-1)});  // (tokens, in)
    const int64_t take = std::min(left, flat.size(0));
    left -= take;
    const Tensor a = flat.narrow(0, 0, take), b = quantized.narrow(0, 0, take);
    for (const int site : layout_.groups[static_cast<size_t>(group)].sites) {
      const auto i = static_cast<size_t>(site);
      if (!schemes_[i].active()) continue;
      const Tensor& w = fused_.linears[i].weight;
      const Tensor y = at::linear(a, w);  // (tokens, out)
      Tensor q = at::linear(b, done.linears[i].weight);
      if (corrections[i].defined()) q = q + branch(corrections[i], b, branch_);
      const Tensor plain = at::linear(b, fake_quantize(w, fit_grid(w, schemes_[i])));
      const auto square = [](const Tensor& t) { return t.square().sum(at::kDouble).item<double>(); };
      sums_[i].reference += square(y), sums_[i].error += square(y - q), sums_[i].plain += square(y - plain);
    }
  }
  void report(std::vector<LinearReport>& linears) const {
    for (size_t i = 0; i < sums_.size(); ++i) {
      const Sum& s = sums_[i];
      linears[i].relative_error = s.reference > 0 ? s.error / s.reference : 0;
      linears[i].relative_to_rtn = s.plain > 0 ? s.error / s.plain : s.error > 0 ? 0 : 1;
    }
  }

 private:
  struct Sum {
    double reference = 0, error = 0, plain = 0;
  };
  const Layout& layout_;
  const BlockParameters& fused_;
  const std::vector<Scheme>& schemes_;
  const Scheme branch_;
  std::vector<int64_t> left_;
  std::vector<Sum> sums_;
};

/// The committed block, with a meter at the input of every group.
struct MeteredOperators : FormatOperators {
  MeteredOperators(const ModelConfig& config, BlockParameters block, const Formats& formats, const std::vector<LowRank>& corrections,
                   ErrorMeter& meter)
      : FormatOperators(config, std::move(block), formats, &corrections), corrections_(corrections), meter_(meter) {}
  Tensor input(int group, const Tensor& x) override {
    const Tensor before = FloatOperators::input(group, x), after = FormatOperators::input(group, x);
    meter_.add(group, before, after, parameters, corrections_);
    return after;
  }

 private:
  const std::vector<LowRank>& corrections_;
  ErrorMeter& meter_;
};

}  // namespace detail

/// The stream after the block: (N, T, hidden), made in `memory`. `target` is the reference stream after it. Fills the report's errors.
[[nodiscard]] inline Tensor advance(const Transformer& model, int64_t block, const QuantizedBlock& artefact, const BlockParameters& fused,
                                    const std::vector<Scheme>& schemes, const Tensor& xq, const Tensor& target, int64_t batch_tokens,
                                    int64_t measured_tokens, BlockReport& report, const StreamMemory& memory = {}) {
  detail::ErrorMeter meter(model.layout(), fused, schemes, artefact.formats.branch, measured_tokens);
  const std::vector<LowRank> corrections = artefact.corrections();
  detail::MeteredOperators ops(model.config(), artefact.parameters(), artefact.formats, corrections, meter);
  const Tensor out = memory.empty_like(xq);
  double error = 0, size = 0;
  for_batches(xq.size(0), xq.size(1), artefact.formats.per_call() ? 1 : batch_tokens, [&](int64_t first, int64_t count) {
    const Tensor from = xq.narrow(0, first, count), aim = target.narrow(0, first, count), to = out.narrow(0, first, count);
    const Tensor y = model.forward(block, from, ops);
    require_finite(y, "block " + std::to_string(block) + ", output of the quantized block");
    const Tensor t = aim.to(y.scalar_type());
    error += (y - t).square().sum(at::kDouble).item<double>();
    size += t.square().sum(at::kDouble).item<double>();
    to.copy_(y);
    io::forget(from), io::forget(aim), io::forget(to);
  });
  meter.report(report.linears);
  report.error = size > 0 ? error / size : 0;
  return out;
}

}  // namespace ptq
