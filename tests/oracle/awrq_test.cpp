// One layer through AWRQ against the released code: smoothing, activation codes, H and M, shift, codes, outputs; in float32 and float64.
#include <ptq/core/activation.hpp>
#include <ptq/core/affine.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/gptq.hpp>

#include "layer.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

constexpr Needs needed{.hessian = true, .cross = true};

/// Range per tensor, dynamic, as released.
Scheme activations(int64_t bits) {
  Scheme s;
  s.bits = static_cast<int>(bits), s.granularity = Granularity::tensor, s.range = Range::awrq_activation;
  return s;
}

Scheme scheme_of(const LayerFile& c) {
  Scheme s;
  s.bits = static_cast<int>(c.count("wbits"));
  s.symmetric = c.count("sym") != 0;
  if (const int64_t group = c.count("groupsize"); group > 0) s.granularity = Granularity::group, s.group = group;
  return s;
}

Awrq solver_of(const LayerFile& c) {
  Awrq a;
  a.damp = c.number("percdamp"), a.damp_increase = 0;
  a.block = c.count("blocksize");
  a.order = c.count("act_order") != 0 ? ColumnOrder::descending : ColumnOrder::natural;
  a.statistic_bits = static_cast<int>(c.count("stat_act_bits"));
  a.as_published = true;
  return a;
}

/// The layer as the solver sees it: weight times s, inputs divided by s at run time.
struct Smoothed {
  Tensor w, x;  // (m, n), (sequences, tokens, n)
};

Smoothed smooth(const LayerFile& c) {
  const Tensor w = c.get("inputs/W"), x = c.get("inputs/X");
  if (c.count("smooth") == 0) return {w, x};
  const SmoothQuant smoothing{
      .alpha = c.number("alpha"), .min = c.number("min"), .sites = SmoothSites::all, .fold = false, .stream = Stream::quantized};
  Layout layout;
  layout.sites = {{"layer", 0, w.size(0), w.size(1)}}, layout.groups = {{"layer_in", {0}, w.size(1)}};
  BlockParameters block;
  block.linears = {{w, {}}}, block.input_scale.resize(1);
  Statistics seen;
  for (int64_t i = 0; i < x.size(0); ++i) seen.add(smoothing.needs(), x.narrow(0, i, 1));
  CHECK(at::allclose(seen.absmax, c.get("outputs/act_absmax"), 1e-6, 0));
  const BlockParameters fused = smoothing.fuse(layout, block, smoothing.start(layout, block, {seen}));
  const Tensor s = fused.input_scale[0];  // (n)
  CHECK(at::allclose(s, c.get("outputs/smooth_scales"), 1e-5, 0));
  CHECK(s.le(c.number("min") * (1 + 1e-6)).sum().item<int64_t>() == c.count("smooth_clamped_channels"));
  CHECK(far(fused.linears[0].weight, c.get("outputs/W_smoothed")) < 1e-6);
  return {fused.linears[0].weight, x / s};
}

/// Each sequence rounded on its own range. (sequences, tokens, n)
Tensor rounded(const Tensor& x, const Scheme& scheme) {
  std::vector<Tensor> all;
  for (int64_t i = 0; i < x.size(0); ++i) all.push_back(quantize_activation(x.narrow(0, i, 1), scheme));
  return at::cat(all);
}

/// The rounded inputs are the file's grids at the file's codes.
void check_activations(const LayerFile& c, const Tensor& x) {
  const Tensor scale = c.get("outputs/act_scale"), zero = c.get("outputs/act_zero");  // (sequences)
  const Tensor codes = (x / scale.view({-1, 1, 1})).round() + zero.view({-1, 1, 1}), expected = c.get("outputs/act_codes");
  const Tensor differs = codes.ne(expected);
  CHECK(static_cast<double>(differs.sum().item<int64_t>()) <= 1e-4 * static_cast<double>(codes.numel()));
  CHECK(largest(codes - expected) <= 1);
}

Statistics statistics_of(const Tensor& x, const Scheme& scheme) {
  Statistics s;
  for (int64_t i = 0; i < x.size(0); ++i) {
    const Tensor one = x.narrow(0, i, 1);
    s.add(needed, quantize_activation(one, scheme), one);
  }
  s.finish();
  return s;
}

