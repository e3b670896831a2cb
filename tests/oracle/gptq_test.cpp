// One layer through GPTQ against the released code: Hessian, factor, order, grids, codes, losses; in float32 and float64.
#include <ptq/solver/gptq.hpp>

#include "layer.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

Scheme scheme_of(const LayerFile& c) {
  Scheme s;
  s.bits = static_cast<int>(c.count("bits"));
  s.symmetric = c.count("sym") != 0;
  s.search = c.count("mse") != 0;
  if (const int64_t group = c.count("groupsize"); group > 0) s.granularity = Granularity::group, s.group = group;
  return s;
}

Gptq solver_of(const LayerFile& c) {
  Gptq g;
  g.damp = c.number("percdamp"), g.damp_increase = 0;
  g.block = c.count("blocksize");
  g.order = c.count("act_order") != 0 ? ColumnOrder::descending : ColumnOrder::natural;
  g.static_groups = c.count("static_groups") != 0;
  g.as_published = true;
  return g;
}

/// The inputs as they came: consecutive chunks of sequences, or single ones as (tokens, n).
Statistics statistics_of(const LayerFile& c, const Tensor& x) {
  Statistics s;
  int64_t first = 0;
  const Tensor sizes = c.raw("inputs/batch_sizes");
  for (int64_t call = 0; call < sizes.numel(); ++call) {
    const int64_t n = sizes[call].item<int64_t>();
    const Tensor part = x.narrow(0, first, n);  // (n, tokens, channels)
    s.add({.hessian = true}, c.count("two_d_inputs") != 0 ? part.reshape({-1, x.size(2)}) : part);
    first += n;
  }
  s.finish();
  return s;
}

void replay(const fs::path& path, at::ScalarType dtype) {
  const LayerFile c{io::Hdf5Reader(path), dtype};
  INFO(path.filename().string() << " in " << c10::toString(dtype));
  const Tensor w = c.get("inputs/W"), x = c.get("inputs/X");  // (m, n), (sequences, tokens, n)
  const Gptq gptq = solver_of(c);
  const Statistics stats = statistics_of(c, x);
  CHECK(stats.sequences == c.count("nsamples_counted"));
  const Tensor h = stats.hessian * (2.0 / static_cast<double>(stats.sequences));  // (n, n)
  check_statistic(c, "H", h, 1e-5);
  if (c.has("debug/dead")) CHECK(at::equal(h.diagonal().eq(0), c.raw("debug/dead").ne(0)));

  const ColumnFactor f = gptq.factor(stats, "layer");
  check_factor(c, f);
  check_order(c, f.order, f.dead);

  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = scheme_of(c), problem.stats = &stats, problem.shared = &shared;
  const ColumnResult r = gptq.round(problem, f, /*keep_seen=*/true);
  const Tensor good = check_codes(c, r, f.order);
  const bool all = good.all().item<bool>();
  check_grids(c, r, good, c.count("groupsize") > 0 && c.count("static_groups") == 0);
  check_values(c, r, good);

  const Tensor q = dequantize(r.codes, r.grid);  // (m, n)

  const double loss = r.column_loss.sum().item<double>() / 2;
  CHECK(loss == Approx(c.number("loss")).epsilon(all ? 1e-4 : 5e-3));
  if (all) {
    const Tensor columns = r.column_loss / 2, original = f.order.defined() ? columns.index_select(0, at::argsort(f.order)) : columns;
    CHECK(far(original, c.get("debug/loss_per_column")) < 1e-4);
  }
  const Tensor tokens = x.reshape({-1, x.size(2)}).to(at::kDouble);  // (tokens, n)
  const auto error = [&](const Tensor& used) { return squared(at::mm(tokens, (w - used).to(at::kDouble).t())); };
  CHECK(error(q) == Approx(c.number("err_gptq")).epsilon(all ? 1e-5 : 5e-3));
  CHECK(squared(at::mm(tokens, w.to(at::kDouble).t())) == Approx(c.number("err_ref")).epsilon(1e-5));

  // Plain rounding: symmetric grids put the largest weight of a row on a tie, where float64 need not follow float32.
  const Grid plain = fit_grid(w, problem.scheme, true);
  const Tensor rtn = fake_quantize(w, plain), cells = plain.scale.repeat_interleave(w.size(1) / plain.groups(), 1);  // (m, n)
  const Tensor tie = (((w / cells) - (w / cells).floor()) - 0.5).abs().lt(dtype == at::kDouble ? 1e-5 : 0);
  CHECK(largest((rtn - c.get("outputs/Q_rtn")).masked_fill(tie, 0)) < 1e-5 * largest(rtn));
  if (!tie.any().item<bool>()) CHECK(error(rtn) == Approx(c.number("err_rtn")).epsilon(1e-5));
  CHECK(tie.sum().item<int64_t>() <= w.size(0) * plain.groups());

  // loss = ½ tr(E (H + λ I) Eᵀ), E = W − Q with dead columns of W zeroed
  const Tensor e = (w.masked_fill(f.dead, 0) - q).to(at::kDouble);
  Tensor damped = h.to(at::kDouble).clone();
  damped.diagonal().masked_fill_(f.dead, 1).add_(f.damp);
  CHECK(0.5 * at::sum(at::mm(e, damped) * e).item<double>() == Approx(loss).epsilon(1e-3));

  // What the walk commits is the same.
  const Solution s = gptq.solve(problem);
  CHECK(at::equal(s.linear.codes, r.codes));
  CHECK(at::equal(s.linear.weight(), q));
  CHECK(at::equal(s.target - q, r.error));
}

}  // namespace

TEST_CASE("GPTQ replays the released code layer by layer", "[oracle]") {
  const auto files = oracles({"gptq_"}, {"gptq_grid"});
  if (files.empty()) SKIP_TEST("no gptq_*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) replay(path, dtype);
}
