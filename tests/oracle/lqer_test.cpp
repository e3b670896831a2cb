// LQER and L²QER of one layer against the released code: statistic, scales, formats, singular values, factors, outputs; in float32 and
// float64.
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/quantized_block.hpp>

#include "layer.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// A block of the released code as a format: [1, 16] → b16, [1, -1] and [-1] → one exponent a row.
Scheme scheme_of(int64_t bits, int64_t block) {
  Scheme s;
  s.bits = static_cast<int>(bits), s.symmetric = true, s.range = Range::mx_ceil;
  s.granularity = block > 0 ? Granularity::group : Granularity::channel, s.group = block > 0 ? block : 0;
  return s;
}

std::vector<int64_t> block_of(const LayerFile& c, const char* name) {
  const auto found = c.file.attribute<std::vector<int64_t>>("/", name);
  return found;
}

double length(const Tensor& t) { return std::sqrt(squared(t)); }

/// ‖a − b‖ / ‖b‖, both with rows scaled by s.
double off(const Tensor& a, const Tensor& b, const Tensor& s = at::ones({1, 1})) {
  return length((a - b).to(at::kDouble) * s.to(at::kDouble)) / length(b.to(at::kDouble) * s.to(at::kDouble));
}

Statistics statistics_of(const Tensor& x, const Tensor& sizes) {
  Statistics stats;
  int64_t first = 0;
  for (int64_t i = 0; i < sizes.numel(); ++i) {
    const int64_t count = sizes[i].item<int64_t>();
    stats.add({.profile = true}, x.narrow(0, first, count));
    first += count;
  }
  return stats;
}

/// The policy for consecutive batches of the given sizes. Where they are not all equal but for a smaller last one, each batch becomes one
/// sequence of the statistics, with the batch's mean.
L2qer policy_of(Statistics& stats, const Tensor& sizes) {
  L2qer p;
  p.batch = sizes[0].item<int64_t>();
  bool regular = true;
  for (int64_t i = 0; i < sizes.numel(); ++i) {
    const int64_t size = sizes[i].item<int64_t>();
    regular = regular && (size == p.batch || (i + 1 == sizes.numel() && size < p.batch));
  }
  if (regular) return p;
  std::vector<Tensor> means;
  int64_t first = 0;
  for (int64_t i = 0; i < sizes.numel(); ++i) {
    const int64_t count = sizes[i].item<int64_t>();
    means.push_back(stats.profile.narrow(0, first, count).mean(0));
    first += count;
  }
  stats.tokens = stats.tokens / stats.sequences * sizes.numel(), stats.sequences = sizes.numel();
  stats.profile = at::stack(means);
  p.batch = 1;
  return p;
}

/// Equal bit for bit in float32; in float64 ties, where 1e-9 is not lost, and nothing else may differ.
void check_rounded(const Tensor& mine, const Tensor& golden, const Tensor& x, at::ScalarType dtype) {
  if (dtype == at::kFloat) {
    CHECK(at::equal(mine, golden));
    return;
  }
  const Tensor differs = mine.ne(golden);
  const Tensor middle = ((mine + golden) / 2 - x).abs();  // a tie lies half way between the two
  CHECK(largest(middle.masked_fill(~differs, 0)) <= 2e-9);
  CHECK(differs.to(at::kDouble).mean().item<double>() < 0.02);
}

