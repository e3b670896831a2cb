// One-dimensional k-means against brute force over all interval partitions, the plain quadratic recursion, and worked examples.

#include <ptq/kernels/kmeans.hpp>

#include <algorithm>
#include <functional>
#include <numeric>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

constexpr KMeans methods[] = {KMeans::lloyd, KMeans::coarse, KMeans::optimal};

template <class T>
struct Found {
  Status status = Status::ok;
  std::vector<T> levels;
  double sse = -1;
  std::int32_t steps = -1;
};

/// Scratch with a canary behind it, and the pointer off by one byte.
struct Workspace {
  std::vector<unsigned char> bytes;
  std::size_t size;

  explicit Workspace(std::size_t n) : bytes(n + 65, 0xa5), size(n) {}
  void* data() { return bytes.data() + 1; }
  bool intact() const {
    return bytes[0] == 0xa5 &&
           std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(size) + 1, bytes.end(), [](int b) { return b == 0xa5; });
  }
};

template <class T>
Found<T> cluster(const std::vector<T>& x, std::int32_t k, KMeans method, std::function<void(Clustering<T>&)> more = {}) {
  const auto n = static_cast<std::ptrdiff_t>(x.size());
  Found<T> f;
  f.levels.assign(static_cast<std::size_t>(k) + 1, T(-777));
  Clustering<T> how;
  how.k = k, how.method = method, how.levels = f.levels.data(), how.sse = &f.sse, how.steps = &f.steps;
  if (more) more(how);
  Workspace w(kmeans_workspace<T>(n, k, method));
  f.status = kmeans(x.data(), n, 1, how, w.data(), w.size);
  CHECK(w.intact());
  CHECK(f.levels.back() == T(-777));
  f.levels.pop_back();
  return f;
}

/// sum of w |x - nearest level|^2 by looking at every level.
template <class T>
double error_of(const std::vector<T>& x, const std::vector<T>& levels, const std::vector<T>& weights = {}) {
  long double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    long double least = std::numeric_limits<long double>::infinity();
    for (const T l : levels) least = std::min(least, (static_cast<long double>(x[i]) - l) * (static_cast<long double>(x[i]) - l));
    sum += (weights.empty() ? 1.0L : static_cast<long double>(weights[i])) * least;
  }
  return static_cast<double>(sum);
}

/// Least squared error of one interval of sorted values around its mean, in two passes.
template <class T>
double spread(const std::vector<T>& x, std::size_t a, std::size_t b) {
  long double mean = 0, sum = 0;
  for (std::size_t i = a; i < b; ++i) mean += static_cast<long double>(x[i]);
  mean /= static_cast<long double>(b - a);
  for (std::size_t i = a; i < b; ++i) sum += (static_cast<long double>(x[i]) - mean) * (static_cast<long double>(x[i]) - mean);
  return static_cast<double>(sum);
}

/// Every way to cut sorted values from `a` on into at most k intervals.
double brute_force(const std::vector<double>& x, std::size_t a, std::int32_t k) {
  if (a == x.size()) return 0;
  if (k == 1) return spread(x, a, x.size());
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t b = a + 1; b <= x.size(); ++b) best = std::min(best, spread(x, a, b) + brute_force(x, b, k - 1));
  return best;
}

/// The same by the recursion over all pairs of borders.
template <class T>
double quadratic(std::vector<T> x, std::int32_t k) {
  std::sort(x.begin(), x.end());
  const std::size_t n = x.size();
  const long double shift = static_cast<long double>(x[n / 2]);
  std::vector<long double> s(n + 1), q(n + 1), before(n + 1, std::numeric_limits<long double>::infinity()), now;
  for (std::size_t i = 0; i < n; ++i) {
    const long double y = static_cast<long double>(x[i]) - shift;
    s[i + 1] = s[i] + y, q[i + 1] = q[i] + y * y;
  }
  before[0] = 0;
  for (std::int32_t layer = 0; layer < k; ++layer) {
    now = before;
    for (std::size_t i = 1; i <= n; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const long double sum = s[i] - s[j], cost = q[i] - q[j] - sum * sum / static_cast<long double>(i - j);
        now[i] = std::min(now[i], before[j] + std::max(cost, 0.0L));
      }
    }
    before = now;
  }
  return static_cast<double>(before[n]);
}

template <class T>
bool ascending(const std::vector<T>& levels) {
  return std::is_sorted(levels.begin(), levels.end());
}

