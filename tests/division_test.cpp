// What FlexRound and LRQ learn on one layer whose inputs are correlated: how far the error falls, what moves, what must not matter.
// The layer and the bounds are those of a reference implementation measured on it: 128 × 256 weights, 2048 inputs of rank 16 and noise.
#include <ptq/core/minimize.hpp>
#include <ptq/loss.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/stages.hpp>

#include <random>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Layer {
  Tensor w, x, held_out;  // (128, 256), (2048, 256) each

  explicit Layer(bool correlated = true, uint64_t seed = 1) {
    at::manual_seed(seed);
    w = 0.02 * at::randn({128, 256});
    const Tensor mix = at::randn({16, 256}) / 4;
    const auto inputs = [&] {
      return correlated ? at::mm(at::randn({2048, 16}), mix) + 0.3 * at::randn({2048, 256}) : at::randn({2048, 256});
    };
    x = inputs(), held_out = inputs();
  }
  [[nodiscard]] static double error(const Tensor& input, const Tensor& difference) {
    return at::mm(input, difference.t()).square().mean().item<double>();
  }
};

struct Result {
  double train, held_out;  ///< output error over plain rounding's on the same grid
  Tensor moved;            // (128, 256) steps between each code and plain rounding's
  Descent descent;
  NamedTensors state;
};

struct Setting {
  int64_t steps = 1000;
  Mse loss{Reduce::sum};
  Iterate keep = Iterate::last;
  bool track = false;
};

template <class P>
Result learn(const P& policy, const Layer& layer, const std::string& format, const Setting& how = {}) {
  const c10::NoGradGuard off;
  const Scheme scheme = weights(format + ":range=flexround");
  NamedTensors state = policy.start(layer.w, scheme);
  const Tensor start = policy.weight(state, layer.w, scheme);
  const auto codes = [&] {
    const Coordinates at = policy.coordinates(state, layer.w, scheme);
    return quantize(layer.w, *at.grid, at.divisor).to(at::kInt);
  };
  const Tensor before = codes();
  std::vector<ParameterGroup> groups;
  for (const Learnable& l : policy.learnable()) {
    groups.push_back({{}, l.rate});
    for (const std::string& name : l.names)
      if (state.count(name) > 0) groups.back().tensors.push_back(state.at(name));
  }
  std::mt19937_64 random(3);
  const auto loss = [&](int64_t) {
    std::vector<int64_t> rows(256);
    for (int64_t& r : rows) r = static_cast<int64_t>(random() % 2048);
    const Tensor batch = layer.x.index_select(0, at::tensor(rows)).unsqueeze(0);  // (1, 256, 256)
    return how.loss(at::linear(batch, layer.w), at::linear(batch, policy.weight(state, layer.w, scheme)));
  };
  Learning learning{.schedule = Schedule::cosine, .keep = how.keep};
  Tracking tracking;
  if (how.track) tracking = {[&] { return Layer::error(layer.x, policy.weight(state, layer.w, scheme) - layer.w); }, 50};
  const double epsilon = how.loss.averages() ? learning.epsilon / 256 : learning.epsilon;
  Result r;
  r.descent = minimise(groups, learning, how.steps, epsilon, loss, "layer", tracking);
  const Tensor end = policy.weight(state, layer.w, scheme);
  r.train = Layer::error(layer.x, end - layer.w) / Layer::error(layer.x, start - layer.w);
  r.held_out = Layer::error(layer.held_out, end - layer.w) / Layer::error(layer.held_out, start - layer.w);
  r.moved = (codes() - before).abs();
  r.state = state;
  INFO(label(policy) << " " << format << ": train " << r.train << ", held out " << r.held_out);
  CHECK(std::isfinite(r.train));
  return r;
}

Lrq lrq(int64_t rank, double rate = 1e-3) { return {.rate = rate, .ranks = RankRule::fixed, .rank = rank}; }

}  // namespace

