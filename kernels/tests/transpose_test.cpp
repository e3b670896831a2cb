// Transposes, entry by entry.

#include <ptq/kernels/transpose.hpp>

#include "check.hpp"
#include "data.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
void compare() {
  for (const auto& [rows, cols] :
       {std::pair<std::ptrdiff_t, std::ptrdiff_t>{1, 1}, {1, 70}, {70, 1}, {16, 16}, {15, 17}, {33, 64}, {64, 130}, {129, 67}}) {
    check::context() = std::to_string(rows) + " x " + std::to_string(cols);
    Matrix<T> from(rows, cols, 3);
    Matrix<T> to(cols, rows, 2, T(-777));
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t c = 0; c < cols; ++c) from(r, c) = static_cast<T>(1000 * r + c);
    for (const Rows part : {Rows{0, cols / 3}, Rows{cols / 3, cols}}) CHECK(transpose<T>(from.read(), to.view(), part) == Status::ok);
    for (std::ptrdiff_t c = 0; c < cols; ++c) {
      for (std::ptrdiff_t r = 0; r < rows; ++r) CHECK(to(c, r) == from(r, c));
      for (std::ptrdiff_t r = rows; r < to.stride; ++r) CHECK(to(c, r) == T(-777));  // what lies between rows stays
    }
  }
}

}  // namespace

TEST("a transpose moves every entry and nothing else, float") { compare<float>(); }
TEST("a transpose moves every entry and nothing else, double") { compare<double>(); }

TEST("only the rows that were asked for are written") {
  Matrix<float> from(40, 40, 0, 1.0F), to(40, 40, 0, 0.0F);
  CHECK(transpose<float>(from.read(), to.view(), {7, 25}) == Status::ok);
  for (std::ptrdiff_t r = 0; r < 40; ++r)
    for (std::ptrdiff_t c = 0; c < 40; ++c) CHECK(to(r, c) == (r >= 7 && r < 25 ? 1.0F : 0.0F));
}

TEST("shapes that do not mirror each other are refused") {
  Matrix<float> from(2, 3), to(3, 2), other(2, 2);
  CHECK(transpose<float>(from.read(), other.view(), {0, 2}) == Status::bad_argument);
  CHECK(transpose<float>(from.read(), to.view(), {0, 4}) == Status::bad_argument);
  CHECK(transpose<float>({nullptr, 2, 3, 3}, to.view(), {0, 3}) == Status::bad_argument);
  CHECK(transpose<float>({nullptr, 0, 0, 0}, {nullptr, 0, 0, 0}, {0, 0}) == Status::ok);
}

int main() { return check::run(); }