bool close(double a, double b, double relative) { return std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b)); }

enum class Shape { gauss, laplace, heavy, half_precision, spike, bimodal };

/// Columns of weights of several kinds; heavy: Student's t with three degrees of freedom and four extreme values.
template <class T>
std::vector<T> column(Shape shape, std::ptrdiff_t n, std::uint64_t seed) {
  Generator g{seed};
  std::vector<T> x;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double v = g.normal();
    if (shape == Shape::laplace) v = (g.uniform() < 0.5 ? -1 : 1) * std::log(1 - g.uniform());
    if (shape == Shape::heavy) {
      double chi = 0;
      for (int d = 0; d < 3; ++d) chi += std::pow(g.normal(), 2);
      v /= std::sqrt(chi / 3 + 1e-3);
      if (i < 4) v = i % 2 == 0 ? 40 + v : -50 - v;
    }
    if (shape == Shape::half_precision) v = std::ldexp(std::nearbyint(std::ldexp(v, 10 - std::ilogb(v))), std::ilogb(v) - 10);
    if (shape == Shape::spike && g.uniform() < 0.9) v = 0;
    if (shape == Shape::bimodal) v = 0.2 * v + (g.uniform() < 0.3 ? -1 : 1);
    x.push_back(static_cast<T>(0.02 * v));
  }
  return x;
}

constexpr Shape shapes[] = {Shape::gauss, Shape::laplace, Shape::heavy, Shape::half_precision, Shape::spike, Shape::bimodal};

const std::vector<double> example = {-9, -8, -1, 0, 1, 2, 7, 20};

}  // namespace

TEST("the worked example has its optimum, in any order of the values") {
  const struct {
    std::int32_t k;
    double sse;
    std::vector<double> levels;
  } wanted[] = {{1, 582, {1.5}},
                {2, 190.857142857, {-1.142857143, 20}},
                {3, 39.3, {-8.5, 1.8, 20}},
                {4, 5.5, {-8.5, 0.5, 7, 20}},
                {8, 0, {-9, -8, -1, 0, 1, 2, 7, 20}}};
  for (const auto& w : wanted) {
    for (const KMeans method : {KMeans::coarse, KMeans::optimal}) {
      for (const std::vector<double>& x : {example, {7, -1, 20, 0, -9, 2, 1, -8}}) {
        const Found<double> f = cluster(x, w.k, method);
        CHECK(f.status == Status::ok);
        CHECK_NEAR(f.sse, w.sse, 1e-6);
        for (std::size_t j = 0; j < w.levels.size(); ++j) CHECK_NEAR(f.levels[j], w.levels[j], 1e-6);
      }
    }
  }
  CHECK_NEAR(error_of(example, {-9, -9 + 29.0 / 3, -9 + 58.0 / 3, 20}), 17.2222, 1e-4);  // a uniform grid is no k-means
}

TEST("weights count: the worked example, and a weight is as good as a repetition") {
  const std::vector<double> weights = {1, 1, 4, 4, 4, 4, 1, 0.25};
  for (const KMeans method : {KMeans::coarse, KMeans::optimal}) {
    Found<double> f = cluster<double>(example, 2, method, [&](auto& how) { how.weights = weights.data(); });
    CHECK_NEAR(f.sse, 150.311594, 1e-6);
    CHECK_NEAR(f.levels[0], -8.5, 1e-6);
    CHECK_NEAR(f.levels[1], 1.159420, 1e-6);
    f = cluster<double>(example, 3, method, [&](auto& how) { how.weights = weights.data(); });
    CHECK_NEAR(f.sse, 54.3, 1e-6);
    CHECK_NEAR(f.levels[0], -8.5, 1e-6);
    CHECK_NEAR(f.levels[1], 0.5, 1e-6);
    CHECK_NEAR(f.levels[2], 9.6, 1e-6);
  }
  Generator g{31};
  for (int round = 0; round < 40; ++round) {
    std::vector<float> x, repeated, w;
    for (int i = 0; i < 60; ++i) {
      x.push_back(static_cast<float>(g.normal()));
      w.push_back(static_cast<float>(static_cast<int>(4 * g.uniform())));
      for (int r = 0; r < static_cast<int>(w.back()); ++r) repeated.push_back(x.back());
    }
    for (const KMeans method : methods) {
      const Found<float> a = cluster<float>(x, 5, method, [&](auto&how) { how.weights = w.data(); }), b = cluster(repeated, 5, method);
      CHECK(a.levels == b.levels);
      CHECK(close(a.sse, b.sse, 1e-12));
      CHECK(close(a.sse, error_of(x, a.levels, w), 1e-12));
    }
  }
}

