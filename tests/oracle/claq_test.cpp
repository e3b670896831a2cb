// One layer through CLAQ against the released code: plan, reservation, codes on its codebooks; clustering of our own beside its.
#include <ptq/solver/claq.hpp>

#include "layer.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

Claq solver_of(const LayerFile& c) {
  Claq s;
  s.damp = c.number("percdamp"), s.damp_increase = 0;
  s.block = c.count("blocksize");
  s.order = c.count("act_order") != 0 ? ColumnOrder::descending : ColumnOrder::natural;
  s.levels = LevelType::f32;
  s.side = KeepSide::each, s.cluster_kept = true, s.as_published = true;
  s.outlier_multiple = c.number("outlier_multiple");
  if (const double bits = c.number("inputhes"); bits > 0) s.average_bits = bits, s.metric = ColumnMetric::factor;
  if (const double bits = c.number("outlierorder"); bits > 0) s.average_bits = bits, s.metric = ColumnMetric::outliers;
  if (const double keep = c.number("outlier"); keep > 0) s.keep = keep, s.reserve = keep > 1 ? Reserve::threshold : Reserve::fraction;
  if (c.count("outlier_col_dynamic") != 0) s.reserve = Reserve::ranked;
  return s;
}

/// Rows of (n, rows) tensors are columns of the weight.
template <class T>
Tensor marked(const Claq& claq, const Tensor& column, double amount) {  // column (rows)
  const Tensor x = column.contiguous();
  Tensor kept = at::empty(x.sizes(), at::kBool);
  ColumnClusters<T> clusters;
  const T* sorted = clusters.sort(x.const_data_ptr<T>(), x.numel());
  claq.fit().mark(x.const_data_ptr<T>(), sorted, x.numel(), amount, kept.mutable_data_ptr<bool>());
  return kept;
}
Tensor marked(const Claq& claq, const Tensor& column, double amount) {
  return column.scalar_type() == at::kFloat ? marked<float>(claq, column, amount) : marked<double>(claq, column, amount);
}

/// Σ (x − nearest level)².
double sse(const Tensor& x, const Tensor& levels) {
  return std::get<0>((x.to(at::kDouble).unsqueeze(1) - levels.to(at::kDouble).unsqueeze(0)).abs().min(1)).square().sum().item<double>();
}

/// ½ tr(E (H + λ I) Eᵀ).
double half_trace(const Tensor& e, const Tensor& h, const ColumnFactor& f) {
  Tensor damped = h.to(at::kDouble).clone();
  damped.diagonal().masked_fill_(f.dead, 1).add_(f.damp);
  return 0.5 * at::sum(at::mm(e.to(at::kDouble), damped) * e.to(at::kDouble)).item<double>();
}

/// Metric, widths and fractions are the released ones; where its unstable sort broke ties, those of the same sort made stable.
void check_plan(const LayerFile& c, const Claq& claq, const Tensor& w, const ColumnFactor& f, const ColumnPlan& plan) {
  CHECK(at::equal(outlier_counts(w, claq.outlier_multiple).to(at::kInt), c.raw("outputs/outlier_count").to(at::kInt)));
  CHECK(plan.with_outliers == c.count("columns_with_outliers"));
  const bool tied = c.has("outputs/bits_per_column_stable_sort");
  CHECK(at::equal(plan.bits, c.raw(tied ? "outputs/bits_per_column_stable_sort" : "outputs/bits_per_column").to(at::kInt)));
  CHECK(plan.bits.to(at::kDouble).mean().item<double>() == Approx(c.number("mean_bits")).epsilon(1e-6));
  if (c.has("outputs/hessian_metric")) {
    const Tensor mine = w.to(at::kDouble).square().mean(0) * f.loss_weight.index_select(0, at::argsort(f.order));
    CHECK(far(mine, c.raw("outputs/hessian_metric")) < 1e-4);
  }
  if (c.has("outputs/keep_fraction_used")) CHECK(far(plan.keep, c.raw("outputs/keep_fraction_used")) < 1e-6);
  if (c.has("outputs/keep_fraction_correct_index")) {
    Claq mended = claq;
    mended.as_published = false;
    const Tensor keep = mended.plan(w, c.raw("debug/H_diag"), f, 2).keep;
    CHECK(far(keep, c.raw("outputs/keep_fraction_correct_index")) < 1e-6);
  }
}

/// Column by column on what the released code clustered: our clusterings against its, its codes and kept entries against ours.
void check_columns(const LayerFile& c, const Claq& claq) {
  const Tensor seen = c.get("debug/W_seen").t().contiguous(), book = c.raw("outputs/codebook"), size = c.raw("outputs/codebook_size");
  const Tensor codes = c.raw("outputs/codes"), theirs = c.raw("debug/kmeans_sse");
  double local = 0, released = 0;
  for (int64_t j = 0; j < seen.size(0); ++j) {
    INFO("column " << j);
    const Tensor x = seen[j];  // (rows)
    const int k = size[j].item<int>();
    const double bound = theirs[j].item<double>();
    ptq::detail::by_scalar(x, "clustering", [&]<class T>(T) {
      ColumnClusters<T> clusters;
      const std::vector<T> sorted(clusters.sort(x.const_data_ptr<T>(), x.numel()),
                                  clusters.sort(x.const_data_ptr<T>(), x.numel()) + x.numel());
      Tensor levels = at::empty({k}, x.options());
      for (const KMeans how : {KMeans::lloyd, KMeans::coarse, KMeans::optimal}) {
        clusters.fit(sorted.data(), x.numel(), k, how, nullptr, levels.mutable_data_ptr<T>());
        const double mine = sse(x, levels);
        if (how == KMeans::lloyd)
          local += mine, released += bound;
        else
          CHECK(mine <= 1.001 * bound + 1e-9 * squared(x));
      }
    });
    const Tensor levels = book[j].narrow(0, 0, k).to(at::kDouble), distance = (x.to(at::kDouble).unsqueeze(1) - levels).abs();  // (rows, k)
    const Tensor nearest = std::get<0>(distance.min(1)),
                 chosen = distance.gather(1, codes.select(1, j).to(at::kLong).unsqueeze(1)).squeeze(1);
    CHECK((chosen - nearest).max().item<double>() <= 1e-6 * std::max(1e-30, largest(x)));
    if (c.has("outputs/keep_mask"))
      CHECK(
          at::equal(marked(claq, x, c.raw("outputs/keep_fraction_used")[j].item<double>()), c.raw("outputs/keep_mask").select(1, j).ne(0)));
  }
  CHECK(local <= 1.05 * released);
}

