#include <ptq/core/transpose.hpp>

#include "catch.hpp"

using namespace ptq;

TEST_CASE("a matrix by rows holds the same numbers, whatever it was made of") {
  const auto number = GENERATE(at::kFloat, at::kDouble, at::kBFloat16, at::kInt);
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 9}, {9, 1}, {17, 33}, {300, 257}, {1024, 600}, {0, 4}, {4, 0}}) {
    INFO(rows << " x " << cols);
    const Tensor t = at::randn({rows, cols}).mul(100).to(number), wide = at::cat({t.t(), t.t()}, 1);  // (cols, 2 rows)
    for (const Tensor& lies : {t, t.t().contiguous().t(), wide.narrow(1, 0, rows).t(), wide.narrow(1, rows, rows).t()}) {
      const Tensor y = by_rows(lies);
      CHECK(y.is_contiguous());
      CHECK(at::equal(y, t));
    }
  }
}

TEST_CASE("what lies by rows is not copied, and more than two dimensions are put in order") {
  const Tensor t = at::randn({5, 7});
  CHECK(by_rows(t).is_same(t));
  const Tensor many = at::randn({3, 4, 5}).transpose(0, 2);
  CHECK((by_rows(many).is_contiguous() && at::equal(by_rows(many), many)));
  const Tensor one = at::randn({1, 1}).expand({40, 60});  // strides of zero
  CHECK((by_rows(one).is_contiguous() && at::equal(by_rows(one), one)));
}
