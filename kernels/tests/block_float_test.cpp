// Block floating point against the definition in long double, and against values worked by hand.

#include <ptq/kernels/block_float.hpp>
#include <ptq/kernels/grid.hpp>
#include <ptq/kernels/quantize.hpp>

#include <algorithm>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

/// The least power of two not below (ceil) or above (floor) m, by counting; m > 0.
int exponent_by_counting(long double m, bool ceil) {
  int e = 0;
  long double power = 1;
  while (ceil ? power < m : power <= m) power *= 2, ++e;
  while (ceil ? power / 2 >= m : power / 2 > m) power /= 2, --e;
  return e;
}

long double half_to_even(long double x) {
  const long double below = std::floor(x), rest = x - below;
  if (rest != 0.5L) return std::floor(x + 0.5L);
  return std::fmod(below, 2.0L) == 0 ? below : below + 1;
}

/// One block by the definition. T decides what 1e-9 adds; `exponent` is given where the released logarithm matters.
template <class T>
std::vector<T> by_definition(const std::vector<T>& x, int bits, bool ceil) {
  long double most = 0;
  for (const T v : x) most = std::max(most, std::fabs(static_cast<long double>(v)));
  std::vector<T> y(x.size(), T(0));
  if (most == 0 || (!ceil && most < std::numeric_limits<T>::min())) return y;
  const int e = std::min(128, std::max(-127, exponent_by_counting(most, ceil)));
  const long double step = std::pow(2.0L, e - bits + 1), top = std::pow(2.0L, bits - 1) - 1;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double magnitude = std::fabs(static_cast<long double>(x[i]));
    if (ceil && static_cast<T>(magnitude) <= static_cast<T>(1e-8)) {
      y[i] = x[i];
      continue;
    }
    if (!ceil && magnitude < std::numeric_limits<T>::min()) continue;
    const long double nudged = ceil ? static_cast<T>(static_cast<T>(magnitude) + static_cast<T>(1e-9)) : magnitude;
    const long double code = std::min(top, half_to_even(nudged / step));
    y[i] = static_cast<T>((x[i] < 0 ? -1 : 1) * code * step);
  }
  return y;
}

template <class T>
std::vector<T> rounded(const std::vector<T>& x, int bits, bool ceil, std::ptrdiff_t block = 0) {
  const auto n = static_cast<std::ptrdiff_t>(x.size());
  std::vector<T> y(x.size(), T(-777));
  CHECK(block_float<T>({x.data(), 1, n, n}, block, {bits, ceil}, {y.data(), 1, n, n}, {0, 1}) == Status::ok);
  return y;
}

template <class T>
void compare() {
  for (const std::ptrdiff_t cols : {1, 5, 16, 20, 64, 100, 257}) {
    const Matrix<T> x = hostile<T>(24, cols, 9);
    for (const std::ptrdiff_t block : {1, 5, 16, 32, 0})
      for (const int bits : {2, 3, 4, 6, 8, 16})
        for (const bool ceil : {false, true}) {
          check::context() = "cols " + std::to_string(cols) + " block " + std::to_string(block) + " bits " + std::to_string(bits) +
                             (ceil ? " ceil" : " floor");
          Matrix<T> y(x.rows, cols, 5, T(-777));
          CHECK(block_float<T>(x.view(), block, {bits, ceil}, y.view(), {0, 7}) == Status::ok);
          CHECK(block_float<T>(x.view(), block, {bits, ceil}, y.view(), {7, x.rows}) == Status::ok);
          const std::ptrdiff_t width = block == 0 ? cols : block;
          for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
            for (std::ptrdiff_t c = 0; c < cols; c += width) {
              std::vector<T> part;
              for (std::ptrdiff_t i = c; i < std::min(cols, c + width); ++i) part.push_back(x(r, i));
              const std::vector<T> expected = by_definition(part, bits, ceil);
              for (std::size_t i = 0; i < part.size(); ++i) CHECK(y(r, c + static_cast<std::ptrdiff_t>(i)) == expected[i]);
            }
            for (std::ptrdiff_t c = cols; c < y.stride; ++c) CHECK(y.data[static_cast<std::size_t>(r * y.stride + c)] == T(-777));
          }
        }
  }
}

}  // namespace

TEST("every block is rounded as defined in float") { compare<float>(); }
TEST("every block is rounded as defined in double") { compare<double>(); }

