// FlexRound: what its divisors can and cannot do; hostile rows and numbers; the published schedule.
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>

#include <set>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const char* const formats_of_test[] = {"int2:range=flexround",
                                       "int3:range=flexround:search",
                                       "int4:sym:range=flexround",
                                       "int5:g8:range=flexround",
                                       "int6",
                                       "int7:sym",
                                       "int8:tensor:range=flexround",
                                       "int4:g4:sym"};

NamedTensors random_state(const FlexRound& policy, const Tensor& w, const Scheme& scheme, double size = 0.3) {
  NamedTensors state = policy.start(w, scheme);
  for (auto& [name, t] : state)
    if (name != "zero") t = t + size * at::randn_like(t);
  return state;
}

Tensor signed_codes(const FlexRound& policy, const NamedTensors& state, const Tensor& w, const Scheme& scheme) {
  const Coordinates at = policy.coordinates(state, w, scheme);
  const Tensor zero = at.grid->zero.repeat_interleave(w.size(1) / at.grid->groups(), 1);  // (rows or 1, cols)
  return quantize(w, *at.grid, at.divisor).to(at::kInt) + at.grid->lowest - zero;
}

}  // namespace

TEST_CASE("zero stays zero and no sign ever flips, whatever was learned") {
  at::manual_seed(1);
  for (const char* format : formats_of_test) {
    INFO(format);
    Tensor w = at::randn({12, 24}, at::kDouble);
    w.index_put_({at::randn({12, 24}).gt(1)}, at::zeros({}, at::kDouble));
    w[2].zero_();
    const Scheme scheme = weights(format);
    const FlexRound policy;
    const NamedTensors state = random_state(policy, w, scheme);
    const Tensor q = policy.weight(state, w, scheme), k = signed_codes(policy, state, w, scheme);
    CHECK(q.masked_select(w.eq(0)).eq(0).all().item<bool>());
    CHECK((q * w).ge(0).all().item<bool>());
    const Tensor steps = q / state.at("l1").exp().repeat_interleave(24 / state.at("l1").size(1), 1);  // values lie on the learned grid
    CHECK(at::allclose(steps, k.to(at::kDouble), 0, 1e-9));
  }
}

TEST_CASE("the step alone multiplies back: a row factor changes codes, not the grid") {
  at::manual_seed(2);
  const Tensor w = at::randn({8, 32}, at::kDouble);
  const Scheme scheme = weights("int4:range=flexround");
  const FlexRound policy;
  NamedTensors state = policy.start(w, scheme);
  const Coordinates before = policy.coordinates(state, w, scheme);
  const Tensor k = signed_codes(policy, state, w, scheme);
  state["rho"] = state["rho"] + 0.2;
  const Coordinates after = policy.coordinates(state, w, scheme);
  CHECK(at::equal(before.grid->scale, after.grid->scale));
  CHECK(at::equal(before.grid->zero, after.grid->zero));
  CHECK(!at::equal(k, signed_codes(policy, state, w, scheme)));
  CHECK(at::equal(k, signed_codes(policy, policy.start(w, scheme), w, scheme)));
}

TEST_CASE("gradients of the smooth surrogate are those of central differences") {
  at::manual_seed(3);
  const Tensor w = at::randn({4, 8}, at::kDouble), g = at::randn({4, 8}, at::kDouble);
  const Scheme scheme = weights("int3:range=flexround");
  const FlexRound policy;
  const NamedTensors state = random_state(policy, w, scheme, 0.1);
  const double h = 1e-6;
  const c10::AutoGradMode on(true);
  NamedTensors leaves = state;
  leaves["l1"] = state.at("l1").clone().requires_grad_(true);
  leaves["A"] = state.at("A").clone().requires_grad_(true);
  (policy.weight(leaves, w, scheme) * g).sum().backward();
  const Tensor v = w / policy.coordinates(state, w, scheme).divisor, s = state.at("l1").exp();
  const Tensor k = signed_codes(policy, state, w, scheme).to(at::kDouble), m = k.eq(v.round()).to(at::kDouble);
  const auto surrogate = [&](const NamedTensors& at) {  // rounding adds a constant, the clamp is one where it is active
    const Tensor coordinate = w / (at.at("l1") + at.at("A") + at.at("rho")).exp();
    return (at.at("l1").exp() * (m * (coordinate + (k - v)) + (1 - m) * k) * g).sum().item<double>();
  };
  for (const char* name : {"l1", "A"})
    for (int64_t i = 0; i < state.at(name).numel(); ++i) {
      NamedTensors up = state, down = state;
      up[name] = state.at(name).clone(), down[name] = state.at(name).clone();
      up[name].view(-1)[i] += h, down[name].view(-1)[i] -= h;
      CHECK(leaves[name].grad().reshape(-1)[i].item<double>() ==
            Approx((surrogate(up) - surrogate(down)) / (2 * h)).epsilon(1e-6).margin(1e-8));
    }
}