TEST("weights that make no sense are refused, tiny ones do not disturb") {
  std::vector<double> w(8, 1);
  const auto with = [&](KMeans method) { return cluster<double>(example, 3, method, [&](auto& how) { how.weights = w.data(); }); };
  for (const KMeans method : methods) {
    w[2] = -1e-9;
    CHECK(with(method).status == Status::bad_argument);
    w[2] = std::numeric_limits<double>::quiet_NaN();
    CHECK(with(method).status == Status::non_finite);
    w.assign(8, 0);
    CHECK(with(method).status == Status::bad_argument);
    w.assign(8, 1);
  }
  w = {1, 1, 1e-30, 1, 1, 1, 1e-30, 1};
  const Found<double> a = with(KMeans::optimal), b = cluster<double>({-9, -8, 0, 1, 2, 20}, 3, KMeans::optimal);
  CHECK_NEAR(a.sse, b.sse, 1e-12);
  w.assign(8, 1e300);
  CHECK(close(with(KMeans::optimal).sse, 39.3e300, 1e-12));
  w.assign(8, 1e-320);
  CHECK(close(with(KMeans::optimal).sse, 39.3e-320, 1e-2));
}

TEST("the local minimum that Lloyd's steps do not leave is left by the default") {
  const std::vector<double> trap = {0, 1, 10, 11, 20, 21}, start = {0, 1, 15.5};
  for (const KMeans method : {KMeans::coarse, KMeans::optimal}) {
    const Found<double> f = cluster(trap, 3, method);
    CHECK_NEAR(f.sse, 1.5, 1e-12);
    CHECK(f.levels == (std::vector<double>{0.5, 10.5, 20.5}));
  }
  const Found<double> stuck = cluster<double>(trap, 3, KMeans::coarse, [&](auto& how) { how.start = start.data(); });
  CHECK_NEAR(stuck.sse, 101, 1e-12);
  CHECK(stuck.levels == start);
}

TEST("the optimum is that of brute force over all partitions into intervals") {
  Generator g{7};
  for (int round = 0; round < 1000; ++round) {
    const auto n = static_cast<std::size_t>(1 + static_cast<int>(10 * g.uniform()));
    const auto k = static_cast<std::int32_t>(1 + static_cast<int>(5 * g.uniform()));
    std::vector<double> x;
    for (std::size_t i = 0; i < n; ++i) x.push_back(std::nearbyint(100 * (round % 2 == 0 ? g.normal() : g.uniform())) / 100);
    std::vector<double> sorted = x;
    std::sort(sorted.begin(), sorted.end());
    const double best = brute_force(sorted, 0, k);
    for (const KMeans method : {KMeans::optimal, KMeans::coarse}) {
      const Found<double> f = cluster(x, k, method);
      CHECK_NEAR(f.sse, best, 1e-9);
      CHECK_NEAR(f.sse, error_of(x, f.levels), 1e-12);
      CHECK(ascending(f.levels));
    }
    CHECK(cluster(x, k, KMeans::lloyd).sse >= best - 1e-12);
  }
}

TEST("the optimum is that of the quadratic recursion, with many levels too") {
  for (const Shape shape : shapes) {
    const std::vector<double> x = column<double>(shape, 300, 11);
    for (const std::int32_t k : {1, 2, 3, 4, 7, 16, 64}) {
      const double best = quadratic(x, k);
      CHECK(close(cluster(x, k, KMeans::optimal).sse, best, 1e-9) || best < 1e-14);
      CHECK(close(cluster(x, k, KMeans::coarse).sse, best, 1e-9) || best < 1e-14);
    }
  }
}

