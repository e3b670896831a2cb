// Grids against conventions written out here a second time, one by one, in plain scalar code.

#include <ptq/kernels/grid.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
struct Scalar {
  T scale;
  std::int32_t zero;
};

/// Conventions in the words of the methods; tiny and vast ranges are judged elsewhere.
template <class T>
Scalar<T> reference(const Convention& c, T lo, T hi) {
  const T n = static_cast<T>((1 << c.bits) - 1), half = static_cast<T>(1 << (c.bits - 1));
  const auto round = [](T x) { return std::nearbyint(x); };
  if (c.range == Range::gptq) {
    T xmin = std::fmin(T(0), lo), xmax = std::fmax(T(0), hi);
    if (c.symmetric) {
      xmax = std::fmax(std::fabs(xmin), xmax);
      if (xmin < 0 || !c.as_published) xmin = -xmax;
    }
    if (xmin == 0 && xmax == 0) xmin = -1, xmax = 1;
    const T scale = (xmax - xmin) / n;
    return {scale, static_cast<std::int32_t>(c.symmetric ? (n + 1) / 2 : round(-xmin / scale))};
  }
  if (c.range == Range::awrq_activation) {
    const T s = (hi - lo) / n;
    return {s, static_cast<std::int32_t>(round(-lo / s))};
  }
  if (c.range == Range::flexround || c.range == Range::flexround_activation) {
    if (c.range == Range::flexround || !c.as_published) lo = std::fmin(lo, T(0)), hi = std::fmax(hi, T(0));
    if (c.symmetric) return {std::fmax(2 * std::fmax(hi, std::fabs(lo)) / n, T(1e-8f)), 0};
    const T s = std::fmax((hi - lo) / n, T(1e-8f));
    return {s, static_cast<std::int32_t>(std::fmin(std::fmax(-round(lo / s), T(0)), n))};
  }
  if (c.range == Range::absmax) return {std::fmax(std::fmax(std::fabs(lo), std::fabs(hi)), T(1e-5)) / (half - 1), 0};
  const T raw = c.symmetric ? std::fmax(std::fabs(lo), std::fabs(hi)) / (half - 1) : (hi - lo) / n;
  const T h = std::fmin(std::fmax(raw, T(1e-5)), T(1e4));
  if (c.range == Range::omni_no_zero_point) return {h, 0};
  return {h, static_cast<std::int32_t>(c.symmetric ? half - 1 : round(std::fmin(std::fmax(-lo / h, T(-1e4)), T(1e4))))};
}

constexpr Range ranges[] = {Range::gptq, Range::awrq_activation,    Range::flexround, Range::flexround_activation,
                            Range::omni, Range::omni_no_zero_point, Range::absmax};

template <class T>
double quantized(const Convention& c, T w, T s, std::int32_t z) {
  const CodeRange r = code_range(c);
  const T k = std::fmin(std::fmax(std::nearbyint(w / s) + static_cast<T>(z), static_cast<T>(r.lo)), static_cast<T>(r.hi));
  return static_cast<double>(s * (k - static_cast<T>(z)));
}

