// Rounding onto grids against plain scalar code.

#include <ptq/kernels/quantize.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
T reference_value(T w, T divisor, T offset, T s, std::int32_t z, CodeRange r, std::int32_t& code) {
  T k = std::nearbyint(w / divisor + offset);
  const T lo = static_cast<T>(r.lo - z), hi = static_cast<T>(r.hi - z);
  k = !(k > lo) ? lo : k > hi ? hi : k;
  code = static_cast<std::int32_t>(k) + z;
  return s * k;
}

template <class T>
void compare_given_grid() {
  for (const std::ptrdiff_t cols : {1, 3, 16, 31, 64, 257}) {
    const Matrix<T> w = hostile<T>(25, cols, 5);
    for (const int kind : {0, 1, 2, 3, 4, 5}) {  // per tensor, channel, group 16, group 5, any map, symmetric signed codes
      const std::ptrdiff_t group = kind == 2 ? 16 : kind == 3 ? 5 : 0;
      const std::ptrdiff_t groups = kind == 4 ? 3 : group == 0 ? 1 : (cols + group - 1) / group;
      Generator g{static_cast<std::uint64_t>(cols) + static_cast<std::uint64_t>(kind)};
      Matrix<T> scale(w.rows, groups);
      Matrix<std::int32_t> zero(w.rows, groups);
      std::vector<std::int32_t> map(static_cast<std::size_t>(cols));
      for (auto& m : map) m = static_cast<std::int32_t>(g.uniform() * 3);
      for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
        for (std::ptrdiff_t i = 0; i < groups; ++i) {
          scale(r, i) = static_cast<T>(0.01 + 0.05 * g.uniform()), zero(r, i) = static_cast<std::int32_t>(40 * g.uniform()) - 12;
        }
      }
      Grid<T> grid;
      grid.scale = scale.data.data(), grid.zero = kind == 5 ? nullptr : zero.data.data();
      grid.row_stride = kind == 0 ? 0 : groups, grid.group_stride = kind == 0 ? 0 : 1, grid.group = group;
      grid.g_idx = kind == 4 ? map.data() : nullptr;
      grid.codes = kind == 5 ? CodeRange{-8, 7} : CodeRange{0, 15};
      Matrix<T> divisor(w.rows, cols, 2), offset(w.rows, cols, 1);
      for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
        for (std::ptrdiff_t c = 0; c < cols; ++c)
          divisor(r, c) = static_cast<T>(0.02 + 0.01 * g.uniform()), offset(r, c) = static_cast<T>(g.uniform() - 0.5);
      }
      for (const int learned : {0, 1, 2, 3}) {
        check::context() = "cols " + std::to_string(cols) + " kind " + std::to_string(kind) + " learned " + std::to_string(learned);
        Coordinates<T> coordinates;
        if (learned & 1) coordinates.divisor = divisor.read();
        if (learned & 2) coordinates.offset = offset.read();
        Matrix<T> y(w.rows, cols, 5, T(-777));
        Matrix<std::int32_t> code(w.rows, cols, 1, -777);
        Matrix<std::uint8_t> small(w.rows, cols, 2);
        CHECK(fake_quantize<T>(w.view(), grid, y.view(), Codes{code.data.data(), code.stride}, {0, 9}, coordinates) == Status::ok);
        CHECK(fake_quantize<T>(w.view(), grid, y.view(), Codes{code.data.data(), code.stride}, {9, w.rows}, coordinates) == Status::ok);
        const Status bytes = fake_quantize<T>(w.view(), grid, {}, Codes{small.data.data(), small.stride}, all(w.view()), coordinates);
        CHECK(bytes == (kind == 5 ? Status::bad_argument : Status::ok));  // signed codes do not fit
        Matrix<T> again(w.rows, cols);
        CHECK(dequantize<T>(Codes{code.data.data(), code.stride}, grid, again.view(), all(w.view())) == Status::ok);
        for (std::ptrdiff_t r = 0; r < w.rows; ++r) {
          for (std::ptrdiff_t c = 0; c < cols; ++c) {
            const std::ptrdiff_t i = kind == 4 ? map[static_cast<std::size_t>(c)] : group == 0 ? 0 : c / group;
            const std::ptrdiff_t row = kind == 0 ? 0 : r;
            const T s = scale(row, i);
            const std::int32_t z = kind == 5 ? 0 : zero(row, i);
            std::int32_t expected_code;
            const T expected = reference_value<T>(w(r, c), learned & 1 ? divisor(r, c) : s, learned & 2 ? offset(r, c) : T(0), s, z,
                                                  grid.codes, expected_code);
            CHECK(y(r, c) == expected);
            CHECK(again(r, c) == expected);
            CHECK(code(r, c) == expected_code);
            if (bytes == Status::ok) CHECK(small(r, c) == expected_code);
          }
          for (std::ptrdiff_t c = cols; c < y.stride; ++c) CHECK(y.data[static_cast<std::size_t>(r * y.stride + c)] == T(-777));
        }
      }
    }
  }
}

