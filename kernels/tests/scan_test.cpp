// Scans against plain loops.

#include <ptq/kernels/scan.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
void compare() {
  for (const std::ptrdiff_t rows : {1, 3, 4, 9}) {
    for (const std::ptrdiff_t cols : {1, 7, 16, 33, 130}) {
      Matrix<T> x = hostile<T>(rows, cols, 5);
      std::vector<T> top(static_cast<std::size_t>(cols + 1), T(0.01));
      top.back() = T(-5);
      CHECK(all_finite<T>(x.view(), all(x.view())) == Status::ok);
      CHECK(column_absmax<T>(x.view(), {0, rows / 2}, top.data()) == Status::ok);
      CHECK(column_absmax<T>(x.view(), {rows / 2, rows}, top.data()) == Status::ok);
      CHECK(top.back() == T(-5));
      for (std::ptrdiff_t c = 0; c < cols; ++c) {
        T wanted = T(0.01);
        for (std::ptrdiff_t r = 0; r < rows; ++r) wanted = std::max(wanted, std::abs(x(r, c)));
        CHECK(top[static_cast<std::size_t>(c)] == wanted);
      }
      for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity()}) {
        for (std::ptrdiff_t c = 0; c < cols; ++c) {
          Matrix<T> y = x;
          y(rows - 1, c) = bad;
          CHECK(all_finite<T>(y.view(), all(y.view())) == Status::non_finite);
          CHECK(all_finite<T>(y.view(), {0, rows - 1}) == Status::ok);
          std::vector<T> t(static_cast<std::size_t>(cols), T(0));
          CHECK(column_absmax<T>(y.view(), all(y.view()), t.data()) == Status::non_finite);
          CHECK(t[static_cast<std::size_t>(c)] == std::numeric_limits<T>::infinity());
        }
      }
    }
  }
}

}  // namespace

TEST("maxima of columns run over calls, and NaN and infinity are found in every place, float") { compare<float>(); }
TEST("maxima of columns run over calls, and NaN and infinity are found in every place, double") { compare<double>(); }

TEST("arguments that make no sense are refused") {
  Matrix<float> x(2, 3);
  CHECK(all_finite<float>(x.view(), {0, 3}) == Status::bad_argument);
  CHECK(column_absmax<float>(x.view(), {0, 2}, nullptr) == Status::bad_argument);
  CHECK(all_finite<float>({nullptr, 0, 0, 0}, {0, 0}) == Status::ok);
}

int main() { return check::run(); }