TEST("long rows, whose blocks are rounded many at a time, with a rare one among them") {
  const std::ptrdiff_t rows = 12, cols = 1100;
  Matrix<float> x(rows, cols), y(rows, cols);
  Generator g{8};
  for (float& v : x.data) v = static_cast<float>(0.05 * g.normal());
  const float rare[] = {0, 1e-42f, 3e38f, 32.0f, std::nextafter(32.0f, 64.0f), -0x1p-9f, 1e-8f, 0.0f};
  for (std::ptrdiff_t r = 2; r < rows; ++r)  // the first rows have none
    for (std::ptrdiff_t i = 0; i < 16; ++i) x(r, 16 * (5 * r % 64) + i) = i % 3 == 2 ? 0.0f : rare[r % 8];
  for (const std::ptrdiff_t block : {4, 8, 16, 32, 64, 128})
    for (const int bits : {2, 4, 8})
      for (const bool ceil : {false, true}) {
        check::context() = "block " + std::to_string(block) + " bits " + std::to_string(bits) + (ceil ? " ceil" : " floor");
        CHECK(block_float<float>(x.view(), block, {bits, ceil}, y.view(), {0, rows}) == Status::ok);
        for (std::ptrdiff_t r = 0; r < rows; ++r)
          for (std::ptrdiff_t c = 0; c < cols; c += block) {
            std::vector<float> part, expected;
            for (std::ptrdiff_t i = c; i < std::min(cols, c + block); ++i) part.push_back(x(r, i));
            const float most =
                std::fabs(*std::max_element(part.begin(), part.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
            if (ceil && most == std::nextafter(32.0f, 64.0f)) {  // the released logarithm: as the block alone
              expected = rounded(part, bits, ceil);
            } else {
              expected = by_definition(part, bits, ceil);
            }
            for (std::size_t i = 0; i < part.size(); ++i) CHECK(y(r, c + static_cast<std::ptrdiff_t>(i)) == expected[i]);
          }
      }
}

TEST("values worked by hand") {
  const std::vector<float> one{0.9f, -0.3f, 0.11f, 0.05f, -0.62f, 0, 0.4375f, -0.0625f};
  for (const bool ceil : {false, true}) {
    CHECK(rounded(one, 4, ceil) == (std::vector<float>{0.875f, -0.25f, 0.125f, 0, -0.625f, 0, 0.5f, 0}));
    CHECK(rounded(one, 2, ceil) == (std::vector<float>{0.5f, -0.5f, 0, 0, -0.5f, 0, 0.5f, 0}));
    CHECK(rounded(one, 8, ceil) == (std::vector<float>{0.8984375f, -0.296875f, 0.109375f, 0.046875f, -0.6171875f, 0, 0.4375f, -0.0625f}));
  }
  const std::vector<float> two{1, -0.5f, 0.25f, 0.1f, -0.05f, 0, 0.7f, -1};  // the maximum is a power of two
  CHECK(rounded(two, 4, true) == (std::vector<float>{0.875f, -0.5f, 0.25f, 0.125f, 0, 0, 0.75f, -0.875f}));
  CHECK(rounded(two, 4, false) == (std::vector<float>{1, -0.5f, 0.25f, 0, 0, 0, 0.75f, -1}));
  CHECK(rounded(two, 2, true) == (std::vector<float>{0.5f, -0.5f, 0, 0, 0, 0, 0.5f, -0.5f}));
  CHECK(rounded(two, 2, false) == (std::vector<float>{1, 0, 0, 0, 0, 0, 1, -1}));
  const std::vector<float> ties{0.0302734375f, 0.001953125f, 0.005859375f, 0.009765625f};  // 7.75, 0.5, 1.5, 2.5 steps
  const auto steps = [&](int a, int b, int c, int d) {
    const auto s = [](int n) { return static_cast<float>(n) / 256; };
    return std::vector<float>{s(a), s(b), s(c), s(d)};
  };
  CHECK(rounded(ties, 4, true) == steps(7, 1, 2, 3));
  CHECK(rounded(ties, 4, false) == steps(7, 0, 2, 2));
}

TEST("the floor form is idempotent and the ceil form is not") {
  const Matrix<float> x = hostile<float>(24, 64, 3, 0);
  for (const int bits : {2, 3, 4, 8}) {
    Matrix<float> once(24, 64), twice(24, 64);
    CHECK(block_float<float>(x.view(), 16, {bits}, once.view(), {0, 24}) == Status::ok);
    CHECK(block_float<float>(once.read(), 16, {bits}, twice.view(), {0, 24}) == Status::ok);
    CHECK(once.data == twice.data);
  }
  const std::vector<float> first = rounded<float>({1.05f, -0.5f, 0.3f, 0.125f}, 4, true);
  CHECK(first == (std::vector<float>{1, -0.5f, 0.25f, 0}));
  CHECK(rounded(first, 4, true) == (std::vector<float>{0.875f, -0.5f, 0.25f, 0}));
}

TEST("the released exponent goes by a rounded logarithm") {
  // One and two steps above 2^5 and 2^-9: log2 rounds to the power itself, whose largest value is 7/8 of it at 4 bits.
  for (const float power : {32.0f, 0x1p-9f}) {
    const float above = std::nextafter(power, 2 * power);
    CHECK(rounded<float>({above}, 4, true)[0] == power * 0.875f);
    CHECK(rounded<float>({above * 1.01f}, 4, true)[0] == power);
    CHECK(rounded<float>({above}, 4, false)[0] == power);
  }
  const float two = std::nextafter(2.0f, 3.0f);  // near 1 the logarithm is fine enough
  CHECK(rounded<float>({two}, 4, true)[0] == 2.0f);
}

TEST("tiny and huge blocks stay finite") {
  for (const bool ceil : {false, true})
    for (const int bits : {2, 8}) {
      std::vector<float> x(32, 1e-42f);
      for (std::size_t i = 16; i < 32; ++i) x[i] = (i % 2 ? -1.0f : 1.0f) * 3.4e38f;
      const std::vector<float> y = rounded(x, bits, ceil, 16);
      for (std::size_t i = 0; i < 16; ++i) CHECK(y[i] == (ceil ? 1e-42f : 0.0f));
      for (std::size_t i = 16; i < 32; ++i) CHECK(std::isfinite(y[i]) && (y[i] > 0) == (x[i] > 0) && std::fabs(y[i]) >= 0x1p127f);
    }
}

TEST("exponents are clamped to their width") {
  BlockFloat f{4, true, 2, 0};  // exponents 0 .. 3
  std::vector<float> x{100, 3, 1, 0.2f}, y(4);
  CHECK(block_float<float>({x.data(), 1, 4, 4}, 0, f, {y.data(), 1, 4, 4}, {0, 1}) == Status::ok);
  CHECK(y == (std::vector<float>{7, 3, 1, 0}));
  x = {0.01f, 0.3f, -0.06f, 0};
  CHECK(block_float<float>({x.data(), 1, 4, 4}, 0, f, {y.data(), 1, 4, 4}, {0, 1}) == Status::ok);
  CHECK(y == (std::vector<float>{0, 0.25f, 0, 0}));
}

TEST("the grid of the same format has the same values") {
  Generator g{4};
  Matrix<float> w(8, 100);
  for (float& v : w.data) v = static_cast<float>(0.05 * g.normal());
  for (const int bits : {2, 4, 8}) {
    std::vector<float> scale(8 * 7), y(800), z(800);
    std::vector<std::int32_t> zero(8 * 7);
    const Convention c{Range::mx, bits, true};
    CHECK(fit_grid<float>(w.view(), 16, c, {}, {scale.data(), zero.data(), 7, 1}, {0, 8}) == Status::ok);
    Grid<float> grid;
    grid.scale = scale.data(), grid.zero = zero.data(), grid.row_stride = 7, grid.group_stride = 1, grid.group = 16;
    grid.codes = code_range(c);
    CHECK(fake_quantize<float>(w.view(), grid, {y.data(), 8, 100, 100}, {}, {0, 8}) == Status::ok);
    CHECK(block_float<float>(w.view(), 16, {bits}, {z.data(), 8, 100, 100}, {0, 8}) == Status::ok);
    CHECK(y == z);
    for (const float s : scale) CHECK(std::log2(s) == std::nearbyint(std::log2(s)));
  }
}

TEST("infinity and nan are reported and bad arguments refused") {
  std::vector<float> x(32, 1), y(32);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const std::ptrdiff_t block : {16, 5}) {
      x[20] = bad;
      CHECK(block_float<float>({x.data(), 1, 32, 32}, block, {4}, {y.data(), 1, 32, 32}, {0, 1}) == Status::non_finite);
    }
  x[20] = 1;
  CHECK(block_float<float>({x.data(), 1, 32, 32}, 16, {1}, {y.data(), 1, 32, 32}, {0, 1}) == Status::bad_argument);
  CHECK(block_float<float>({x.data(), 1, 32, 32}, -1, {4}, {y.data(), 1, 32, 32}, {0, 1}) == Status::bad_argument);
  CHECK(block_float<float>({x.data(), 1, 32, 32}, 16, {4}, {y.data(), 1, 31, 31}, {0, 1}) == Status::bad_argument);
  CHECK(block_float<float>({x.data(), 1, 32, 32}, 16, {4, true, 9}, {y.data(), 1, 32, 32}, {0, 1}) == Status::bad_argument);
}

int main() { return check::run(); }