constexpr Range ranges[] = {Range::gptq, Range::awrq_activation,    Range::flexround, Range::flexround_activation,
                            Range::omni, Range::omni_no_zero_point, Range::absmax};

template <class T>
void compare_dynamic() {
  for (const std::ptrdiff_t cols : {1, 8, 17, 96, 300}) {
    const Matrix<T> x = hostile<T>(25, cols, 7);
    for (const Range range : ranges) {
      for (const std::ptrdiff_t group : {std::ptrdiff_t{0}, std::ptrdiff_t{16}, std::ptrdiff_t{7}}) {
        const Convention c{range, 4, false, true};
        const std::ptrdiff_t width = group == 0 || group > cols ? cols : group, groups = (cols + width - 1) / width;
        const CodeRange codes = code_range(c);
        check::context() =
            "range " + std::to_string(static_cast<int>(range)) + " cols " + std::to_string(cols) + " group " + std::to_string(group);
        Matrix<T> y(x.rows, cols, 3), scale(x.rows, groups), wanted_scale(x.rows, groups);
        Matrix<std::int32_t> code(x.rows, cols, 2), zero(x.rows, groups), wanted_zero(x.rows, groups);
        CHECK(fake_quantize_dynamic<T>(x.view(), group, c, y.view(), Codes{code.data.data(), code.stride}, scale.data.data(),
                                       zero.data.data(), all(x.view())) == Status::ok);
        CHECK(fit_grid<T>(x.view(), group, c, {}, {wanted_scale.data.data(), wanted_zero.data.data(), groups, 1}, all(x.view())) ==
              Status::ok);
        for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
          for (std::ptrdiff_t j = 0; j < cols; ++j) {
            const T s = wanted_scale(r, j / width);
            const std::int32_t z = wanted_zero(r, j / width);
            CHECK(scale(r, j / width) == s && zero(r, j / width) == z);
            std::int32_t k;
            CHECK(y(r, j) == reference_value<T>(x(r, j), s, T(0), s, z, codes, k));
            CHECK(code(r, j) == k);
          }
        }
        if (group == 0) {  // one grid for the tensor
          T s = 0, lo = x(0, 0), hi = lo, ws = 0;
          std::int32_t z = 0, wz = 0;
          Matrix<T> t(x.rows, cols);
          CHECK(fake_quantize_tensor<T>(x.view(), c, t.view(), {}, &s, &z) == Status::ok);
          for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
            for (std::ptrdiff_t j = 0; j < cols; ++j) lo = std::min(lo, x(r, j)), hi = std::max(hi, x(r, j));
          }
          grid_from_range<T>(c, lo, hi, ws, wz);
          CHECK(s == ws && z == wz);
          for (std::ptrdiff_t r = 0; r < x.rows; ++r) {
            std::int32_t k;
            for (std::ptrdiff_t j = 0; j < cols; ++j) CHECK(t(r, j) == reference_value<T>(x(r, j), s, T(0), s, z, codes, k));
          }
        }
      }
    }
  }
}

}  // namespace

