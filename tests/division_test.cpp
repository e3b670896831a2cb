// What FlexRound and LRQ learn on one layer whose inputs are correlated: how far the error falls, what moves, what must not matter.
// The layer and the bounds are those of a reference implementation measured on it: 128 × 256 weights, 2048 inputs of rank 16 and noise.
#include <ptq/core/minimize.hpp>
#include <ptq/loss.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/stages.hpp>

#include <algorithm>
#include <cmath>
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
    const auto normal = [](at::IntArrayRef shape) { return at::randn(shape, at::kDouble); };  // the same numbers on every processor
    w = (0.02 * normal({128, 256})).to(at::kFloat);
    const Tensor mix = normal({16, 256}) / 4;
    const auto inputs = [&] {
      const Tensor noise = normal({2048, 256});
      return (correlated ? at::mm(normal({2048, 16}), mix) + 0.3 * noise : noise).to(at::kFloat);
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
  const Tensor zero = state.at("zero").clone();
  r.descent = minimise(groups, learning, how.steps, epsilon, loss, "layer", tracking);
  const Tensor end = policy.weight(state, layer.w, scheme);
  CHECK(at::equal(state.at("zero"), zero));
  const Tensor signed_codes = end.to(at::kDouble) / state.at("l1").to(at::kDouble).exp(), u = signed_codes.round() + zero;
  CHECK((signed_codes - signed_codes.round()).abs().max().item<double>() <= 1e-5);
  CHECK(u.min().item<double>() >= 0);
  CHECK(u.max().item<double>() <= (1 << scheme.bits) - 1);
  r.train = Layer::error(layer.x, end - layer.w) / Layer::error(layer.x, start - layer.w);
  r.held_out = Layer::error(layer.held_out, end - layer.w) / Layer::error(layer.held_out, start - layer.w);
  r.moved = (codes() - before).abs();
  r.state = state;
  INFO(label(policy) << " " << format << ": train " << r.train << ", held out " << r.held_out);
  CHECK(std::isfinite(r.train));
  return r;
}

double largest(const Tensor& t) { return t.abs().max().item<double>(); }

Lrq lrq(int64_t rank, double rate = 1e-3) { return {.rate = rate, .ranks = RankRule::fixed, .rank = rank}; }

}  // namespace

TEST_CASE("at their start FlexRound and LRQ have the codes of rounding to nearest, bit for bit, ties of narrow weights included") {
  int64_t ties = 0;
  for (const char* text : {"int4:range=flexround", "int3:range=flexround", "int8:range=flexround", "int4:sym:range=flexround",
                           "int3:range=flexround:search", "int4:tensor:range=flexround"})
    for (const auto source : {at::kFloat, at::kHalf, at::kBFloat16}) {
      INFO(text << " of weights in " << c10::toString(source));
      at::manual_seed(11);
      const Scheme scheme = weights(text);
      Tensor w = (0.02 * at::randn({24, 160}, at::kDouble)).to(at::kFloat);
      const int64_t levels = int64_t{1} << scheme.bits;
      for (int64_t r = 0; r < 8; ++r) {  // halves of a step that is a power of two, over the whole range of codes
        w[r] = (at::randint(-levels, levels - 1, {160}).to(at::kFloat) / 2) * std::ldexp(1.0, static_cast<int>(r) - 12);
        w[r][0] = -static_cast<double>(levels) / 2 * std::ldexp(1.0, static_cast<int>(r) - 12);
        w[r][1] = (static_cast<double>(levels) / 2 - 1) * std::ldexp(1.0, static_cast<int>(r) - 12);
      }
      w = w.to(source).to(at::kFloat);
      const FlexRound flex;
      const Lrq low{.ranks = RankRule::fixed, .rank = 5};
      const NamedTensors one = flex.start(w, scheme), two = low.start(w, scheme);
      const Coordinates a = flex.coordinates(one, w, scheme), b = low.coordinates(two, w, scheme);
      const Tensor codes = quantize(w, *a.grid, a.divisor);
      CHECK(at::equal(codes, quantize(w, *b.grid, b.divisor)));
      CHECK(at::equal(flex.weight(one, w, scheme), low.weight(two, w, scheme)));
      const Tensor s = a.grid->scale;  // exp(l1), in float32
      CHECK((s.to(at::kDouble).log() - one.at("l1")).abs().max().item<double>() < 1e-6);
      int64_t wrong = 0;
      for (int64_t r = 0; r < w.size(0); ++r) {
        const int64_t of = s.size(0) == 1 ? 0 : r;
        const float step = s[of].item<float>(), *row = w[r].const_data_ptr<float>();
        const int zero = a.grid->zero[of].item<int>();
        if (!scheme.search && !scheme.symmetric && scheme.granularity == Granularity::channel) {  // min-max, zero within
          const float lo = std::min(w[r].min().item<float>(), 0.0f), hi = std::max(w[r].max().item<float>(), 0.0f);
          CHECK(step == Approx((hi - lo) / static_cast<float>(levels - 1)).epsilon(1e-6));
          CHECK(zero == static_cast<int>(-std::nearbyint(lo / ((hi - lo) / static_cast<float>(levels - 1)))));
        }
        for (int64_t c = 0; c < w.size(1); ++c) {
          const float quotient = row[c] / step;
          ties += std::abs(quotient - std::trunc(quotient)) == 0.5f;
          const int expected = std::clamp(static_cast<int>(std::nearbyint(quotient)) + zero, a.grid->lowest, a.grid->highest);
          wrong += expected != codes[r].const_data_ptr<uint8_t>()[c] + a.grid->lowest;
        }
      }
      CHECK(wrong == 0);
    }
  CHECK(ties > 500);
}