TEST_CASE("a rounded coordinate on the clamp's end passes its gradient, one beyond does not") {
  const Scheme scheme = weights("int3:range=flexround");
  Tensor w = at::tensor({-3.0, -1.0, 0.0, 4.0}).view({1, 4});  // step 1, zero point 3: codes −3 … 4
  const FlexRound policy;
  NamedTensors state = policy.start(w, scheme);
  REQUIRE(state.at("l1").item<double>() == Approx(0).margin(1e-15));
  w = at::tensor({-3.4, -3.6, 4.4, 4.6}).view({1, 4});  // rounded: −3 on the end, −4 beyond, 4 on the end, 5 beyond
  const c10::AutoGradMode on(true);
  state["A"].requires_grad_(true);
  policy.weight(state, w, scheme).sum().backward();
  const Tensor d = state["A"].grad();  // −s m v
  CHECK(at::allclose(d, at::tensor({3.4, 0.0, -4.4, 0.0}).view({1, 4}), 1e-12, 1e-12));
}

TEST_CASE("a bound keeps divisors near the step, and parameters beyond it get no gradient") {
  at::manual_seed(4);
  const Tensor w = at::randn({6, 20}, at::kDouble);
  const Scheme scheme = weights("int4:range=flexround");
  const FlexRound policy{.bound = 0.1};
  NamedTensors state = random_state(policy, w, scheme, 0.2);
  const Tensor ratio = policy.coordinates(state, w, scheme).divisor / state.at("l1").exp();
  CHECK(ratio.log().abs().max().item<double>() <= 0.1 + 1e-12);
  const Tensor held = (state.at("A") + state.at("rho")).abs().gt(0.1);
  REQUIRE(held.any().item<bool>());
  const c10::AutoGradMode on(true);
  state["A"].requires_grad_(true);
  policy.weight(state, w, scheme).square().sum().backward();
  CHECK(state["A"].grad().masked_select(held).eq(0).all().item<bool>());
  CHECK(state["A"].grad().ne(0).any().item<bool>());
}

TEST_CASE("zero rows, dead channels, one row, one column: finite everywhere, through a whole walk too") {
  for (const char* format : formats_of_test)
    for (const auto& shape : {std::pair{1, 24}, {7, 24}, {24, 24}}) {
      INFO(format << " " << shape.first << " x " << shape.second);
      Tensor w = at::randn({shape.first, shape.second});
      w[0].zero_(), w.select(1, 3).zero_();
      const FlexRound policy;
      const Scheme scheme = weights(format);
      const c10::AutoGradMode on(true);
      NamedTensors state = policy.start(w, scheme);
      for (const char* name : {"l1", "A", "rho"}) state[name].requires_grad_(true);
      policy.weight(state, w, scheme).sum().backward();
      for (const char* name : {"l1", "A", "rho"}) CHECK(at::isfinite(state[name].grad()).all().item<bool>());
    }
  const Scheme one = weights("int4:range=flexround");
  CHECK(FlexRound{}.weight(FlexRound{}.start(at::ones({5, 1}), one), at::ones({5, 1}), one).sizes() == at::IntArrayRef({5, 1}));
}