TEST("a given grid rounds as plain code does, per tensor, channel, group and map, with divisors and offsets, float") {
  compare_given_grid<float>();
}
TEST("a given grid rounds as plain code does, per tensor, channel, group and map, with divisors and offsets, double") {
  compare_given_grid<double>();
}
TEST("dynamic grids per row, group and tensor round as plain code does, float") { compare_dynamic<float>(); }
TEST("dynamic grids per row, group and tensor round as plain code does, double") { compare_dynamic<double>(); }

TEST("ties go to the even neighbour") {
  const float w[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.625f, 3.5f, 8388609.0f, -0.49999997f, 0.49999997f, 1e30f, -1e30f};
  const float s = 1;
  std::int32_t code[13];
  Grid<float> grid;
  grid.scale = &s, grid.codes = {-32768, 32767};
  CHECK(fake_quantize<float>({w, 1, 13, 13}, grid, {}, Codes{code, 13}, {0, 1}) == Status::ok);
  const std::int32_t wanted[] = {0, 2, 2, 0, -2, -2, 1, 4, 32767, 0, 0, 32767, -32768};
  for (int i = 0; i < 13; ++i) CHECK(code[i] == wanted[i]);
}

TEST("quotients next to a tie decide as the division does") {
  Generator g{77};
  constexpr std::ptrdiff_t n = 4096;
  std::vector<float> w(n);
  std::vector<std::int32_t> codes(n);
  long ties = 0;
  for (int repeat = 0; repeat < 400; ++repeat) {
    const float s = static_cast<float>(std::ldexp(1 + g.uniform(), static_cast<int>(g.uniform() * 110) - 55));
    const std::int32_t z = static_cast<std::int32_t>(g.uniform() * 256);
    for (std::size_t i = 0; i < n; ++i) {
      float x = static_cast<float>((std::floor(g.uniform() * 300) - 150 + 0.5) * static_cast<double>(s));
      for (int k = static_cast<int>(g.uniform() * 5); k > 0; --k) x = std::nextafter(x, g.uniform() < 0.5 ? -1e38f : 1e38f);
      w[i] = x;
      const float q = x / s;
      ties += q - std::floor(q) == 0.5f;
    }
    Grid<float> grid;
    grid.scale = &s, grid.zero = &z, grid.codes = {0, 255};
    CHECK(fake_quantize<float>({w.data(), 1, n, n}, grid, {}, Codes{codes.data(), n}, {0, 1}) == Status::ok);
    for (std::size_t i = 0; i < n; ++i) {
      std::int32_t wanted;
      reference_value<float>(w[i], s, 0.0f, s, z, grid.codes, wanted);
      CHECK(codes[i] == wanted);
    }
  }
  CHECK(ties > 100000);  // the quotient itself rounds to a tie that often
}

TEST("worked rows") {
  const double row[] = {-1, 0.625, 2.75}, s = 0.25;
  const std::int32_t z = 4;
  double y[3];
  Grid<double> grid;
  grid.scale = &s, grid.zero = &z;
  fake_quantize<double>({row, 1, 3, 3}, grid, {y, 1, 3, 3}, {}, {0, 1});
  CHECK(y[0] == -1 && y[1] == 0.5 && y[2] == 2.75);
  const double token[] = {0.2, -3, 7, 1.1};
  std::int32_t code[4];
  double value[4];
  fake_quantize_dynamic<double>({token, 1, 4, 4}, 0, {Range::omni, 4}, {value, 1, 4, 4}, Codes{code, 4}, nullptr, nullptr, {0, 1});
  CHECK(code[0] == 4 && code[1] == 0 && code[2] == 14 && code[3] == 6);
  CHECK_NEAR(value[1], -2.6667, 5e-5);
  CHECK_NEAR(value[3], 1.3333, 5e-5);
  const double x[] = {1.0, 2.0, -1.0, 0.5, 1.5, 0.8, 1.9, -1.2, 0.4, 1.3, -0.5, 0.3, 0.9, -1.0, 0.2};
  const double wanted[] = {0.914286, 1.828571, -0.914286, 0.457143, 1.371429, 0.914286,  1.828571, -1.371429,
                           0.457143, 1.371429, -0.457143, 0.457143, 0.914286, -0.914286, 0};
  double xq[15], xs = 0;
  std::int32_t xz = 0;
  fake_quantize_tensor<double>({x, 3, 5, 5}, {Range::awrq_activation, 3}, {xq, 3, 5, 5}, {}, &xs, &xz);
  CHECK_NEAR(xs, 0.4571429, 5e-8);
  CHECK(xz == 3);
  for (int i = 0; i < 15; ++i) CHECK_NEAR(xq[i], wanted[i], 5e-7);
}