TEST_CASE("gradients of FlexRound and LRQ are those of their formulas, one weight at a time, where weights are clipped too") {
  at::manual_seed(12);
  const Tensor w = at::randn({9, 16}, at::kDouble), g = at::randn({9, 16}, at::kDouble);
  const auto compare = [&](const auto& policy, const char* text) {
    INFO(label(policy) << " " << text);
    const Scheme scheme = weights(text);
    NamedTensors state = policy.start(w, scheme), expected;
    for (auto& [name, t] : state) {
      if (name != "zero") t = t + (name == "l1" ? 0.1 : 0.3) * at::randn_like(t), expected[name] = at::zeros_like(t);
    }
    Tensor t = state.at("rho").expand({9, 16});
    if (state.count("A") > 0) t = t + state.at("A");
    if (state.count("L") > 0) t = t + state.at("L").mm(state.at("U")) + state.at("gamma");
    int64_t clipped = 0;
    const int64_t each = 16 / state.at("l1").size(1);
    const int lowest = scheme.symmetric ? -(1 << (scheme.bits - 1)) : 0, highest = lowest + (1 << scheme.bits) - 1;
    for (int64_t i = 0; i < 9; ++i)
      for (int64_t j = 0; j < 16; ++j) {
        const int64_t row = state.at("l1").size(0) == 1 ? 0 : i, group = j / each;
        const double l1 = state.at("l1")[row][group].item<double>(), s = std::exp(l1);
        const double v = w[i][j].item<double>() / std::exp(l1 + t[i][j].item<double>()), k = std::nearbyint(v);
        const double z = state.at("zero")[row][group].item<double>(), up = g[i][j].item<double>();
        const double q = std::clamp(k, lowest - z, highest - z), m = q == k ? 1 : 0;
        clipped += m == 0;
        const double d = -up * s * m * v;
        expected["l1"][row][group] += up * s * (q - m * v), expected["rho"][i][0] += d;
        if (state.count("A") > 0) expected["A"][i][j] += d;
        if (state.count("L") == 0) continue;
        expected["L"][i] += d * state.at("U").select(1, j), expected["U"].select(1, j) += d * state.at("L")[i],
            expected["gamma"][0][j] += d;
      }
    CHECK(clipped >= 2);  // of 144
    const c10::AutoGradMode on(true);
    for (auto& [name, leaf] : state)
      if (name != "zero") leaf = leaf.clone().requires_grad_(true);
    (policy.weight(state, w, scheme) * g).sum().backward();
    for (const auto& [name, e] : expected) {
      INFO(name);
      CHECK(largest(state.at(name).grad() - e) < 1e-12 * largest(e));
    }
  };
  for (const char* text : {"int3:range=flexround", "int2:range=flexround", "int3:g8:range=flexround", "int3:sym:range=flexround",
                           "int3:tensor:range=flexround"}) {
    compare(FlexRound{}, text);
    compare(Lrq{.ranks = RankRule::fixed, .rank = 3}, text);
  }
}

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
    CHECK(learn(FlexRound{.rate = 1e-3}, small, "int4").train == Approx(usual).epsilon(0.2));
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

TEST_CASE("codes decided in float16 differ from the committed ones in few places, and err more") {
  double wide = 0, narrow = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    Layer layer(true, seed);
    layer.w = layer.w.to(at::kHalf).to(at::kFloat);  // as checkpoints hold weights
    const Result r = learn(FlexRound{.rate = 1e-3}, layer, "int4", {.steps = 300});
    const Scheme scheme = weights("int4:range=flexround");
    const Coordinates at = FlexRound{}.coordinates(r.state, layer.w, scheme);
    const Tensor codes = quantize(layer.w, *at.grid, at.divisor), step = r.state.at("l1").exp();
    const auto half = [](const Tensor& t) { return t.to(at::kHalf).to(at::kFloat); };
    const Tensor quotient = half(half(layer.w) / half(at.divisor));
    const Tensor other = (quotient.round() + at.grid->zero).clamp(at.grid->lowest, at.grid->highest);
    const double differ = other.ne(codes).to(at::kDouble).mean().item<double>();
    INFO("seed " << seed << ": " << 100 * differ << " % of codes");
    CHECK(differ > 0);
    CHECK(differ < 0.03);  // learning leaves weights near the ends of their cells
    const Tensor rounded = half(half(step) * (other - at.grid->zero));
    wide += Layer::error(layer.x, FlexRound{}.weight(r.state, layer.w, scheme) - layer.w),
        narrow += Layer::error(layer.x, rounded - layer.w);
  }
  CHECK(wide < narrow);
}
