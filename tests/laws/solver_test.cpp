// Laws of solvers, on every member.
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

const char* const schemes[] = {"int2", "int3:sym", "int4", "int4:g8", "int4:tensor", "int8", "mxint4:b16", "float4:e2:g8", "float4:e2:b10"};

struct Layer {
  Tensor w, x;  // (rows, n), (sequences, tokens, n)
  Statistics stats;

  /// Inputs of few directions and noise, one channel an outlier.
  explicit Layer(at::ScalarType dtype, int64_t tokens = 64) {
    at::manual_seed(11);
    w = 0.3 * at::randn({10, 24}, dtype);
    x = at::matmul(at::randn({2, tokens, 5}, dtype), at::randn({5, 24}, dtype)) + 0.3 * at::randn({2, tokens, 24}, dtype);
    x.select(2, 7).mul_(40);
    observe();
  }
  void observe() {
    stats = {};
    stats.add({.absmax = true, .extent = true, .profile = true, .square = true, .hessian = true, .cross = true}, x, x);
    stats.finish();
  }
  template <class P>
  [[nodiscard]] Solution solve(const P& p, const std::string& scheme) const {
    Shared shared;
    Problem problem;
    problem.place = "blocks.1.mlp.up_proj", problem.weight = w, problem.scheme = weights(scheme), problem.stats = &stats,
    problem.shared = &shared;
    return p.solve(problem);
  }
};

template <class P, class Law>
void on_all(const Law& law) {
  for (const P& p : Variants<P>::all())
    for (const char* text : schemes)
      for (const auto dtype : {at::kFloat, at::kDouble}) {
        if (!p.refuses(weights(text)).empty()) continue;
        INFO(label(p) << " " << text << " " << c10::toString(dtype));
        law(p, std::string(text), dtype);
      }
}

/// Whether every weight is a value its artefact can hold: a point of the grid, a level of its column, or an entry kept as it is.
bool representable(const QuantizedLinear& l) {
  const Tensor w = l.weight();
  if (!l.codebook.defined()) return at::equal(fake_quantize(w, l.grid), w);
  const Tensor level = (w.unsqueeze(2) == l.codebook.levels.unsqueeze(0)).any(2);  // (rows, n)
  Tensor kept = at::zeros_like(w);
  if (l.kept.count() > 0) kept.index_put_({l.kept.rows.to(at::kLong), l.kept.columns()}, at::ones({l.kept.count()}, w.options()));
  return (level | kept.gt(0)).all().item<bool>();
}

/// Without feedback: on the artefact's own codebooks the nearest level, else plain rounding.
Tensor plain_rounding(const Layer& l, const Solution& s, const std::string& scheme) {
  if (!s.linear.codebook.defined()) return fake_quantize(l.w, fit_grid(l.w, weights(scheme)));
  const Tensor levels = s.linear.codebook.levels.unsqueeze(0).expand({l.w.size(0), -1, -1});  // (rows, n, K)
  Tensor q = levels.gather(2, (l.w.unsqueeze(2) - levels).abs().argmin(2).unsqueeze(2)).squeeze(2);
  if (s.linear.kept.count() > 0) {
    const Tensor rows = s.linear.kept.rows.to(at::kLong), columns = s.linear.kept.columns();
    q.index_put_({rows, columns}, l.w.to(at::kFloat).to(l.w.scalar_type()).index({rows, columns}));
  }
  return q;
}

double output_error(const Layer& l, const Tensor& q) { return (at::matmul(l.x, (l.w - q).t())).square().sum().item<double>(); }

}  // namespace

TEMPLATE_LIST_TEST_CASE("a solver's codes stay within the bits and dequantize to values of its grid", "[laws]", Solvers) {
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    const Layer l(dtype);
    const Solution s = l.solve(p, scheme);
    const Tensor bits = s.linear.codebook.defined() ? s.linear.codebook.bits : at::full({24}, weights(scheme).bits, at::kInt);
    CHECK(s.linear.codes.to(at::kInt).lt(at::pow(2, bits)).all().item<bool>());
    CHECK(s.linear.codes.sizes() == l.w.sizes());
    CHECK(representable(s.linear));
    CHECK(s.target.sizes() == l.w.sizes());
    CHECK(s.linear.bits().total() > 0);
  });
}

TEMPLATE_LIST_TEST_CASE("without correlation of inputs a solver is plain rounding", "[laws]", Solvers) {
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    for (const double c : {1.0, 7.3}) {
      Layer l(dtype);
      l.stats.hessian = c * at::eye(24, l.w.options());
      l.stats.cross = at::zeros_like(l.stats.hessian);
      const Solution s = l.solve(p, scheme);
      CHECK(at::equal(s.linear.weight(), plain_rounding(l, s, scheme)));
    }
  });
}