TEST("a constant token of FlexRound's activation quantizer survives by default and collapses as published") {
  const std::vector<float> x(20, 0.375f);
  std::vector<float> y(20);
  fake_quantize_dynamic<float>({x.data(), 1, 20, 20}, 0, {Range::flexround_activation, 8}, {y.data(), 1, 20, 20}, {}, nullptr, nullptr,
                               {0, 1});
  for (const float v : y) CHECK_NEAR(v, 0.375, 1e-6);
  fake_quantize_dynamic<float>({x.data(), 1, 20, 20}, 0, {Range::flexround_activation, 8, false, true}, {y.data(), 1, 20, 20}, {}, nullptr,
                               nullptr, {0, 1});
  for (const float v : y) CHECK(std::abs(v) < 1e-5f);
}

TEST("tokens are independent, and a token times a power of two keeps its codes") {
  Matrix<float> x = hostile<float>(1, 96, 3), twice = x;
  for (float& v : twice.data) v *= 8;
  std::vector<std::int32_t> a(96), b(96);
  fake_quantize_dynamic<float>(x.view(), 0, {Range::awrq_activation, 8}, {}, Codes{a.data(), 96}, nullptr, nullptr, {0, 1});
  fake_quantize_dynamic<float>(twice.view(), 0, {Range::awrq_activation, 8}, {}, Codes{b.data(), 96}, nullptr, nullptr, {0, 1});
  CHECK(a == b);
}

TEST("quantizing what is on the grid changes nothing, in place too") {
  const Matrix<float> w = hostile<float>(24, 133, 9);
  for (const Range range : {Range::gptq, Range::flexround, Range::omni, Range::absmax}) {
    std::vector<float> s(24);
    std::vector<std::int32_t> z(24);
    const Convention c{range, 4};
    fit_grid<float>(w.view(), 0, c, {}, {s.data(), z.data()}, all(w.view()));
    Grid<float> grid;
    grid.scale = s.data(), grid.zero = z.data(), grid.row_stride = 1, grid.codes = code_range(c);
    Matrix<float> once(24, 133), twice(24, 133);
    fake_quantize<float>(w.view(), grid, once.view(), {}, all(w.view()));
    twice = once;
    CHECK(fake_quantize<float>(twice.read(), grid, twice.view(), {}, all(w.view())) == Status::ok);
    CHECK(once.data == twice.data);
  }
}

TEST("large outputs, which bypass the caches, hold the same values") {
  Matrix<float> w(1100, 4096, 0), y(1100, 4096, 16, -777.0f);
  Generator g{1};
  for (std::size_t i = 0; i < w.data.size(); ++i) w.data[i] = static_cast<float>(g.uniform() - 0.5);
  std::vector<float> s(1100);
  std::vector<std::int32_t> z(1100);
  fit_grid<float>(w.view(), 0, {}, {}, {s.data(), z.data()}, all(w.view()));
  Grid<float> grid;
  grid.scale = s.data(), grid.zero = z.data(), grid.row_stride = 1;
  float* aligned = y.data.data() + (64 - reinterpret_cast<std::uintptr_t>(y.data.data()) % 64) % 64 / 4;
  for (const std::ptrdiff_t cols : {4096, 4091}) {
    const View<const float> from{w.data.data(), 1099, cols, 4096};
    CHECK(fake_quantize<float>(from, grid, {aligned, 1099, cols, 4112}, {}, {3, 1099}) == Status::ok);
    for (std::ptrdiff_t r = 3; r < 1099; ++r) {
      for (std::ptrdiff_t c = 0; c < cols; ++c) {
        std::int32_t k;
        const std::size_t row = static_cast<std::size_t>(r);
        CHECK(aligned[r * 4112 + c] == reference_value<float>(w(r, c), s[row], 0.0f, s[row], z[row], grid.codes, k));
      }
    }
  }
}