TEST("coarse lies within a thousandth of the optimum, Lloyd not below it, more levels are never worse") {
  for (const Shape shape : shapes) {
    for (const std::ptrdiff_t n : {4096, 11008}) {
      const std::vector<float> x = column<float>(shape, n, 5 + static_cast<std::uint64_t>(n));
      double last = std::numeric_limits<double>::infinity();
      for (const std::int32_t k : {1, 4, 8, 16}) {
        check::context() = "shape " + std::to_string(static_cast<int>(shape)) + ", n " + std::to_string(n) + ", k " + std::to_string(k);
        const Found<float> best = cluster(x, k, KMeans::optimal), coarse = cluster(x, k, KMeans::coarse),
                           local = cluster(x, k, KMeans::lloyd);
        for (const Found<float>* f : {&best, &coarse, &local}) {
          CHECK(f->status == Status::ok);
          CHECK(ascending(f->levels));
          CHECK(close(f->sse, error_of(x, f->levels), 1e-10));
        }
        CHECK(coarse.sse <= 1.001 * best.sse);
        CHECK(coarse.sse >= best.sse * (1 - 1e-9));
        CHECK(local.sse >= best.sse * (1 - 1e-9));
        CHECK(local.sse <= 2 * best.sse);
        CHECK(best.sse <= last);
        last = best.sse;
      }
    }
  }
  check::context().clear();
}

TEST("at most k distinct values come back as they are, padded with the last") {
  const auto exact = [](const std::vector<float>& x, std::int32_t k, const std::vector<float>& wanted) {
    for (const KMeans method : methods) {
      const Found<float> f = cluster(x, k, method);
      CHECK(f.status == Status::ok);
      CHECK(f.levels == wanted);
      CHECK(f.sse == 0);
      CHECK(f.steps == 0);
    }
  };
  exact({0.1f, 0.1f, 0.3f, 0.3f, 0.3f, -0.2f}, 4, {-0.2f, 0.1f, 0.3f, 0.3f});
  exact({0.1f, 0.1f, 0.3f, 0.3f, 0.3f, -0.2f}, 3, {-0.2f, 0.1f, 0.3f});
  exact(std::vector<float>(50, 0.37f), 4, std::vector<float>(4, 0.37f));
  exact(std::vector<float>(50, 0.0f), 4, std::vector<float>(4, 0.0f));
  exact({3, 1, 2}, 4, {1, 2, 3, 3});
  exact({5}, 1, {5});
  const float tiny = std::numeric_limits<float>::denorm_min(), huge = std::numeric_limits<float>::max();
  exact({tiny, huge, -huge, 0, -0.0f, huge}, 4, {-huge, 0, tiny, huge});
  const Found<float> zeros = cluster<float>({-0.0f, 0.0f, -0.0f}, 2, KMeans::coarse);
  CHECK(check::same_bits(zeros.levels[0], 0.0f));
}

TEST("an offset of the column does not matter") {
  Generator g{3};
  std::vector<double> x, shifted;
  for (int i = 0; i < 11008; ++i) {
    x.push_back(std::ldexp(std::nearbyint(std::ldexp(0.02 * g.normal(), 30)), -30));  // so that adding 1/2 is exact
    shifted.push_back(x.back() + 0.5);
  }
  for (const KMeans method : methods) {
    for (const std::int32_t k : {4, 16}) {
      const Found<double> a = cluster(x, k, method), b = cluster(shifted, k, method);
      CHECK(close(a.sse, b.sse, 1e-6));
      for (std::size_t j = 0; j < a.levels.size(); ++j) CHECK_NEAR(a.levels[j] + 0.5, b.levels[j], 1e-12);
    }
  }
}

namespace {

template <class T>
void scales() {
  const std::vector<T> x = column<T>(Shape::laplace, 1000, 9);
  const double top = std::numeric_limits<T>::max_exponent - 3, bottom = std::numeric_limits<T>::min_exponent + 30;
  for (const KMeans method : methods) {
    const Found<T> a = cluster(x, 8, method);
    for (const double e : {top, bottom, 40.0, -40.0}) {
      std::vector<T> y = x;
      for (T& v : y) v = std::ldexp(v, static_cast<int>(e));
      const Found<T> b = cluster(y, 8, method);
      CHECK(b.status == Status::ok);
      for (std::size_t j = 0; j < 8; ++j) CHECK(b.levels[j] == std::ldexp(a.levels[j], static_cast<int>(e)));
    }
  }
}

template <class T>
void unpleasant() {
  Matrix<T> rows = hostile<T>(24, 700, 5);
  for (std::ptrdiff_t r = 0; r < rows.rows; ++r) {
    const std::vector<T> x(&rows(r, 0), &rows(r, 0) + rows.cols);
    for (const std::int32_t k : {1, 2, 16, 256}) {
      check::context() = "row " + std::to_string(r) + ", k " + std::to_string(k);
      const Found<T> best = cluster(x, k, KMeans::optimal), coarse = cluster(x, k, KMeans::coarse), local = cluster(x, k, KMeans::lloyd);
      for (const Found<T>* f : {&best, &coarse, &local}) {
        CHECK(f->status == Status::ok);
        CHECK(ascending(f->levels));
        CHECK(f->levels.front() >= *std::min_element(x.begin(), x.end()) && f->levels.back() <= *std::max_element(x.begin(), x.end()));
        const double wanted = error_of(x, f->levels);
        if (wanted < std::numeric_limits<double>::max() && wanted > std::numeric_limits<double>::min()) CHECK(close(f->sse, wanted, 1e-9));
      }
      if (best.sse < std::numeric_limits<double>::max()) {
        CHECK(coarse.sse <= (k > 16 ? 1.02 : 1.001) * best.sse);
        CHECK(local.sse >= best.sse * (1 - 1e-7));
      }
    }
  }
  check::context().clear();
}

}  // namespace

