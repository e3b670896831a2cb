// The optimizer against its formula written out, schedules, what is kept, divergence.
#include <ptq/core/minimize.hpp>

#include <algorithm>
#include <cmath>

#include "catch.hpp"

using namespace ptq;
using Catch::Matchers::ContainsSubstring;

namespace {

Tensor half_square(const Tensor& p, const Tensor& target, const Tensor& scale) { return (scale * (p - target).square()).sum() / 2; }

/// Adam or AdamW on Σ cᵢ (pᵢ − tᵢ)² / 2, element by element in double.
std::vector<double> by_hand(std::vector<double> p, const std::vector<double>& t, const std::vector<double>& c, const Learning& how,
                            double rate, double epsilon, int64_t steps) {
  std::vector<double> m(p.size(), 0), v(p.size(), 0);
  for (int64_t s = 0; s < steps; ++s) {
    const double lr =
        how.schedule == Schedule::cosine ? rate * 0.5 * (1 + std::cos(M_PI * static_cast<double>(s) / static_cast<double>(steps))) : rate;
    for (size_t i = 0; i < p.size(); ++i) {
      const double gradient = c[i] * (p[i] - t[i]), k = static_cast<double>(s + 1);
      if (how.optimizer == Optimizer::adamw) p[i] -= lr * how.decay * p[i];
      m[i] = how.beta1 * m[i] + (1 - how.beta1) * gradient;
      v[i] = how.beta2 * v[i] + (1 - how.beta2) * gradient * gradient;
      p[i] -= lr / (1 - std::pow(how.beta1, k)) * m[i] / (std::sqrt(v[i]) / std::sqrt(1 - std::pow(how.beta2, k)) + epsilon);
    }
  }
  return p;
}

}  // namespace

TEST_CASE("updates are those of Adam and AdamW written out, each group at its rate") {
  const std::vector<double> start{1, -2, 0.5}, target{0, 1, 0.5}, scale{1, 10, 1e-6};
  for (const auto optimizer : {Optimizer::adam, Optimizer::adamw})
    for (const auto schedule : {Schedule::constant, Schedule::cosine}) {
      Learning how{
          .optimizer = optimizer, .schedule = schedule, .beta1 = 0.8, .beta2 = 0.95, .decay = optimizer == Optimizer::adamw ? 0.1 : 0};
      Tensor a = at::tensor(start), b = at::tensor(start);
      const Tensor t = at::tensor(target), c = at::tensor(scale);
      const auto curve =
          minimise(
              {{{a}, 0.01}, {{b}, 0.2}}, how, 7, 1e-3, [&](int64_t) { return half_square(a, t, c) + half_square(b, t, c); }, "here")
              .losses;
      CHECK(at::allclose(a, at::tensor(by_hand(start, target, scale, how, 0.01, 1e-3, 7)), 1e-10, 1e-12));
      CHECK(at::allclose(b, at::tensor(by_hand(start, target, scale, how, 0.2, 1e-3, 7)), 1e-10, 1e-12));
      CHECK(curve.size() == 7);
      CHECK(curve.front() == Approx(2 * (0.5 + 45)));
      CHECK(!a.requires_grad());
    }
}

TEST_CASE("without decay a parameter of no gradient does not move, and a rate falls to zero only behind the last update") {
  for (const auto optimizer : {Optimizer::adam, Optimizer::adamw}) {
    Tensor still = at::tensor({1.0, -2.0}), moving = at::tensor({1.0});
    const Tensor before = still.clone();
    (void)minimise(
        {{{still, moving}, 0.1}}, {.optimizer = optimizer}, 5, 1e-8, [&](int64_t) { return (still * 0).sum() + moving.square().sum(); },
        "here");
    CHECK(at::equal(still, before));
    CHECK(moving.item<double>() < 0.6);
  }
  std::vector<double> path;  // a constant gradient moves p by the rate of the moment
  Tensor p = at::tensor({0.0});
  (void)minimise(
      {{{p}, 1e-2}}, {.schedule = Schedule::cosine, .beta1 = 0, .beta2 = 0}, 8, 1e-12,
      [&](int64_t) { return path.push_back(p.item<double>()), p.sum(); }, "here");
  path.push_back(p.item<double>());
  REQUIRE(path.size() == 9);
  for (size_t t = 0; t < 8; ++t)
    CHECK(path[t] - path[t + 1] == Approx(1e-2 * 0.5 * (1 + std::cos(M_PI * static_cast<double>(t) / 8))).epsilon(1e-9));
  CHECK(path[7] - path[8] > 0);
}