TEST("all instruction sets give the same values and codes, bit for bit") {
  const Isa here = isa();
  const Matrix<float> w = hostile<float>(24, 133, 21);
  Matrix<float> a(24, 133), b(24, 133);
  std::vector<std::int32_t> ka(24 * 133), kb(24 * 133);
  for (const Range range : ranges) {
    use_isa(Isa::portable);
    fake_quantize_dynamic<float>(w.view(), 0, {range, 4}, a.view(), Codes{ka.data(), 133}, nullptr, nullptr, all(w.view()));
    use_isa(here);
    fake_quantize_dynamic<float>(w.view(), 0, {range, 4}, b.view(), Codes{kb.data(), 133}, nullptr, nullptr, all(w.view()));
    for (std::size_t i = 0; i < 24 * 133; ++i) CHECK(a.data[i] == b.data[i]);
    CHECK(ka == kb);
  }
}

TEST("NaN and infinity are reported wherever they stand, and spoil no other entry") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const std::ptrdiff_t at : {0, 5, 16, 31, 36}) {
      Matrix<float> w(3, 37, 0, 0.25f), y(3, 37);
      const float s = 0.125f;
      Grid<float> grid;
      grid.scale = &s;
      w(1, at) = bad;
      std::vector<std::int32_t> codes(3 * 37, -1);
      CHECK(fake_quantize<float>(w.view(), grid, y.view(), Codes{codes.data(), 37}, all(w.view())) == Status::non_finite);
      CHECK(fake_quantize<float>(w.view(), grid, y.view(), {}, {2, 3}) == Status::ok);
      for (std::ptrdiff_t r = 0; r < 3; ++r) {
        for (std::ptrdiff_t c = 0; c < 37; ++c) {
          if (r != 1 || c != at) CHECK(y(r, c) == 0.25f);
          CHECK(codes[static_cast<std::size_t>(r * 37 + c)] >= 0 && codes[static_cast<std::size_t>(r * 37 + c)] <= 15);
        }
      }
      CHECK(fake_quantize_dynamic<float>(w.view(), 0, {}, y.view(), {}, nullptr, nullptr, all(w.view())) == Status::non_finite);
    }
  }
}

TEST("arguments that make no sense are refused") {
  Matrix<float> w(3, 5), y(3, 5);
  float s = 1;
  std::uint8_t codes[16];
  Grid<float> grid;
  grid.scale = &s;
  CHECK(fake_quantize<float>(w.view(), {}, y.view(), {}, all(w.view())) == Status::bad_argument);
  CHECK(fake_quantize<float>(w.view(), grid, {y.data.data(), 3, 4, 5}, {}, all(w.view())) == Status::bad_argument);
  CHECK(fake_quantize<float>(w.view(), grid, y.view(), {}, {0, 4}) == Status::bad_argument);
  CHECK(fake_quantize<float>(w.view(), grid, y.view(), {}, {-1, 2}) == Status::bad_argument);
  CHECK(fake_quantize<float>(w.view(), grid, {}, Codes{codes, 4}, all(w.view())) == Status::bad_argument);
  grid.codes = {0, 300};
  CHECK(fake_quantize<float>(w.view(), grid, {}, Codes{codes, 5}, all(w.view())) == Status::bad_argument);
  grid.codes = {3, 2};
  CHECK(fake_quantize<float>(w.view(), grid, y.view(), {}, all(w.view())) == Status::bad_argument);
  CHECK(dequantize<float>({}, grid, y.view(), all(w.view())) == Status::bad_argument);
  CHECK(fake_quantize_dynamic<float>(w.view(), -3, {}, y.view(), {}, nullptr, nullptr, all(w.view())) == Status::bad_argument);
  CHECK(fake_quantize_tensor<float>(w.view(), {Range::gptq, 40}, y.view(), {}, nullptr, nullptr) == Status::bad_argument);
}

int main() { return check::run(); }