TEST("a power of two as factor of the column is a factor of the levels, float") { scales<float>(); }
TEST("a power of two as factor of the column is a factor of the levels, double") { scales<double>(); }
TEST("columns of every unpleasant kind cluster sensibly, float") { unpleasant<float>(); }
TEST("columns of every unpleasant kind cluster sensibly, double") { unpleasant<double>(); }

TEST("one enormous outlier does not starve the rest") {
  for (const double outlier : {1e3, 1e6, -1e6, 1e12}) {
    std::vector<double> x = column<double>(Shape::gauss, 4096, 77);
    const double best = cluster(x, 15, KMeans::optimal).sse;
    x.push_back(outlier);
    CHECK(close(cluster(x, 16, KMeans::optimal).sse, best, 1e-6));
    CHECK(cluster(x, 16, KMeans::coarse).sse <= 1.001 * best);
  }
}

TEST("Lloyd's steps from given levels go as the plain algorithm does") {
  Generator g{123};
  for (int round = 0; round < 60; ++round) {
    const std::vector<double> x = column<double>(shapes[round % 6], 500, 1 + static_cast<std::uint64_t>(round));
    std::vector<double> c;
    for (int j = 0; j < 6; ++j) c.push_back(0.06 * g.uniform() - 0.03);
    c.push_back(9);  // keeps its place: no value is near
    std::sort(c.begin(), c.end());
    const std::vector<double> start = c;
    double before = error_of(x, c);
    for (int steps = 0; steps < 6; ++steps) {
      const Found<double> f = cluster<double>(x, 7, KMeans::coarse, [&](auto& how) { how.start = start.data(), how.max_steps = steps; });
      for (std::size_t j = 0; j < 7; ++j) CHECK_NEAR(f.levels[j], c[j], 1e-12);
      CHECK(f.levels[6] == 9);
      CHECK(f.steps <= steps);
      CHECK(f.sse <= before + 1e-15);
      before = f.sse;
      std::vector<double> sum(7), count(7);
      for (const double v : x) {
        std::size_t nearest = 0;
        for (std::size_t j = 1; j < 7; ++j) {
          if (std::abs(v - c[j]) < std::abs(v - c[nearest])) nearest = j;
        }
        sum[nearest] += v, count[nearest] += 1;
      }
      for (std::size_t j = 0; j < 7; ++j) {
        if (count[j] > 0) c[j] = sum[j] / count[j];
      }
    }
  }
}

TEST("Lloyd's steps end where they change nothing, and levels may be their own start") {
  for (const Shape shape : shapes) {
    const std::vector<float> x = column<float>(shape, 2000, 21);
    Found<float> f = cluster(x, 8, KMeans::lloyd);
    std::vector<float> levels = f.levels;
    const Found<float> again = cluster<float>(x, 8, KMeans::lloyd, [&](auto& how) { how.start = how.levels = levels.data(); });
    CHECK(levels == f.levels);
    CHECK(again.sse == f.sse);
    CHECK(f.steps < 300);
  }
}

TEST("a value at a midpoint belongs to the lower level") {
  const std::vector<double> x = {0, 1, 2, 3}, start = {0, 2};
  const Found<double> f = cluster<double>(x, 2, KMeans::lloyd, [&](auto& how) { how.start = start.data(), how.max_steps = 1; });
  CHECK(f.levels == (std::vector<double>{0.5, 2.5}));
}