TEST_CASE("the best iterate is the one of the lowest loss, the last is the last") {
  for (const auto keep : {Iterate::best, Iterate::last}) {
    Tensor p = at::tensor({1.0});
    const Tensor zero = at::zeros({1}, at::kDouble), one = at::ones({1}, at::kDouble);
    std::vector<double> seen;
    const auto curve = minimise(
                           {{{p}, 0.7}}, {.keep = keep}, 6, 1e-8,
                           [&](int64_t) { return seen.push_back(p.item<double>()), half_square(p, zero, one); }, "here")
                           .losses;
    double best = seen.front();
    for (const double s : seen)
      if (s * s < best * best) best = s;
    if (keep == Iterate::best)
      CHECK(p.item<double>() == best);
    else
      CHECK(p.item<double>() != seen.back());
    CHECK(curve.size() == 6);
  }
}

TEST_CASE("divergence is one error that names the place, the step and what to do") {
  Tensor p = at::tensor({1.0});
  CHECK_THROWS_WITH(minimise(
                        {{{p}, 1e200}}, {}, 9, 1e-8, [&](int64_t) { return p.square().exp().sum(); }, "block 3"),
                    ContainsSubstring("block 3") && ContainsSubstring("step 1") && ContainsSubstring("lower the learning rate"));
  Tensor q = at::tensor({1.0});
  const auto stops = [&](int64_t step) {
    if (step == 2) fail("activation rounding holds NaN");
    return q.square().sum();
  };
  CHECK_THROWS_WITH(minimise({{{q}, 0.1}}, {}, 9, 1e-8, stops, "block 4"), ContainsSubstring("block 4") && ContainsSubstring("step 2") &&
                                                                               ContainsSubstring("holds NaN") &&
                                                                               ContainsSubstring("lower the learning rate"));
}

TEST_CASE("nothing is touched by zero steps") {
  Tensor p = at::tensor({1.0, 2.0});
  const Tensor before = p.clone();
  CHECK(minimise(
            {{{p}, 0.1}}, {}, 0, 1e-8, [&](int64_t) { return p.sum(); }, "here")
            .losses.empty());
  CHECK(at::equal(p, before));
}

TEST_CASE("the tracked loss is looked at from the start to what is kept, and the best of the looks is kept") {
  const Tensor zero = at::zeros({1}, at::kDouble), one = at::ones({1}, at::kDouble);
  for (const auto keep : {Iterate::best, Iterate::last}) {
    Tensor p = at::tensor({1.0});
    // Mini-batches pull p to 2, the tracked data want it at 1.2.
    const Tracking tracking{[&] { return std::abs(p.item<double>() - 1.2); }, 3};
    const auto pull = [&](int64_t) { return half_square(p, 2 * one, one); };
    const Descent done = minimise({{{p}, 0.1}}, {.keep = keep}, 10, 1e-8, pull, "here", tracking);
    CHECK(done.losses.size() == 10);
    REQUIRE(done.tracked.size() == (keep == Iterate::best ? 6U : 5U));  // before steps 0, 3, 6, 9, after the last, and what is kept
    CHECK(done.tracked.front() == Approx(0.2));
    CHECK(done.tracked.back() == std::abs(p.item<double>() - 1.2));
    if (keep == Iterate::best)
      CHECK(done.tracked.back() == *std::min_element(done.tracked.begin(), done.tracked.end()));
    else
      CHECK(p.item<double>() > 1.5);
  }
}

TEST_CASE("a tracked loss that grows beyond the bound is a divergence with the rate in its sentence") {
  const auto run = [](double growth) {
    Tensor p = at::tensor({1.0});
    return minimise({{{p}, 3.5}}, {.growth = growth}, 4, 1e-8, [&](int64_t) { return p.square().sum(); }, "block 7",
                    {[&] { return p.square().item<double>(); }, 1});
  };
  CHECK_THROWS_AS(run(5), Diverged);
  CHECK_THROWS_WITH(run(5), ContainsSubstring("block 7") && ContainsSubstring("rate 3.5") && ContainsSubstring("grew from 1 to 6.2"));
  CHECK(run(0).tracked.size() == 5);
  Tensor p = at::tensor({1.0});  // the last update is not the last look
  CHECK_THROWS_AS(minimise({{{p}, 1e308}}, {}, 1, 1e-300, [&](int64_t) { return (p * 1e10).sum(); }, "here", {}), Diverged);
}