TEMPLATE_LIST_TEST_CASE("the scale of the statistics does not matter to a solver", "[laws]", Solvers) {
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    const Layer l(dtype);
    const Solution s = l.solve(p, scheme);
    for (const double c : {0x1p-40, 0x1p40}) {  // powers of two: not a single rounding changes
      Layer other(dtype);
      other.stats.hessian = c * l.stats.hessian, other.stats.cross = c * l.stats.cross;
      CHECK(at::equal(other.solve(p, scheme).linear.codes, s.linear.codes));
    }
    for (const double c : {0x1p-60, 0x1p60}) {
      Layer other(dtype);
      other.w = c * l.w;
      const Solution t = other.solve(p, scheme);
      CHECK(at::equal(t.linear.codes, s.linear.codes));
      CHECK(at::allclose(t.linear.weight() / c, s.linear.weight(), 1e-6, 0));
    }
  });
}

TEMPLATE_LIST_TEST_CASE("a solver that looks at its inputs does better on them than plain rounding", "[laws]", Solvers) {
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    const Layer l(dtype);
    const Solution s = l.solve(p, scheme);
    Scheme same = weights(scheme);
    if (s.linear.codebook.defined()) same.bits = s.linear.codebook.bits.min().item<int>();
    const double plain = output_error(l, fake_quantize(l.w, fit_grid(l.w, same))), mine = output_error(l, s.linear.weight());
    if (p.needs().hessian)
      CHECK(mine < plain);
    else
      CHECK(mine == Approx(plain));
  });
}

TEMPLATE_LIST_TEST_CASE("a solver survives outliers, dead channels, constant rows, too few tokens", "[laws]", Solvers) {
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    const auto good = [&](const Layer& l) -> Solution {
      const Solution s = l.solve(p, scheme);
      CHECK(at::isfinite(s.linear.weight()).all().item<bool>());
      for (const auto& [name, value] : s.report) {
        INFO(name);
        CHECK(std::isfinite(value));
      }
      return s;
    };
    Layer outlier(dtype);
    outlier.x.select(2, 3).mul_(1e4), outlier.observe();
    good(outlier);
    Layer dead(dtype);
    dead.x.select(2, 3).zero_(), dead.x.select(2, 20).zero_(), dead.observe();
    const Solution s = good(dead);
    if (p.needs().hessian) CHECK(s.linear.weight().select(1, 3).abs().sum().item<double>() == 0);
    Layer constant(dtype);
    constant.w[0].fill_(0.25), constant.w[1].zero_(), constant.w[2].fill_(-3);
    const Solution flat = good(constant);
    if (!flat.linear.codebook.defined()) CHECK(flat.linear.weight()[1].abs().sum().item<double>() == 0);
    good(Layer(dtype, 2));  // four tokens, twenty-four channels
    Layer one(dtype, 1);
    one.x = one.x.narrow(0, 0, 1), one.observe();
    good(one);
    Layer silent(dtype);
    silent.x.zero_(), silent.observe();
    const Solution none = good(silent);
    if (p.needs().hessian) CHECK(none.linear.weight().abs().sum().item<double>() == 0);
  });
}

TEMPLATE_LIST_TEST_CASE("a solver says where it was given nothing, not a number, or groups that do not fit", "[laws]", Solvers) {
  using Catch::Matchers::ContainsSubstring;
  on_all<TestType>([](const TestType& p, const std::string& scheme, at::ScalarType dtype) {
    Layer l(dtype);
    if (p.needs().hessian) {
      l.stats = {};
      CHECK_THROWS_WITH(l.solve(p, scheme), ContainsSubstring("blocks.1.mlp.up_proj") && ContainsSubstring("no calibration token"));
      l.observe();
      l.stats.hessian[2][3] = std::numeric_limits<double>::quiet_NaN();
      CHECK_THROWS_WITH(l.solve(p, scheme), ContainsSubstring("blocks.1.mlp.up_proj") && ContainsSubstring("NaN"));
      l.observe();
      const std::string why = owns_grid<TestType> ? "a codebook a column" : "do not divide 24";
      CHECK_THROWS_WITH(l.solve(p, "int4:g7"), ContainsSubstring("blocks.1.mlp.up_proj") && ContainsSubstring(why));
    }
    l.w[2][2] = std::numeric_limits<double>::quiet_NaN();
    CHECK_THROWS_WITH(l.solve(p, scheme), ContainsSubstring("NaN"));
  });
}
