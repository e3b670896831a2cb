// One layer through GPTQ against the released code: Hessian, factor, order, grids, codes, losses; in float32 and float64.
#include <cmath>

#include <ptq/io/hdf5_tensor.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "data.hpp"

using namespace ptq;

namespace {

namespace fs = std::filesystem;

struct Case {
  io::Hdf5Reader file;
  at::ScalarType dtype;

  [[nodiscard]] Tensor get(const std::string& name) const { return io::get(file, name).to(dtype); }
  [[nodiscard]] Tensor raw(const std::string& name) const { return io::get(file, name); }
  [[nodiscard]] bool has(const std::string& name) const { return file.exists(name); }
  [[nodiscard]] double number(const char* name) const { return file.attribute<double>("/", name); }
  [[nodiscard]] int64_t count(const char* name) const { return file.attribute<int64_t>("/", name); }
};

Scheme scheme_of(const Case& c) {
  Scheme s;
  s.bits = static_cast<int>(c.count("bits"));
  s.symmetric = c.count("sym") != 0;
  s.search = c.count("mse") != 0;
  if (const int64_t group = c.count("groupsize"); group > 0) s.granularity = Granularity::group, s.group = group;
  return s;
}

Gptq solver_of(const Case& c) {
  Gptq g;
  g.damp = c.number("percdamp"), g.damp_increase = 0;
  g.block = c.count("blocksize");
  g.order = c.count("act_order") != 0 ? ColumnOrder::descending : ColumnOrder::natural;
  g.static_groups = c.count("static_groups") != 0;
  g.as_published = true;
  return g;
}

/// The inputs as they came: consecutive chunks of sequences, or single ones as (tokens, n).
Statistics statistics_of(const Case& c, const Tensor& x) {
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

double largest(const Tensor& t) { return t.abs().max().item<double>(); }

/// max |a − b| over max |b|.
double far(const Tensor& a, const Tensor& b) { return largest(a.to(at::kDouble) - b.to(at::kDouble)) / largest(b.to(at::kDouble)); }

double squared(const Tensor& t) { return t.to(at::kDouble).square().sum().item<double>(); }

/// H as the released code had it before dead columns and damping: 2/N Σ x xᵀ.
void check_hessian(const Case& c, const Tensor& h) {
  if (c.has("debug/H")) CHECK(far(h, c.get("debug/H")) < 1e-5);
  if (c.has("debug/H_diag")) CHECK(far(h.diagonal(), c.get("debug/H_diag")) < 1e-5);
  if (c.has("debug/H_head")) CHECK(far(h.narrow(0, 0, 8), c.get("debug/H_head")) < 1e-5);
  if (c.has("debug/dead")) CHECK(at::equal(h.diagonal().eq(0), c.raw("debug/dead").ne(0)));
}

/// U = R⁻¹, R = M diag(R): the published factor H⁻¹ = Uᵀ U from ours, solver order.
void check_factor(const Case& c, const ColumnFactor& f) {
  CHECK(f.damp == Approx(c.number("damp")).epsilon(1e-5));
  const Tensor r = f.loss_weight.sqrt();  // (n)
  if (c.has("debug/U_diag")) CHECK(far(1 / r, c.get("debug/U_diag")) < 1e-4);
  if (!c.has("debug/U")) return;
  const Tensor inverse = at::linalg_solve_triangular(f.unit.to(at::kDouble) * r, at::eye(r.size(0), at::kDouble), /*upper=*/true);
  CHECK(far(inverse, c.get("debug/U")) < 1e-4);
}

/// The same up to a permutation of dead channels among themselves, which tie.
void check_order(const Case& c, const Tensor& order, const Tensor& dead) {
  const Tensor expected = c.raw("outputs/perm").to(at::kLong);
  const Tensor mine = order.defined() ? order : at::arange(expected.size(0));
  const Tensor differs = mine.ne(expected);
  CHECK(at::equal(std::get<0>(mine.sort()), at::arange(expected.size(0))));
  CHECK((differs & ~(dead.index_select(0, mine) & dead.index_select(0, expected))).sum().item<int64_t>() == 0);
}

/// Rows whose codes all agree. Others may differ only where a value lay on a tie: first mismatch of the row within 1e-3 of a half-integer.
Tensor check_codes(const Case& c, const ColumnResult& r, const Tensor& order) {
  const Tensor expected = c.raw("outputs/codes"), perm = order.defined() ? order : at::arange(expected.size(1));
  const Tensor differs = r.codes.to(at::kInt).ne(expected);  // (rows, n)
  const Tensor good = ~differs.any(1);                       // (rows)
  const int64_t wrong = (~good).sum().item<int64_t>(), rows = expected.size(0);
  CHECK(static_cast<double>(wrong) <= std::max(2.0, 0.02 * static_cast<double>(rows)));
  const Tensor scales = c.raw("outputs/group_scale");
  for (int64_t row = 0; row < rows; ++row) {
    if (good[row].item<bool>()) continue;
    const Tensor steps = differs[row].index_select(0, perm).nonzero();  // solver order
    const int64_t column = perm[steps[0].item<int64_t>()].item<int64_t>();
    const int64_t group = c.has("outputs/g_idx") ? c.raw("outputs/g_idx")[column].item<int64_t>() : 0;
    const double at = c.raw("debug/W_seen")[row][column].item<double>() / scales[row][group].item<double>();
    INFO("row " << row << " column " << column << ": " << at << " steps");
    CHECK(std::abs(std::abs(at - std::floor(at)) - 0.5) < 1e-3);
  }
  return good;
}

void check_grids(const Case& c, const ColumnResult& r, const Tensor& good) {
  const bool dynamic = c.count("groupsize") > 0 && c.count("static_groups") == 0;
  const Tensor rows = dynamic ? good : at::ones_like(good);
  const Tensor scale = c.get("outputs/group_scale").index({rows}), zero = c.raw("outputs/group_zero").to(at::kInt).index({rows});
  CHECK(at::allclose(r.grid.scale.index({rows}), scale, dynamic ? 1e-4 : 1e-6, 0));
  CHECK(at::equal(r.grid.zero.index({rows}), zero));
  if (!c.has("outputs/g_idx")) return;
  const int64_t n = r.codes.size(1), group = c.count("groupsize");
  const Tensor mine = r.grid.group_of.defined() ? r.grid.group_of : (at::arange(n) / group).to(at::kInt);
  CHECK(at::equal(mine, c.raw("outputs/g_idx")));
}

void replay(const fs::path& path, at::ScalarType dtype) {
  const Case c{io::Hdf5Reader(path), dtype};
  INFO(path.filename().string() << " in " << c10::toString(dtype));
  const Tensor w = c.get("inputs/W"), x = c.get("inputs/X");  // (m, n), (sequences, tokens, n)
  const Gptq gptq = solver_of(c);
  const Statistics stats = statistics_of(c, x);
  CHECK(stats.sequences == c.count("nsamples_counted"));
  const Tensor h = stats.hessian * (2.0 / static_cast<double>(stats.sequences));  // (n, n)
  check_hessian(c, h);

  const ColumnFactor f = gptq.factor(stats, "layer");
  check_factor(c, f);
  check_order(c, f.order, f.dead);

  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = scheme_of(c), problem.stats = &stats, problem.shared = &shared;
  const ColumnResult r = gptq.round(problem, f, /*keep_seen=*/true);
  const Tensor good = check_codes(c, r, f.order);
  const bool all = good.all().item<bool>();
  check_grids(c, r, good);

  const Tensor q = dequantize(r.codes, r.grid), expected = c.get("outputs/Q");  // (m, n)
  const Tensor agree = r.codes.to(at::kInt).eq(c.raw("outputs/codes")) & good.unsqueeze(1);
  CHECK(largest((q - expected).masked_fill(~agree, 0)) <= 1e-5 * largest(expected));
  if (c.has("debug/W_seen"))
    CHECK(largest((r.seen - c.get("debug/W_seen")).masked_fill(~good.unsqueeze(1), 0)) <= 1e-4 * largest(r.grid.scale));

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
  const auto files = test::oracles({"gptq_"}, {"gptq_grid"});
  if (files.empty()) SKIP_TEST("no gptq_*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) replay(path, dtype);
}
