// Truncated singular value decompositions against linalg_svd and against matrices whose singular values are known.
#include <ptq/core/low_rank.hpp>

#include "catch.hpp"

using namespace ptq;

namespace {

/// (rows, cols) with the given singular values, float64.
Tensor with_singular_values(int64_t rows, int64_t cols, const Tensor& sigma) {
  at::manual_seed(11);
  const auto basis = [&](int64_t n) { return std::get<0>(at::linalg_qr(at::randn({n, sigma.numel()}, at::kDouble), "reduced")); };
  return at::mm(basis(rows) * sigma, basis(cols).t());
}

double squared(const Tensor& t) { return t.to(at::kDouble).square().sum().item<double>(); }

Tensor rebuilt(const TruncatedSvd& s) { return at::mm(s.u.to(at::kDouble) * s.sigma, s.v.to(at::kDouble).t()); }

double from_orthonormal(const Tensor& t) {
  const Tensor wide = t.to(at::kDouble);
  return (at::mm(wide.t(), wide) - at::eye(t.size(1), at::kDouble)).abs().max().item<double>();
}

}  // namespace

TEST_CASE("the truncated decomposition of a flat spectrum is near the best of its rank", "[low_rank]") {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kDouble})
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{600, 400}, {320, 700}})
      for (const bool scaled : {false, true}) {
        INFO(rows << " x " << cols << (scaled ? ", scaled rows" : ", flat"));
        Tensor m = at::randn({rows, cols}, dtype);
        if (scaled) m = m * (at::randn({rows, 1}, dtype) * 1.5).exp();
        const Tensor sigma = at::linalg_svdvals(m.to(at::kDouble));
        for (const int64_t rank : {1, 8, 32}) {
          const TruncatedSvd s = truncated_svd(m, rank);
          CHECK(s.steps > 1);
          const double best = squared(sigma.narrow(0, rank, sigma.numel() - rank)), mine = squared(m - rebuilt(s));
          CHECK(std::sqrt(mine / best) < 1.005);
          CHECK(mine >= best * (1 - 1e-5));  // Eckart and Young: nothing of this rank is nearer
          CHECK(s.residual == Approx(mine).epsilon(1e-4));
          CHECK(s.energy == Approx(squared(m)).epsilon(1e-6));
          CHECK(from_orthonormal(s.u) < (dtype == at::kDouble ? 1e-9 : 1e-4));
          CHECK(from_orthonormal(s.v) < (dtype == at::kDouble ? 1e-9 : 1e-4));
        }
      }
}

TEST_CASE("a gap behind the rank makes the truncated decomposition exact", "[low_rank]") {
  const Tensor sigma = at::cat({at::linspace(9, 5, 12, at::kDouble), at::linspace(0.02, 0.01, 200, at::kDouble)});
  const Tensor m = with_singular_values(500, 300, sigma);
  const TruncatedSvd s = truncated_svd(m, 12);
  CHECK(at::allclose(s.sigma, sigma.narrow(0, 0, 12), 1e-9, 0));
  CHECK(s.residual == Approx(squared(sigma.narrow(0, 12, 200))).epsilon(1e-5));
}

TEST_CASE("the whole decomposition serves small matrices, near-full ranks and tolerance 0", "[low_rank]") {
  at::manual_seed(2);
  const Tensor m = at::randn({300, 280}, at::kDouble);
  const Tensor sigma = at::linalg_svdvals(m);
  for (const TruncatedSvd& s :
       {truncated_svd(m, 100), truncated_svd(m, 280), truncated_svd(m, 4, {.tolerance = 0}), truncated_svd(m.narrow(0, 0, 20), 7)}) {
    CHECK(s.steps == 0);
    const Tensor of = s.u.size(0) == 20 ? at::linalg_svdvals(m.narrow(0, 0, 20)) : sigma;
    CHECK(at::allclose(s.sigma, of.narrow(0, 0, s.sigma.numel()), 1e-10, 0));
  }
  CHECK(squared(m - rebuilt(truncated_svd(m, 280))) < 1e-20);
}

TEST_CASE("the same seed gives the same decomposition, bit for bit", "[low_rank]") {
  at::manual_seed(3);
  const Tensor m = at::randn({400, 300});
  const TruncatedSvd a = truncated_svd(m, 10), b = truncated_svd(m, 10), c = truncated_svd(m, 10, {.seed = 1});
  CHECK(at::equal(a.u, b.u));
  CHECK(at::equal(a.v, b.v));
  CHECK(at::equal(a.sigma, b.sigma));
  CHECK(!at::equal(a.v, c.v));
  CHECK(a.residual == Approx(c.residual).epsilon(0.01));
}

TEST_CASE("ranks above the size, rank 0, zero and rank-deficient matrices have their decomposition", "[low_rank]") {
  at::manual_seed(4);
  const Tensor m = at::randn({30, 20}, at::kDouble);
  CHECK(truncated_svd(m, 99).sigma.numel() == 20);
  CHECK(truncated_svd(m, 0).u.size(1) == 0);
  CHECK(truncated_svd(m, 0).residual == Approx(squared(m)));
  for (const int64_t n : {20, 400}) {
    const TruncatedSvd zero = truncated_svd(at::zeros({n + 5, n}), 3);
    CHECK(zero.residual == 0);
    CHECK(squared(rebuilt(zero)) == 0);
    CHECK(at::isfinite(zero.u).all().item<bool>());
    const Tensor thin = at::mm(at::randn({n + 5, 2}, at::kDouble), at::randn({2, n}, at::kDouble));  // rank 2
    const TruncatedSvd s = truncated_svd(thin, 6);
    CHECK(squared(thin - rebuilt(s)) < 1e-16 * squared(thin));
    CHECK(from_orthonormal(s.v) < 1e-9);
  }
}

TEST_CASE("matrices that are not finite, not matrices or of another type are refused", "[low_rank]") {
  Tensor m = at::ones({4, 4});
  m[1][2] = std::nan("");
  CHECK_THROWS_WITH(truncated_svd(m, 2, {}, "blocks.0.up_proj, error"), Catch::Contains("blocks.0.up_proj") && Catch::Contains("NaN"));
  CHECK_THROWS_WITH(truncated_svd(at::ones({4}), 2), Catch::Contains("no matrix"));
  CHECK_THROWS_WITH(truncated_svd(at::ones({4, 4}, at::kBFloat16), 2), Catch::Contains("float32"));
  CHECK_THROWS_WITH(truncated_svd(at::ones({4, 4}), -1), Catch::Contains("negative"));
}