void replay(const fs::path& path, at::ScalarType dtype) {
  const LayerFile c{io::Hdf5Reader(path), dtype};
  INFO(path.filename().string() << " in " << c10::toString(dtype));
  const bool weighted = c.file.attribute<std::string>("/", "kind") == "L2QER", weight_only = c.count("weight_only") != 0;
  const Tensor w = c.get("inputs/W"), x = c.get("inputs/X");  // (m, n), (sequences, tokens, n)
  const int64_t width_x = c.count("width_x");

  // Weight, input and bias in their formats.
  const Scheme format = scheme_of(c.count("width_w"), block_of(c, "w_block")[1]);
  QuantizedLinear linear;
  linear.grid = fit_grid(w, format), linear.codes = quantize(w, linear.grid);
  const Tensor wq = linear.weight();
  check_rounded(wq, c.get("outputs/W_q"), w, dtype);
  CHECK(at::equal(block_float(w, format), wq));
  const Scheme input = weight_only ? Scheme{} : scheme_of(width_x, block_of(c, "x_block")[1]);
  if (!weight_only) check_rounded(quantize_activation(x, input), c.get("outputs/X_q"), x, dtype);
  Tensor bias = c.count("has_bias") != 0 ? c.get("inputs/bias") : Tensor();  // (m)
  if (bias.defined() && !weight_only) {
    const auto block = block_of(c, "bias_block");
    const Tensor rounded = quantize_activation(bias.unsqueeze(0), scheme_of(width_x, block.back())).squeeze(0);
    check_rounded(rounded, c.get("outputs/bias_q"), bias, dtype);
  }
  // What follows is compared on the released values, so that a tie does not count twice.
  const Tensor error = (w - c.get("outputs/W_q"));  // (m, n)
  const Tensor xq = weight_only ? x : c.get("outputs/X_q");
  if (bias.defined() && !weight_only) bias = c.get("outputs/bias_q");

  Statistics stats = statistics_of(x, c.raw("inputs/batch_sizes"));
  Tensor s = at::ones({w.size(1)}, at::kDouble);  // (n)
  const L2qer l2qer = policy_of(stats, c.raw("inputs/batch_sizes"));
  if (weighted) {
    const Tensor a = l2qer.magnitudes(stats, "layer");
    CHECK(at::allclose(a, c.get("outputs/stat").to(at::kDouble), 1e-5, 0));
    s = l2qer.weights(a);
    CHECK(at::allclose(s, c.get("outputs/S").to(at::kDouble), 1e-5, 0));
  }
  const Tensor scaled = error.to(at::kDouble) * s;  // (m, n)
  CHECK(length(error) == Approx(c.number("norm_E")).epsilon(1e-4));
  CHECK(length(scaled) == Approx(c.number("norm_SE")).epsilon(1e-4));
  const Tensor sigma = truncated_svd(scaled.to(dtype), std::min(w.size(0), w.size(1))).sigma, golden = c.get("outputs/singular_values");
  CHECK(largest(sigma - golden) <= 1e-5 * largest(golden));

  const Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble),
                                  c.count("has_bias") != 0 ? std::optional(c.raw("inputs/bias").to(at::kDouble)) : std::nullopt);
  const std::optional<Tensor> b = bias.defined() ? std::optional(bias) : std::nullopt;
  const auto output = [&](const LowRank& factors) {
    Tensor y = at::linear(xq, c.get("outputs/W_q"), b);  // (sequences, tokens, m)
    return factors.defined() ? y + branch(factors, xq, input) : y;
  };
  CHECK(off(output({}).narrow(0, 0, 2), c.get("outputs/Y_no_correction")) < 1e-5);

  for (const int64_t rank : block_of(c, "ranks")) {
    INFO("rank " << rank);
    const std::string at = cat("outputs/rank", rank);
    const auto number = [&](const char* name) { return c.file.attribute<double>(at, name); };
    const auto fit = [&](const Scheme& factors, FactorBlocks blocks) {
      Residual r{"layer", error, &stats, nullptr, factors};
      if (!weighted) return Lqer{.rank = rank, .blocks = blocks}.fit(r);
      L2qer p = l2qer;
      p.rank = rank, p.blocks = blocks;
      return p.fit(r);
    };
    const auto product = [](const LowRank& f) { return at::mm(f.a.to(at::kDouble), f.b.to(at::kDouble)); };  // (n, m)
    const Tensor e = error.t().to(at::kDouble), rows = s.unsqueeze(1);                                       // (n, m), (n, 1)
    const LowRank plain = fit({}, FactorBlocks::outer);
    const Tensor ab = product(plain);
    CHECK(off(ab, c.get(at + "/AB"), rows) < 1e-3);
    CHECK(length(e - ab) == Approx(number("res_F")).epsilon(1e-4));
    CHECK(length((e - ab) * rows) == Approx(number("res_SF")).epsilon(1e-4));
    LowRank rounded = plain;
    if (!weight_only) {
      const auto a = block_of(c, "A_block"), bb = block_of(c, "B_block");
      const bool last = a[0] == 1;
      CHECK((last ? bb[0] == 1 : bb[1] == 1));
      rounded = fit(scheme_of(width_x, last ? a[1] : a[0]), last ? FactorBlocks::last : FactorBlocks::first);
    }
    const Tensor golden_ab = at::mm(c.get(at + "/A_q").to(at::kDouble), c.get(at + "/B_q").to(at::kDouble));
    CHECK(off(product(rounded), golden_ab) < (width_x >= 8 ? 5e-3 : 2e-2));
    CHECK(length((e - product(rounded)) * rows) == Approx(number("resq_SF")).epsilon(1e-3));
    const Tensor y = output(rounded);
    CHECK(off(y.narrow(0, 0, 2), c.get(at + "/Y")) < (weight_only ? 1e-5 : 3e-3));
    CHECK(squared(y.to(at::kDouble) - exact) == Approx(number("out_err")).epsilon(weight_only ? 1e-4 : 1e-2));
  }
}

}  // namespace

TEST_CASE("the activation statistic of L2QER replays the released code, however tokens are batched", "[oracle]") {
  const auto files = oracles({"lqer_stat"});
  if (files.empty()) SKIP_TEST("no lqer_stat*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) {
    const LayerFile c{io::Hdf5Reader(path), dtype};
    const Tensor x = c.get("inputs/X");
    int cases = 0;
    for (const std::string& name : c.file.groups("outputs")) {
      INFO(path.filename().string() << " " << name << " in " << c10::toString(dtype));
      const Tensor sizes = c.raw("outputs/" + name + "/batch_sizes");
      Statistics stats = statistics_of(x, sizes);
      const Tensor a = policy_of(stats, sizes).magnitudes(stats, "layer");
      CHECK(at::allclose(a, c.get("outputs/" + name + "/stat").to(at::kDouble), 1e-5, 0));
      CHECK(at::allclose(L2qer{}.weights(a), c.get("outputs/" + name + "/S").to(at::kDouble), 1e-5, 0));
      ++cases;
    }
    CHECK(cases >= 3);
  }
}

TEST_CASE("LQER and L2QER replay the released code layer by layer", "[oracle]") {
  const auto files = oracles({"lqer_svd_", "lqer_act_"});
  if (files.empty()) SKIP_TEST("no lqer_svd_*.h5 or lqer_act_*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) replay(path, dtype);
}
