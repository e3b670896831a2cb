// Laws of corrections, on every member: each in its own norm, written out here from its formula.
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

constexpr Needs everything{.absmax = true, .extent = true, .profile = true, .square = true, .hessian = true};

/// The metric G of a correction's norm tr (E G Eᵀ), (in, in), from the inputs themselves. x (sequences, tokens, in).
[[maybe_unused]] Tensor metric(const NoCorrection&, const Tensor& x) { return at::eye(x.size(2), at::kDouble); }
Tensor metric(const Lqer&, const Tensor& x) { return at::eye(x.size(2), at::kDouble); }
Tensor metric(const L2qer& p, const Tensor& x) {
  const Tensor wide = x.to(at::kDouble).abs();
  Tensor a;
  if (p.magnitude == Magnitude::mean) a = wide.mean(at::IntArrayRef{0, 1});
  if (p.magnitude == Magnitude::rms) a = wide.square().mean(at::IntArrayRef{0, 1}).sqrt();
  if (p.magnitude == Magnitude::absmax) a = wide.amax(at::IntArrayRef{0, 1});
  if (p.magnitude == Magnitude::batch_max)
    for (int64_t i = 0; i < x.size(0); i += p.batch) {
      const Tensor mean = wide.slice(0, i, std::min(i + p.batch, x.size(0))).mean(at::IntArrayRef{0, 1});
      a = a.defined() ? at::maximum(a, mean) : mean;
    }
  a = a.clamp_min(p.floor);
  return at::diag(a.square() / (a.min() * a.max()));
}
Tensor metric(const Qera& p, const Tensor& x) {
  const Tensor flat = x.reshape({-1, x.size(2)}).to(at::kDouble), r = at::mm(flat.t(), flat) / static_cast<double>(flat.size(0));
  return p.form == QeraForm::exact ? r : at::diag(r.diagonal());
}

double size(const Tensor& e, const Tensor& metric) {  // e (out, in)
  const Tensor wide = e.to(at::kDouble);
  return (at::mm(wide, metric) * wide).sum().item<double>();
}

struct Case {
  const char* name;
  Tensor error, x;  // (out, in), (sequences, tokens, in)
};

/// Wide, tall, with an outlier channel, with dead channels and a repeated one, of one token, of fewer tokens than channels.
std::vector<Case> cases(at::ScalarType dtype) {
  at::manual_seed(4);
  std::vector<Case> all;
  const auto add = [&](const char* name, int64_t out, int64_t in, int64_t sequences, int64_t tokens) -> Tensor& {
    const Tensor mix = at::randn({in, in}, at::kDouble);
    all.push_back({name, (0.02 * at::randn({out, in}, at::kDouble)).to(dtype),
                   at::matmul(at::randn({sequences, tokens, in}, at::kDouble), mix).to(dtype)});
    return all.back().x;
  };
  (void)add("tall", 24, 16, 5, 20);
  (void)add("wide", 6, 16, 5, 20);
  add("outlier", 20, 32, 3, 40).select(2, 5).mul_(100);
  Tensor& dead = add("dead and repeated", 20, 16, 4, 30);
  dead.select(2, 3).zero_(), dead.select(2, 9).zero_(), dead.select(2, 4).copy_(dead.select(2, 5));
  (void)add("one token", 12, 16, 1, 1);
  (void)add("few tokens", 12, 40, 2, 7);
  return all;
}

Statistics statistics(const Tensor& x) {
  Statistics stats;
  for (int64_t i = 0; i < x.size(0); ++i) stats.add(everything, x.narrow(0, i, 1));
  stats.finish();
  return stats;
}

template <class P>
LowRank fit(const P& p, const Tensor& error, const Statistics& stats, const Scheme& factors = {}) {
  Shared shared;
  return p.fit(Residual{"layer", error, &stats, &shared, factors});
}