TEST("the seed decides where Lloyd begins, and the same seed ends the same") {
  const std::vector<float> x = column<float>(Shape::heavy, 3000, 2);
  bool differ = false;
  const Found<float> first = cluster(x, 16, KMeans::lloyd);
  for (std::uint64_t seed = 10; seed < 20; ++seed) {
    const auto once = cluster<float>(x, 16, KMeans::lloyd, [&](auto& how) { how.seed = seed; });
    const auto twice = cluster<float>(x, 16, KMeans::lloyd, [&](auto& how) { how.seed = seed; });
    CHECK(once.levels == twice.levels);
    if (seed == 10) CHECK(once.levels == first.levels);
    differ = differ || once.levels != first.levels;
  }
  CHECK(differ);
}

namespace {

template <class T>
void sorting() {
  for (const std::ptrdiff_t n : {1, 2, 15, 16, 17, 63, 64, 65, 300, 1023, 4096, 5000}) {
    for (const std::ptrdiff_t stride : {1, 3}) {
      Matrix<T> rows = hostile<T>(12, n * stride, static_cast<std::uint64_t>(n));
      for (std::ptrdiff_t r = 0; r < rows.rows; ++r) {
        check::context() = "n " + std::to_string(n) + ", row " + std::to_string(r);
        std::vector<T> x, sorted(static_cast<std::size_t>(n) + 1, T(-777)), plain = sorted;
        for (std::ptrdiff_t i = 0; i < n; ++i) x.push_back(rows(r, i * stride));
        std::vector<std::int32_t> order(static_cast<std::size_t>(n) + 1, -777), wanted(static_cast<std::size_t>(n));
        std::iota(wanted.begin(), wanted.end(), 0);
        std::stable_sort(wanted.begin(), wanted.end(),
                         [&](std::int32_t a, std::int32_t b) { return x[static_cast<std::size_t>(a)] < x[static_cast<std::size_t>(b)]; });
        Workspace w(sort_values_workspace<T>(n));
        CHECK(sort_values<T>(&rows(r, 0), n, stride, sorted.data(), order.data(), w.data(), w.size) == Status::ok);
        CHECK(sort_values<T>(&rows(r, 0), n, stride, plain.data(), nullptr, w.data(), w.size) == Status::ok);
        CHECK(w.intact());
        CHECK(sorted.back() == T(-777) && order.back() == -777);
        CHECK(sorted == plain);
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
          CHECK(order[i] == wanted[i]);
          CHECK(check::same_bits(sorted[i], x[static_cast<std::size_t>(wanted[i])] + T(0)));
        }
      }
    }
  }
  check::context().clear();
}

template <class T>
void bad_values() {
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  for (const T bad : {nan, -nan, infinity, -infinity}) {
    for (const std::size_t at : {0, 7, 99}) {
      std::vector<T> x = column<T>(Shape::gauss, 100, 4), sorted(100);
      x[at] = bad;
      for (const KMeans method : methods) {
        const Found<T> f = cluster(x, 4, method);
        CHECK(f.status == Status::non_finite);
        CHECK(std::isnan(f.sse) && std::isnan(f.levels[0]) && std::isnan(f.levels[3]));
        Workspace w(kmeans_workspace<T>(100, 4, method));
        Clustering<T> how;
        how.method = method, how.levels = sorted.data();
        CHECK(kmeans_sorted(x.data(), 100, how, w.data(), w.size) == Status::non_finite);
      }
      Workspace w(sort_values_workspace<T>(100));
      CHECK(sort_values<T>(x.data(), 100, 1, sorted.data(), nullptr, w.data(), w.size) == Status::non_finite);
    }
  }
  const std::vector<T> start = {0, 1, nan, 3};
  CHECK(cluster<T>(column<T>(Shape::gauss, 100, 4), 4, KMeans::coarse, [&](auto& how) { how.start = start.data(); }).status ==
        Status::non_finite);
}

}  // namespace

TEST("sorting keeps the order of equal values and gives zeros without sign, float") { sorting<float>(); }
TEST("sorting keeps the order of equal values and gives zeros without sign, double") { sorting<double>(); }
TEST("NaN and infinity are reported wherever they are, float") { bad_values<float>(); }
TEST("NaN and infinity are reported wherever they are, double") { bad_values<double>(); }