template <class T>
void compare_with_reference() {
  for (const std::ptrdiff_t cols : {1, 2, 15, 16, 33, 96, 257}) {
    const Matrix<T> w = hostile<T>(25, cols, 5);
    for (const Range range : ranges) {
      for (const int bits : {2, 3, 4, 8}) {
        for (const int mode : {0, 1, 2, 3}) {
          const Convention c{range, bits, (mode & 1) != 0, (mode & 2) != 0};
          if (!valid(c)) continue;
          check::context() = std::to_string(static_cast<int>(range)) + " bits " + std::to_string(bits) + " mode " + std::to_string(mode) +
                             " cols " + std::to_string(cols);
          for (const std::ptrdiff_t group : {std::ptrdiff_t{0}, std::ptrdiff_t{16}, std::ptrdiff_t{5}}) {
            const std::ptrdiff_t width = group == 0 || group > cols ? cols : group, groups = (cols + width - 1) / width;
            Matrix<T> scale(w.rows, groups);
            Matrix<std::int32_t> zero(w.rows, groups);
            CHECK(fit_grid<T>(w.view(), group, c, {}, {scale.data.data(), zero.data.data(), groups, 1}, all(w.view())) == Status::ok);
            for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
              for (std::ptrdiff_t g = 0; g < groups; ++g) {
                T lo = w(r, g * width), hi = lo;
                for (std::ptrdiff_t j = g * width; j < std::min(cols, (g + 1) * width); ++j)
                  lo = std::min(lo, w(r, j)), hi = std::max(hi, w(r, j));
                CHECK(std::isfinite(scale(r, g)) && scale(r, g) > 0);
                const Scalar<T> wanted = reference<T>(c, lo, hi);
                const double widest = std::max(std::abs(static_cast<double>(lo)), std::abs(static_cast<double>(hi)));
                const bool ordinary = std::isfinite(wanted.scale) && wanted.scale >= std::numeric_limits<T>::min() &&
                                      (range != Range::awrq_activation || widest / static_cast<double>(wanted.scale) < 1e6);
                if (!ordinary) continue;
                CHECK(check::same_bits(scale(r, g), wanted.scale));
                CHECK(zero(r, g) == wanted.zero);
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace

TEST("scales equal each convention bit for bit and zero points equal it, float") { compare_with_reference<float>(); }
TEST("scales equal each convention bit for bit and zero points equal it, double") { compare_with_reference<double>(); }

TEST("worked rows: asymmetric, symmetric, searched, negative") {
  const auto fit = [](std::vector<double> row, int bits, bool symmetric, bool published, Search search) {
    double s = 0;
    std::int32_t z = 0;
    const View<const double> w{row.data(), 1, static_cast<std::ptrdiff_t>(row.size()), static_cast<std::ptrdiff_t>(row.size())};
    CHECK(fit_grid<double>(w, 0, {Range::gptq, bits, symmetric, published}, search, {&s, &z}, all(w)) == Status::ok);
    return Scalar<double>{s, z};
  };
  Search search;
  search.kind = Search::Kind::shrink;
  Scalar<double> g = fit({-1, 0.625, 2.75}, 4, false, false, {});
  CHECK(g.scale == 0.25 && g.zero == 4);
  g = fit({0.1, -0.2, 0.15, 0.05, -0.1, 1.0}, 3, false, false, {});
  CHECK_NEAR(g.scale, 0.171429, 5e-7);
  CHECK(g.zero == 1);
  g = fit({0.1, -0.2, 0.15, 0.05, -0.1, 1.0}, 3, false, false, search);
  CHECK_NEAR(g.scale, 0.162857, 5e-7);
  CHECK(g.zero == 1);
  g = fit({-0.3, -0.4}, 4, false, false, {});
  CHECK_NEAR(g.scale, 0.026667, 5e-7);
  CHECK(g.zero == 15);
  g = fit({-1, 1}, 4, true, false, {});
  CHECK_NEAR(g.scale, 0.133333, 5e-7);
  CHECK(g.zero == 8);
  g = fit({0, 0.5, 1.0}, 4, true, true, {});  // the published hazard: half the grid is unused
  CHECK_NEAR(g.scale, 0.066667, 5e-7);
  CHECK(g.zero == 8);
  g = fit({0, 0.5, 1.0}, 4, true, false, {});  // repaired
  CHECK_NEAR(g.scale, 0.133333, 5e-7);
  CHECK(g.zero == 8);
  g = fit({0, 0, 0}, 4, false, false, {});
  CHECK_NEAR(g.scale, 2.0 / 15, 1e-12);
  CHECK(g.zero == 8);
}

TEST("worked tokens: OmniQuant's rule with a clipped range and a tie in the zero point") {
  double s = 0;
  std::int32_t z = 0;
  const double sigma = 1 / (1 + std::exp(-4.0));
  grid_from_range<double>({Range::omni, 4}, sigma * -1, sigma * 1.5, s, z);
  CHECK_NEAR(s, 0.16366896500631806, 1e-16);
  CHECK(z == 6);
  grid_from_range<double>({Range::omni, 4}, -3, 7, s, z);
  CHECK_NEAR(s, 2.0 / 3, 1e-15);
  CHECK(z == 4);
  grid_from_range<double>({Range::omni, 4, true}, -3, 7, s, z);
  CHECK(s == 1 && z == 7);
}

TEST("constant, zero, denormal, narrow and huge ranges give a usable grid that holds the value") {
  for (const float value : {0.37f, -0.21f, 1e-42f, -1e-30f, 3e38f, -3e38f, 1000.0f, 0.0f}) {
    for (const int bits : {2, 4, 8}) {
      const Convention c{Range::awrq_activation, bits};
      float s = 0;
      std::int32_t z = 0;
      grid_from_range<float>(c, value, value, s, z);
      CHECK(s > 0 && std::isfinite(s));
      if (std::abs(value) >= std::numeric_limits<float>::min()) CHECK(quantized(c, value, s, z) == static_cast<double>(value));
      grid_from_range<float>(c, value, std::nextafter(value, std::numeric_limits<float>::infinity()), s, z);
      CHECK(s > 0 && std::isfinite(s));
      if (std::abs(value) >= 1e-30f && std::abs(value) < 3e38f) CHECK_NEAR(quantized(c, value, s, z), value, std::abs(value) * 1e-5);
    }
  }
  for (const Range range : ranges) {
    float s = 0;
    std::int32_t z = 0;
    grid_from_range<float>({range, 4}, -3e38f, 3e38f, s, z);
    CHECK(s > 0 && std::isfinite(s));
    grid_from_range<float>({range, 4}, -std::numeric_limits<float>::infinity(), 1.0f, s, z);
    CHECK(s == 1 && z == 0);
    grid_from_range<float>({range, 4}, 0.0f, std::numeric_limits<float>::quiet_NaN(), s, z);
    CHECK(s == 1 && z == 0);
  }
}

TEST("AWRQ's activation range leaves the codes: the zero point of a token far from zero is far away too") {
  float s = 0;
  std::int32_t z = 0;
  grid_from_range<float>({Range::awrq_activation, 8}, 100.0f, 101.0f, s, z);
  CHECK(z == static_cast<std::int32_t>(std::nearbyint(-100.0f / (1.0f / 255.0f))));
  CHECK(z < -25000);
}

namespace {

/// Plain searches, errors in double with std::pow.
template <class T>
double error_of(const Convention& c, const T* w, std::ptrdiff_t n, T s, std::int32_t z, double p) {
  double total = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) total += std::pow(std::abs(static_cast<double>(w[i]) - quantized(c, w[i], s, z)), p);
  return total;
}

template <class T>
void compare_searches() {
  for (const std::ptrdiff_t cols : {1, 7, 48, 300}) {
    Matrix<T> w = hostile<T>(14, cols, 11);
    for (std::ptrdiff_t r = 7; r <= 8; ++r) {  // powers of denormal and of huge errors leave the range of the reference
      for (std::ptrdiff_t c = 0; c < cols; ++c) w(r, c) = static_cast<T>(0.05 * static_cast<double>((c * c + 3 * r) % 17) - 0.4);
    }
    for (const int bits : {2, 3, 4}) {
      for (const int mode : {0, 1, 2}) {  // shrink asymmetric, shrink symmetric, width and zero
        const Convention c{mode == 2 ? Range::flexround : Range::gptq, bits, mode == 1};
        Search search;
        search.kind = mode == 2 ? Search::Kind::width_and_zero : Search::Kind::shrink;
        check::context() = "bits " + std::to_string(bits) + " mode " + std::to_string(mode) + " cols " + std::to_string(cols);
        std::vector<T> s(static_cast<std::size_t>(w.rows));
        std::vector<std::int32_t> z(s.size()), winner(s.size());
        CHECK(fit_grid<T>(w.view(), 0, c, search, {s.data(), z.data(), 1, 0, winner.data()}, all(w.view())) == Status::ok);
        for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
          const T* row = &w(r, 0);
          T lo = 0, hi = 0;
          for (std::ptrdiff_t j = 0; j < cols; ++j) lo = std::min(lo, row[j]), hi = std::max(hi, row[j]);
          double best = std::numeric_limits<double>::infinity();
          std::vector<std::pair<double, int>> scores;
          if (mode == 2) {
            const T range = hi - lo;
            const int n = (1 << bits) - 1;
            for (int i = 1; i <= 100; ++i) {
              for (int zp = 0; zp <= n; ++zp) {
                const T width = range / T(100) * static_cast<T>(i), d = width / static_cast<T>(n);
                const Scalar<T> g = reference<T>(c, T(0) - static_cast<T>(zp) * d, width - static_cast<T>(zp) * d);
                scores.push_back({error_of(c, row, cols, g.scale, g.zero, 2.4), i * (n + 1) + zp});
              }
            }
          } else {
            if (mode == 1) hi = std::max(-lo, hi), lo = -hi;
            for (int i = 0; i < 80; ++i) {
              const T p = static_cast<T>(1 - i / 100.0);
              const Scalar<T> g = reference<T>(c, p * lo, p * hi);
              scores.push_back({error_of(c, row, cols, g.scale, g.zero, 2.4), i});
            }
          }
          int first = -1;
          for (const auto& [score, index] : scores) {
            if (score < best) best = score, first = index;
          }
          double chosen = -1;
          for (const auto& [score, index] : scores) chosen = index == winner[static_cast<std::size_t>(r)] ? score : chosen;
          const double widest = std::max(static_cast<double>(hi), -static_cast<double>(lo));
          CHECK(chosen >= 0);
          CHECK(chosen <=
                best * (1 + 1e-5) + 1e-12 * std::pow(widest, 2.4));  // the same candidate, up to what the error's last digits decide
          if (best == 0) CHECK(first == winner[static_cast<std::size_t>(r)]);
          CHECK_NEAR(error_of(c, row, cols, s[static_cast<std::size_t>(r)], z[static_cast<std::size_t>(r)], 2.4), chosen, 1e-9 * chosen);
        }
      }
    }
  }
}

}  // namespace

TEST("both searches find the candidate of an exhaustive plain search, float") { compare_searches<float>(); }
TEST("both searches find the candidate of an exhaustive plain search, double") { compare_searches<double>(); }

TEST("the search of a one-sided tensor keeps zero at its end") {
  std::vector<float> w;
  Generator g{3};
  for (int i = 0; i < 200; ++i) w.push_back(static_cast<float>(std::abs(g.normal())));
  const View<const float> view{w.data(), 1, 200, 200};
  Search search;
  search.kind = Search::Kind::width_positive;
  float s = 0;
  std::int32_t z = -1, winner = 0;
  CHECK(fit_grid<float>(view, 0, {Range::flexround, 4}, search, {&s, &z, 1, 0, &winner}, all(view)) == Status::ok);
  CHECK(z == 0 && winner >= 1 && winner < 100);
  for (float& x : w) x = -x;
  search.kind = Search::Kind::width_negative;
  float s2 = 0;
  std::int32_t winner2 = 0;
  CHECK(fit_grid<float>(view, 0, {Range::flexround, 4}, search, {&s2, &z, 1, 0, &winner2}, all(view)) == Status::ok);
  CHECK(z == 15 && winner2 == winner && s2 == s);
}

TEST("a search improves on min-max by the published factor on Gaussian rows") {
  Matrix<float> w(8, 4096);
  Generator g{17};
  for (float& x : w.data)
    x = static_cast<float>(std::sqrt(-2 * std::log(g.uniform() + 1e-12)) * std::cos(2 * 3.14159265358979 * g.uniform()));
  const Convention c{Range::flexround, 4};
  Search search;
  search.kind = Search::Kind::width_and_zero;
  double before = 0, after = 0, steps = 0;
  for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
    float s0 = 0, s1 = 0;
    std::int32_t z0 = 0, z1 = 0;
    const View<const float> row{&w(r, 0), 1, w.cols, w.cols};
    fit_grid<float>(row, 0, c, {}, {&s0, &z0}, all(row));
    fit_grid<float>(row, 0, c, search, {&s1, &z1}, all(row));
    before += error_of(c, row.data, row.cols, s0, z0, 2.4), after += error_of(c, row.data, row.cols, s1, z1, 2.4), steps += s1 / s0;
  }
  CHECK_NEAR(after / before, 0.60, 0.04);
  CHECK_NEAR(steps / 8, 0.74, 0.03);
}

TEST("all instruction sets fit the same min-max grids, bit for bit") {
  const Isa here = isa();
  const Matrix<float> w = hostile<float>(24, 133, 21);
  std::vector<float> first(24), s(24);
  std::vector<std::int32_t> first_zero(24), z(24);
  for (const Range range : ranges) {
    use_isa(Isa::portable);
    fit_grid<float>(w.view(), 0, {range, 4}, {}, {first.data(), first_zero.data()}, all(w.view()));
    use_isa(here);
    fit_grid<float>(w.view(), 0, {range, 4}, {}, {s.data(), z.data()}, all(w.view()));
    CHECK(std::memcmp(first.data(), s.data(), 24 * sizeof(float)) == 0);
    CHECK(first_zero == z);
  }
}

TEST("NaN and infinity are reported and spoil no other row") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const std::ptrdiff_t at : {0, 5, 16, 31, 36}) {
      Matrix<float> w = hostile<float>(6, 37, 2);
      std::vector<float> clean(6), s(6);
      std::vector<std::int32_t> z(6);
      fit_grid<float>(w.view(), 0, {}, {}, {clean.data(), z.data()}, all(w.view()));
      w(1, at) = bad;
      CHECK(fit_grid<float>(w.view(), 0, {}, {}, {s.data(), z.data()}, all(w.view())) == Status::non_finite);
      CHECK(std::isfinite(s[1]) && s[1] > 0);
      for (const std::size_t r : {0u, 2u, 3u, 4u, 5u}) CHECK(s[r] == clean[r]);
      float lo = std::numeric_limits<float>::infinity(), hi = -lo;
      CHECK(value_range<float>(w.view(), all(w.view()), lo, hi) == Status::non_finite);
    }
  }
}

TEST("arguments that make no sense are refused") {
  Matrix<float> w(3, 5);
  float s[3];
  std::int32_t z[3];
  const GridTable<float> out{s, z};
  CHECK(fit_grid<float>(w.view(), 0, {Range::gptq, 1}, {}, out, all(w.view())) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {Range::gptq, 17}, {}, out, all(w.view())) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {Range::awrq_activation, 4, true}, {}, out, all(w.view())) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), -1, {}, {}, out, all(w.view())) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {}, {}, out, {0, 4}) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {}, {}, out, {2, 1}) == Status::bad_argument);
  CHECK(fit_grid<float>({w.data.data(), 3, 5, 4}, 0, {}, {}, out, {0, 3}) == Status::bad_argument);
  CHECK(fit_grid<float>({nullptr, 3, 5, 5}, 0, {}, {}, out, {0, 3}) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {}, {}, {nullptr, z}, all(w.view())) == Status::bad_argument);
  Search search;
  search.kind = Search::Kind::shrink, search.steps = 0;
  CHECK(fit_grid<float>(w.view(), 0, {}, search, out, all(w.view())) == Status::bad_argument);
  CHECK(fit_grid<float>(w.view(), 0, {}, {}, out, {1, 1}) == Status::ok);
}

int main() { return check::run(); }