void replay(const fs::path& path, at::ScalarType dtype) {
  const LayerFile c{io::Hdf5Reader(path), dtype};
  INFO(path.filename().string() << " in " << c10::toString(dtype));
  const Tensor x = c.get("inputs/X");  // (sequences, tokens, n)
  const Claq claq = solver_of(c);
  Scheme scheme;
  scheme.bits = static_cast<int>(c.count("wbits"));
  REQUIRE(claq.refuses(scheme).empty());
  Statistics stats;
  for (int64_t s = 0; s < x.size(0); ++s) stats.add({.hessian = true}, x.narrow(0, s, 1));
  stats.finish();
  CHECK(stats.sequences == c.count("nsamples_counted"));
  const Tensor h = stats.hessian * (2.0 / static_cast<double>(stats.sequences));  // (n, n)
  check_statistic(c, "H", h, 1e-5);
  const ColumnFactor f = claq.factor(stats, "layer");
  check_factor(c, f);
  check_order(c, f.order, f.dead);
  const Tensor w = c.get("inputs/W").masked_fill(f.dead, 0);  // (rows, n)
  const ColumnPlan plan = claq.plan(w, h.diagonal(), f, scheme.bits);
  check_plan(c, claq, w, f, plan);
  check_columns(c, claq);

  // The solver on the released codebooks: the same codes, kept entries and loss.
  const Tensor book = c.get("outputs/codebook"), size = c.raw("outputs/codebook_size"),
               order = f.order.defined() ? f.order : at::arange(w.size(1));
  ColumnGrid how;
  how.scheme = scheme;
  how.levels = [&](int64_t step, const Tensor& values) {
    const int64_t j = order[step].item<int64_t>();
    ColumnLevels chosen{book.narrow(0, j, 1).narrow(1, 0, size[j].item<int64_t>()).contiguous(), {}};
    if (c.has("outputs/keep_mask"))
      chosen.keep = marked(claq, values[0], c.raw("outputs/keep_fraction_used")[j].item<double>()).unsqueeze(0);
    return chosen;
  };
  ColumnOptions options;
  options.block = claq.block;
  const ColumnResult r = round_columns(w, f, how, options);
  const Tensor differs = r.codes.to(at::kInt).ne(c.raw("outputs/codes"));
  const double share = differs.to(at::kDouble).mean().item<double>();
  CHECK(share <= 1e-3);
  if (c.has("outputs/keep_mask")) CHECK(r.keep.ne(c.raw("outputs/keep_mask").ne(0)).to(at::kDouble).mean().item<double>() <= 1e-4);
  const double loss = r.column_loss.sum().item<double>() / 2;
  CHECK(loss == Approx(c.number("loss")).epsilon(share == 0 ? 1e-4 : 5e-3));
  CHECK(half_trace(r.error, h, f) == Approx(loss).epsilon(dtype == at::kDouble ? 1e-6 : 1e-3));
  if (share == 0) {
    CHECK(largest((w - r.error) - c.get("outputs/Q")) <= 1e-4 * largest(w));
    const Tensor columns = r.column_loss / 2, original = f.order.defined() ? columns.index_select(0, at::argsort(f.order)) : columns;
    CHECK(far(original, c.get("debug/loss_per_column")) < 1e-3);
  }

  // On codebooks of our own.
  Shared shared;
  Problem problem;
  problem.place = "layer", problem.weight = c.get("inputs/W"), problem.scheme = scheme, problem.stats = &stats, problem.shared = &shared;
  const double theirs = c.number(c.has("outputs/bits_per_column_stable_sort") ? "loss_stable_sort" : "loss");
  for (const KMeans kmeans : {KMeans::lloyd, KMeans::coarse, KMeans::optimal}) {
    Claq own = claq;
    own.kmeans = kmeans;
    const Solution s = own.solve(problem);
    INFO(EnumNames<KMeans>::names[static_cast<size_t>(kmeans)] << ": " << s.report.at(0).second / theirs << " of the released loss");
    CHECK(s.report.at(0).second <= (kmeans == KMeans::lloyd ? 1.15 : 1.05) * theirs);  // a local optimum a column: luck of the start
    CHECK(half_trace(s.target - s.linear.weight(), h, f) == Approx(s.report.at(0).second).epsilon(dtype == at::kDouble ? 1e-5 : 1e-3));
    if (c.has("outputs/keep_mask") && claq.reserve != Reserve::threshold) CHECK(s.linear.kept.count() == c.count("kept_entries"));
  }
}

}  // namespace

TEST_CASE("CLAQ replays the released code layer by layer", "[oracle]") {
  const auto files = oracles({"claq_"}, {"claq_kmeans"});
  if (files.empty()) SKIP_TEST("no claq_*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) replay(path, dtype);
}