Tensor product(const LowRank& c, const Tensor& error) {
  return c.defined() ? at::mm(c.a.to(at::kDouble), c.b.to(at::kDouble)).t() : at::zeros_like(error, at::kDouble);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("a correction never increases the residual in its own norm, and is the best of its rank", "[laws]", Corrections) {
  for (const auto dtype : {at::kFloat, at::kDouble})
    for (const Case& c : cases(dtype))
      for (const TestType& p : Variants<TestType>::all()) {
        INFO(label(p) << ", " << c.name << ", " << c10::toString(dtype));
        const Statistics stats = statistics(c.x);
        const LowRank f = fit(p, c.error, stats);
        if constexpr (std::is_same_v<TestType, NoCorrection>) {
          CHECK(!f.defined());
        } else {
          REQUIRE(f.defined());
          const int64_t rank = f.a.size(1);
          CHECK(f.a.size(0) == c.error.size(1));
          CHECK(f.b.sizes() == at::IntArrayRef({rank, c.error.size(0)}));
          CHECK(rank <= std::min({p.rank, c.error.size(0), c.error.size(1)}));
          CHECK(f.bits == 32.0 * static_cast<double>(f.a.numel() + f.b.numel()));
          const Tensor g = metric(p, c.x), ab = product(f, c.error);
          CHECK(at::isfinite(ab).all().item<bool>());
          const double before = size(c.error, g), after = size(c.error.to(at::kDouble) - ab, g);
          const double noise = (dtype == at::kDouble ? 1e-12 : 1e-5) * before;
          CHECK(after <= before + noise);
          // Eckart and Young: the eigenvalues of E G Eᵀ that are left over.
          const Tensor wide = c.error.to(at::kDouble), lambda = at::linalg_eigvalsh(at::mm(at::mm(wide, g), wide.t())).clamp_min(0).flip(0);
          CHECK(std::abs(after - lambda.narrow(0, rank, lambda.numel() - rank).sum().template item<double>()) <= noise);
          if (p.energy > 0) {
            const double all = lambda.sum().template item<double>();
            CHECK(lambda.narrow(0, 0, rank).sum().template item<double>() >= (p.energy - 1e-6) * all);
            CHECK(lambda.narrow(0, 0, rank - 1).sum().template item<double>() <= (p.energy + 1e-6) * all);
          }
          if (p.budget > 0) CHECK(f.bits <= p.budget * static_cast<double>(c.error.numel()));
        }
      }
}

TEMPLATE_LIST_TEST_CASE("a correction of full rank restores the target", "[laws]", Corrections) {
  if constexpr (!std::is_same_v<TestType, NoCorrection>)
    for (TestType p : Variants<TestType>::all()) {
      if (p.energy > 0 || p.budget > 0) continue;
      p.rank = 1000;
      for (const auto dtype : {at::kFloat, at::kDouble})
        for (const Case& c : cases(dtype)) {
          INFO(label(p) << ", " << c.name << ", " << c10::toString(dtype));
          const LowRank f = fit(p, c.error, statistics(c.x));
          const Tensor g = metric(p, c.x), left = c.error.to(at::kDouble) - product(f, c.error);
          CHECK(size(left, g) <= (dtype == at::kDouble ? 1e-20 : 1e-9) * size(c.error, g));
          if (std::string(c.name) == "tall") {
            const double tolerance = dtype == at::kDouble ? 1e-12 : 1e-4;
            CHECK(left.abs().max().template item<double>() <= tolerance * c.error.abs().max().template item<double>());
          }
        }
    }
}

TEMPLATE_LIST_TEST_CASE("a zero error or a rank of zero needs no factors", "[laws]", Corrections) {
  for (TestType p : Variants<TestType>::all()) {
    INFO(label(p));
    const Case c = cases(at::kFloat).front();
    const Statistics stats = statistics(c.x);
    CHECK(!fit(p, at::zeros_like(c.error), stats).defined());
    if constexpr (!std::is_same_v<TestType, NoCorrection>) {
      p.rank = 0;
      CHECK(!fit(p, c.error, stats).defined());
    }
  }
}

TEMPLATE_LIST_TEST_CASE("the product of the factors does not depend on the scale of the inputs", "[laws]", Corrections) {
  if constexpr (!std::is_same_v<TestType, NoCorrection>)
    for (const TestType& p : Variants<TestType>::all())
      for (const Case& c : cases(at::kDouble)) {
        if (std::string(c.name) == "dead and repeated") continue;  // the floor of magnitudes does not scale
        INFO(label(p) << ", " << c.name);
        const Tensor one = product(fit(p, c.error, statistics(c.x)), c.error),
                     other = product(fit(p, c.error, statistics(7.3 * c.x)), c.error);
        CHECK((one - other).abs().max().template item<double>() <= 1e-8 * one.abs().max().template item<double>());
      }
}

TEMPLATE_LIST_TEST_CASE("inputs and errors that are not finite are refused by place", "[laws]", Corrections) {
  if constexpr (!std::is_same_v<TestType, NoCorrection>)
    for (const TestType& p : Variants<TestType>::all()) {
      INFO(label(p));
      Case c = cases(at::kFloat).front();
      const Statistics stats = statistics(c.x);
      Tensor bad = c.error.clone();
      bad[1][2] = std::nanf("");
      CHECK_THROWS_WITH(fit(p, bad, stats), Catch::Contains("layer"));
      if (!p.needs().any()) continue;
      c.x[0][0][0] = std::numeric_limits<float>::infinity();
      CHECK_THROWS_WITH(fit(p, c.error, statistics(c.x)), Catch::Contains("layer"));
      CHECK_THROWS_WITH(fit(p, c.error, Statistics{}), Catch::Contains("no calibration token"));
    }
}

TEMPLATE_LIST_TEST_CASE("a corrected walk runs in every architecture, commits its factors and lowers the error", "[laws]", Corrections) {
  const c10::NoGradGuard off;
  if constexpr (!std::is_same_v<TestType, NoCorrection>)
    for (const Family family : {Family::llama, Family::opt}) {
      const Transformer model = tiny_model(family);
      const Tensor tokens = tiny_tokens();
      const double plain = walk(model, stages(Recipe<>{}), formats("int3"), tokens).reports.front().error;
      for (TestType p : Variants<TestType>::all()) {
        p.rank = std::min<int64_t>(p.rank, 8);
        Recipe<Nearest, NoSmoothing, Mse, Direct, TestType> recipe{};
        recipe.correction = p;
        INFO(name(family) << " " << label(recipe));
        const Kept kept = walk(model, stages(recipe), formats("int3"), tokens);
        for (const QuantizedBlock& block : kept.blocks)
          for (const QuantizedLinear& l : block.linears) {
            CHECK(l.correction.defined());
            CHECK(l.bits().extra == l.correction.bits);
          }
        CHECK(kept.reports.front().error < plain);
      }
    }
}

TEMPLATE_LIST_TEST_CASE("a correction composes with every solver, rounding and smoothing", "[laws]", Corrections) {
  const c10::NoGradGuard off;
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens();
  Precision precision = formats("int3", "int8:token");
  precision.factors = weights("mxint8:b16");
  const auto run = [&]<class R, class S, class V>(const R&, const S& smoothing, const V& solver) {
    Recipe<R, S, Mse, V, TestType> recipe{};
    recipe.smoothing = smoothing, recipe.solver = solver;
    recipe.learning.steps = 1;
    if constexpr (!std::is_same_v<TestType, NoCorrection>) recipe.correction.rank = 4;
    INFO(label(recipe));
    const Kept kept = walk(model, stages(recipe), precision, tokens);
    CHECK(kept.blocks.size() == 2);
    for (const BlockReport& r : kept.reports) CHECK(std::isfinite(r.error));
    for (const QuantizedBlock& block : kept.blocks)
      for (const QuantizedLinear& l : block.linears) CHECK(l.correction.defined() == !std::is_same_v<TestType, NoCorrection>);
  };
  std::apply(
      [&](const auto&... solvers) {
        (run(Nearest{}, NoSmoothing{}, solvers), ...);
        (run(Nearest{}, SmoothQuant{.sites = SmoothSites::all, .fold = false}, solvers), ...);
        (run(ToyDivisor{}, NoSmoothing{}, solvers), ...);
      },
      Solvers{});
}
