// Clustering of single columns against CLAQ's release, whose k-means is scikit-learn's: a local optimum of one random stream. So errors are
// compared, never codebooks.
#include <ptq/kernels/kmeans.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "golden.hpp"

using namespace ptq;
using namespace ptq::test;
using kernels::Clustering;
using kernels::KMeans;

namespace {

struct Clustered {
  Tensor levels;  // (k)
  double sse = std::numeric_limits<double>::quiet_NaN();
};

template <class T>
Clustered cluster(const Tensor& column, int64_t k, KMeans method) {
  const Tensor x = column.contiguous();
  Clustered c{at::empty({k}, x.options())};
  std::vector<char> scratch(kernels::kmeans_workspace<T>(x.numel(), static_cast<int32_t>(k), method));
  Clustering<T> how;
  how.k = static_cast<int32_t>(k), how.method = method, how.levels = c.levels.mutable_data_ptr<T>(), how.sse = &c.sse;
  REQUIRE(kernels::kmeans(x.const_data_ptr<T>(), x.numel(), 1, how, scratch.data(), scratch.size()) == kernels::Status::ok);
  return c;
}

Clustered cluster(const Tensor& column, int64_t k, KMeans method) {
  return column.scalar_type() == at::kDouble ? cluster<double>(column, k, method) : cluster<float>(column, k, method);
}

/// Values of the nearest level, the lower of two equally near: (n).
Tensor nearest(const Tensor& x, const Tensor& levels) { return levels.index_select(0, (x.unsqueeze(1) - levels).abs().argmin(1)); }

/// Squared error of the nearest level, in float64.
double error_of(const Tensor& x, const Tensor& levels) {
  return (x.to(at::kDouble).unsqueeze(1) - levels.to(at::kDouble)).square().amin(1).sum().item<double>();
}

}  // namespace

TEST_CASE("Columns cluster as well as the optimum says, and no worse than the release's clustering", "[oracle]") {
  const auto files = oracles({"claq_kmeans"});
  if (files.empty()) SKIP_TEST("no claq_kmeans*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  const double rounding = dtype == at::kFloat ? 1e-6 : 1e-9;  // of levels to float32
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    double official = 0, local = 0;
    int cases = 0;
    for (const std::string& name : file.groups("outputs")) {
      const std::string group = "outputs/" + name;
      if (!file.has_attribute(group, "optimal_sse")) continue;  // reservation, not clustering alone
      INFO(path.filename().string() << " " << name << " " << c10::toString(dtype));
      const int64_t k = int64_t(1) << file.attribute<int>(group, "bits");
      const Tensor x = io::get(file, cat("inputs/", file.attribute<std::string>(group, "input"))).to(dtype);  // (n)
      const double best = file.attribute<double>(group, "optimal_sse"), theirs = file.attribute<double>(group, "sse");
      const Clustered optimal = cluster(x, k, KMeans::optimal), coarse = cluster(x, k, KMeans::coarse),
                      lloyd = cluster(x, k, KMeans::lloyd);
      for (const Clustered* c : {&optimal, &coarse, &lloyd}) {
        CHECK(c->sse == Approx(error_of(x, c->levels)).epsilon(1e-9).margin(1e-18));
        CHECK(c->levels.diff().ge(0).all().item<bool>());
        CHECK(c->sse >= best * (1 - 1e-9));
      }
      CHECK(optimal.sse <= best * (1 + rounding) + 1e-18);
      CHECK(coarse.sse <= best * 1.001 + 1e-18);
      CHECK(coarse.sse <= theirs * (1 + rounding) + 1e-18);
      official += theirs, local += lloyd.sse, ++cases;

      const Tensor book = io::get(file, group + "/codebook_sorted"), codebook = io::get(file, group + "/codebook"),
                   column = x.to(at::kFloat);
      CHECK(at::equal(std::get<0>(codebook.sort()), book));
      const Tensor q = io::get(file, group + "/q"), mine = nearest(column, book);  // (n)
      CHECK(((column - q).abs() - (column - mine).abs()).abs().max().item<double>() <= 1e-6 * column.abs().max().item<double>());
    }
    CHECK(cases > 0);
    CHECK(local <= 1.05 * official);
  }
}