TEST_CASE("a rate of zero changes nothing, a huge one is an error that names block and rate, and a bad one is refused") {
  const Transformer model = tiny_model(Family::llama);
  const Tensor tokens = tiny_tokens(4, 12);
  const auto run = [&](double rate) {
    Recipe<FlexRound> r = methods::flexround;
    r.rounding.rate = rate, r.learning.steps = 20;
    return walk(model, stages(r), formats("int3:range=flexround"), tokens);
  };
  const Kept still = run(0), plain = walk(model, stages(Recipe<>{}), formats("int3:range=flexround"), tokens);
  CHECK(still.reports[0].losses.empty());
  for (size_t i = 0; i < still.blocks[0].linears.size(); ++i)
    CHECK(at::equal(still.blocks[0].linears[i].codes, plain.blocks[0].linears[i].codes));
  for (const double rate : {1e3, 1e30, 1e300})
    CHECK_THROWS_WITH(run(rate),
                      ContainsSubstring("block 0") && ContainsSubstring("with rate 1") && ContainsSubstring("lower the learning rate"));
  CHECK_THAT(refuses(Recipe<FlexRound>{.rounding = {.rate = -1}}, formats("int4")), ContainsSubstring("rounding.rate"));
  CHECK_THAT(refuses(Recipe<FlexRound>{.rounding = {.rate = std::nan("")}}, formats("int4")), ContainsSubstring("rounding.rate"));
  CHECK_THAT(refuses(Recipe<FlexRound>{.rounding = {.step_rate = -1}}, formats("int4")), ContainsSubstring("rounding.step_rate"));
  CHECK_THAT(refuses(Recipe<FlexRound>{.rounding = {.bound = 0}}, formats("int4")), ContainsSubstring("rounding.bound"));
}

TEST_CASE("a step that has left the numbers is an error, not a code") {
  const Tensor w = at::randn({3, 8});
  const Scheme scheme = weights("int4:range=flexround");
  for (const double log : {-300.0, 300.0, std::nan("")}) {
    NamedTensors state = FlexRound{}.start(w, scheme);
    state["l1"][1] = log;
    CHECK_THROWS_WITH(FlexRound{}.coordinates(state, w, scheme), ContainsSubstring("no longer positive numbers"));
    state = FlexRound{}.start(w, scheme);
    state["A"][1][2] = log;
    CHECK_THROWS_WITH(FlexRound{}.weight(state, w, scheme), ContainsSubstring("no longer positive numbers"));
  }
}

TEST_CASE("the published schedule is 5000 steps of two sequences, shuffled anew each epoch, with a cosine rate") {
  const Learning how = methods::flexround.learning;
  const auto plan = ptq::detail::batches(how, 512, 0);
  REQUIRE(plan.size() == 5000);
  std::set<int64_t> first, rest;
  for (size_t i = 0; i < 256; ++i) first.insert(plan[i].begin(), plan[i].end());
  CHECK(first.size() == 512);
  for (size_t i = 19 * 256; i < 5000; ++i) rest.insert(plan[i].begin(), plan[i].end());
  CHECK(rest.size() == 2 * 136);
  CHECK(schedule_factor(how.schedule, 0, how.steps) == 1);
  CHECK(schedule_factor(how.schedule, 2500, how.steps) == Approx(0.5));
  CHECK(schedule_factor(how.schedule, 5000, how.steps) == Approx(0).margin(1e-15));
  CHECK(!how.activations);
  CHECK(!methods::flexround.loss.averages());
}

TEST_CASE("a step that is a power of two stays, and divisors alone choose the codes") {
  at::manual_seed(21);
  const Tensor w = at::randn({6, 40}, at::kDouble);
  for (const char* text : {"mxint4:b16", "mxint3:b2x7", "fixed6:f3"}) {
    INFO(text);
    const Scheme scheme = Scheme::parse(text, "w", Role::weight);
    const Grid plain = fit_grid(w, scheme);
    const FlexRound policy;
    NamedTensors state = policy.start(w, scheme);
    CHECK(state.count("l1") == 0);
    state["A"] = 0.2 * at::randn_like(w), state["rho"] = 0.1 * at::randn({6, 1}, at::kDouble);
    const Coordinates c = policy.coordinates(state, w, scheme);
    CHECK(at::equal(c.grid->scale, plain.scale));
    const Tensor s =
        scheme.kind == NumberKind::fixed ? plain.scale.expand({6, 40}) : plain.scale.repeat_interleave(scheme.group, 1).narrow(1, 0, 40);
    const Tensor k = (w / (s * (state["A"] + state["rho"]).exp())).round().clamp(plain.lowest, plain.highest);
    CHECK(at::equal(policy.weight(state, w, scheme), s * k));
    CHECK(refuses(Recipe<FlexRound>{}, formats(text)).empty());
    CHECK(refuses(Recipe<Lrq>{}, formats(text)).empty());
    CHECK_THAT(refuses(Recipe<LearnedClip>{}, formats(text)), ContainsSubstring("int format"));
  }
}