TEST("a part of the sorted column clusters as if the rest were not there, rows may be strided") {
  Matrix<float> w = hostile<float>(400, 5, 17);
  std::vector<float> x(400), sorted(400), a(8), b(8);
  for (std::ptrdiff_t i = 0; i < 400; ++i) x[static_cast<std::size_t>(i)] = w(i, 2) = static_cast<float>(i * 37 % 400) - 100.0f;
  std::vector<std::int32_t> order(400);
  for (const KMeans method : methods) {
    Workspace s(kmeans_workspace<float>(400, 8, method));
    CHECK(sort_values<float>(&w(0, 2), 400, w.stride, sorted.data(), order.data(), s.data(), s.size) == Status::ok);
    Clustering<float> how;
    how.k = 8, how.method = method, how.levels = a.data();
    CHECK(kmeans_sorted(sorted.data() + 10, 350, how, s.data(), s.size) == Status::ok);
    std::vector<float> kept;
    for (const float v : x) {
      if (v >= sorted[10] && v <= sorted[359]) kept.push_back(v);
    }
    CHECK(kept.size() == 350);
    CHECK(cluster(kept, 8, method).levels == a);
    how.levels = b.data();
    CHECK(kmeans(&w(0, 2), 400, w.stride, how, s.data(), s.size) == Status::ok);
    CHECK(cluster(x, 8, method).levels == b);
  }
}

TEST("every instruction set gives the same bits") {
  const Isa mine = isa();
  for (const Shape shape : shapes) {
    const std::vector<float> x = column<float>(shape, 3001, 99);
    for (const KMeans method : methods) {
      for (const std::int32_t k : {4, 16}) {
        use_isa(Isa::portable);
        const Found<float> plain = cluster(x, k, method);
        use_isa(mine);
        const Found<float> f = cluster(x, k, method);
        CHECK(f.levels == plain.levels && f.steps == plain.steps);
        CHECK(check::same_bits(f.sse, plain.sse));
      }
    }
  }
}

TEST("arguments that make no sense are refused and write nothing") {
  std::vector<float> x = {1, 2, 3, 2, 5, 6}, levels(300, -777.0f), unsorted_start = {1, 3, 2, 4};
  Workspace w(1 << 20);
  double sse = -777;
  Clustering<float> good;
  good.levels = levels.data(), good.sse = &sse;
  const auto refused = [&](std::ptrdiff_t n, const Clustering<float>& how, void* scratch, std::size_t bytes) {
    return kmeans(x.data(), n, 1, how, scratch, bytes) == Status::bad_argument;
  };
  CHECK(refused(0, good, w.data(), w.size));
  CHECK(refused(-1, good, w.data(), w.size));
  CHECK(refused(std::ptrdiff_t(1) << 40, good, w.data(), w.size));
  CHECK(refused(6, good, nullptr, w.size));
  CHECK(refused(6, good, w.data(), kmeans_workspace<float>(6, 4, KMeans::coarse) - 1));
  for (const std::int32_t k : {0, -1, 257}) {
    Clustering<float> bad = good;
    bad.k = k;
    CHECK(refused(6, bad, w.data(), w.size));
    CHECK(kmeans_workspace<float>(6, k, KMeans::coarse) == 0);
  }
  Clustering<float> bad = good;
  bad.method = static_cast<KMeans>(3);
  CHECK(refused(6, bad, w.data(), w.size));
  bad = good, bad.start = unsorted_start.data();
  CHECK(refused(6, bad, w.data(), w.size));
  bad = good, bad.levels = nullptr;
  CHECK(refused(6, bad, w.data(), w.size));
  CHECK(kmeans<float>(nullptr, 6, 1, good, w.data(), w.size) == Status::bad_argument);
  CHECK(kmeans_sorted(x.data(), 6, good, w.data(), w.size) == Status::bad_argument);  // 3, 2
  CHECK(sort_values<float>(x.data(), 0, 1, levels.data(), nullptr, w.data(), w.size) == Status::bad_argument);
  CHECK(sort_values<float>(x.data(), 6, 1, nullptr, nullptr, w.data(), w.size) == Status::bad_argument);
  CHECK(sort_values<float>(x.data(), 6, 1, levels.data(), nullptr, w.data(), sort_values_workspace<float>(6) - 1) == Status::bad_argument);
  CHECK(sse == -777 && std::all_of(levels.begin(), levels.end(), [](float l) { return l == -777.0f; }));
}

int main() { return check::run(); }