TEST_CASE("FlexRound and LRQ lower the error of a layer as far as measured elsewhere, on held-out inputs too") {
  const Layer layer;
  const auto below = [](const Result& r, double bound) {
    CHECK(r.train <= bound);
    CHECK(r.held_out <= bound);
    CHECK(r.train > 0.02);
  };
  const Result four = learn(FlexRound{.rate = 1e-3}, layer, "int4"), three = learn(FlexRound{.rate = 3e-3}, layer, "int3");
  below(four, 0.20);
  below(three, 0.14);
  below(learn(lrq(32), layer, "int4"), 0.26);
  below(learn(lrq(32, 3e-3), layer, "int3"), 0.17);
  SECTION("the learned step matters") {
    const Result frozen = learn(FlexRound{.rate = 1e-3, .step_rate = 0}, layer, "int4");
    CHECK(frozen.train >= 1.3 * four.train);
    CHECK(at::equal(frozen.state.at("l1"), FlexRound{}.start(layer.w, weights("int4:range=flexround")).at("l1")));
  }
  SECTION("codes move farther than to the neighbour") {
    const Result far = learn(FlexRound{.rate = 3e-3}, layer, "int4");
    CHECK(far.moved.ge(2).to(at::kDouble).mean().item<double>() >= 0.01);
    const double changed = four.moved.ge(1).to(at::kDouble).mean().item<double>();
    CHECK(changed > 0.3);
    CHECK(changed < 0.5);
  }
}

TEST_CASE("more rank errs less, and full rank about as little as FlexRound") {
  const Layer layer;
  double before = 1;
  for (const int64_t rank : {8, 16, 32, 64, 128}) {
    const double error = learn(lrq(rank), layer, "int4", {.steps = 600}).train;
    INFO("rank " << rank << ": " << error << " after " << before);
    CHECK(error <= 1.05 * before);
    before = error;
  }
  CHECK(before <= 1.3 * learn(FlexRound{.rate = 1e-3}, layer, "int4", {.steps = 600}).train);
}

TEST_CASE("neither the scale of the inputs nor sum or mean over tokens changes what is learned") {
  const Layer layer;
  const double usual = learn(FlexRound{.rate = 1e-3}, layer, "int4").train;
  for (const double scale : {0.1, 0.01}) {
    Layer small = layer;
    small.x = scale * layer.x;
    CHECK(learn(FlexRound{.rate = 1e-3}, small, "int4").train == Approx(usual).epsilon(0.1));
  }
  // 256 tokens are a power of two, so the two losses differ by an exact factor, and epsilon with them.
  const Result sum = learn(FlexRound{.rate = 1e-3}, layer, "int4", {.steps = 50}),
               mean = learn(FlexRound{.rate = 1e-3}, layer, "int4", {.steps = 50, .loss = {Reduce::mean}});
  for (const char* name : {"l1", "A", "rho"}) CHECK(at::equal(sum.state.at(name), mean.state.at(name)));
}

TEST_CASE("on inputs without correlation the best iterate is no worse than plain rounding, where the last may be") {
  const Layer layer(/*correlated=*/false);
  const Result best = learn(FlexRound{.rate = 1e-3}, layer, "int4", {.steps = 400, .keep = Iterate::best, .track = true});
  CHECK(best.train <= 1);
  CHECK(best.descent.tracked.back() <= best.descent.tracked.front());
  CHECK(learn(FlexRound{.rate = 1e-2}, layer, "int4", {.steps = 400}).train > 1);
}

TEST_CASE("the same seed gives the same codes") {
  const Layer layer;
  const Result a = learn(lrq(8), layer, "int3", {.steps = 40}), b = learn(lrq(8), layer, "int3", {.steps = 40});
  CHECK(at::equal(a.moved, b.moved));
  for (const auto& [name, t] : a.state) CHECK(at::equal(t, b.state.at(name)));
}