void replay(const fs::path& path, at::ScalarType dtype) {
  const LayerFile c{io::Hdf5Reader(path), dtype};
  INFO(path.filename().string() << " in " << c10::toString(dtype));
  const auto [w, x] = smooth(c);  // (m, n), (sequences, tokens, n)
  const Tensor xq = rounded(x, activations(c.count("act_bits")));
  const Tensor golden_xq =
      (c.get("outputs/act_codes") - c.get("outputs/act_zero").view({-1, 1, 1})) * c.get("outputs/act_scale").view({-1, 1, 1});
  CHECK(static_cast<double>((xq - golden_xq).abs().gt(1e-5 * largest(golden_xq)).sum().item<int64_t>()) <=
        1e-4 * static_cast<double>(xq.numel()));
  check_activations(c, x);

  const Awrq awrq = solver_of(c);
  const Statistics stats = statistics_of(x, activations(*awrq.statistic_bits));
  CHECK(stats.sequences == c.count("nsamples_counted"));
  const double n = static_cast<double>(stats.sequences);
  check_statistic(c, "H", stats.hessian / n, 1e-5);
  check_statistic(c, "M", stats.cross / n, 5e-4);

  const ColumnFactor f = awrq.factor(stats, "layer");
  check_factor(c, f);
  check_order(c, f.order, f.dead);
  CHECK(at::equal(f.dead, c.raw("debug/dead").ne(0)));
  CHECK(f.dead.sum().item<int64_t>() == c.count("dead_columns"));

  const Tensor live = w.masked_fill(f.dead, 0), shift = awrq.shift(live, stats, f), expected_shift = c.get("debug/shift");  // (m, n)
  CHECK((shift - expected_shift).norm().item<double>() <= 1e-3 * expected_shift.norm().item<double>());
  if (c.has("debug/G")) {
    Tensor g = at::mm(live, stats.cross / n);
    if (f.order.defined()) g = g.index_select(1, f.order);
    CHECK(far(g, c.get("debug/G")) < 1e-3);
  }

  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = scheme_of(c), problem.stats = &stats, problem.shared = &shared;
  const ColumnResult r = awrq.round(problem, f, live, live + shift, /*keep_seen=*/true);
  const Tensor good = check_codes(c, r, f.order);
  check_grids(c, r, good, c.count("groupsize") > 0);
  check_values(c, r, good);
  const bool all = good.all().item<bool>();

  const Solution s = awrq.solve(problem);
  const Tensor q = s.linear.weight();  // (m, n)
  CHECK(at::equal(s.linear.codes, r.codes));
  CHECK(at::equal(s.target, live + shift));

  // Outputs of the first two sequences, then errors of all: of this solver, GPTQ, plain rounding, rounded activations alone.
  const Tensor bias = c.has("inputs/bias") ? c.get("inputs/bias") : Tensor(), y = c.get("outputs/Y");  // (m), (2, tokens, m)
  const Tensor mine = affine(xq.narrow(0, 0, 2), q, bias), apart = (mine - y).masked_fill(~good, 0);
  CHECK(largest(apart) <= 1e-5 * largest(y));
  const Tensor wide = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());  // (sequences, tokens, m)
  const auto error = [&](const Tensor& used, const Tensor& inputs) {
    return squared(wide - at::matmul(inputs.to(at::kDouble), used.to(at::kDouble).t()));
  };
  CHECK(squared(wide) == Approx(c.number("err_ref")).epsilon(1e-5));
  CHECK(error(q, xq) == Approx(c.number("err_awrq")).epsilon(all ? 1e-4 : 5e-3));
  CHECK(error(w, xq) == Approx(c.number("err_act_only")).epsilon(1e-4));
  CHECK(error(fake_quantize(w, fit_grid(w, problem.scheme, true)), xq) == Approx(c.number("err_rtn")).epsilon(1e-4));
  if (awrq.block > 1) return;
  Statistics plain;
  plain.add({.hessian = true}, x);
  plain.finish();
  Shared apart_from;
  problem.stats = &plain, problem.shared = &apart_from;
  const Gptq gptq{.damp = awrq.damp, .damp_increase = 0, .block = 1, .order = awrq.order, .as_published = true};
  const Tensor other = gptq.solve(problem).linear.weight();
  CHECK(error(other, xq) == Approx(c.number("err_gptq")).epsilon(5e-3));
  CHECK(error(other, x) == Approx(c.number("err_gptq_fp_act")).epsilon(5e-3));
}

}  // namespace

TEST_CASE("AWRQ replays the released code layer by layer", "[oracle]") {
  const auto files = oracles({"awrq_"}, {"awrq_actquant", "awrq_opt_block"});
  if (files.empty()) SKIP_TEST("no awrq_*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) replay(path, dtype);
}
