// LRQ: ranks by the paper, the released code or by hand; what full rank and the first step must be.
#include <ptq/core/minimize.hpp>
#include <ptq/methods.hpp>

#include <array>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Model {
  const char* name;
  int64_t hidden, ffn, keys;
  double paper, official;  ///< learnables over weights of a block: L and U alone; everything that the released rule learns
};

/// out × in of the seven linears.
std::vector<std::pair<int64_t, int64_t>> linears(const Model& m) {
  return {{m.hidden, m.hidden}, {m.keys, m.hidden}, {m.keys, m.hidden}, {m.hidden, m.hidden},
          {m.ffn, m.hidden},    {m.ffn, m.hidden},  {m.hidden, m.ffn}};
}

}  // namespace

TEST_CASE("ranks give the published shares of parameters") {
  const Model models[] = {
      {"Llama 7B", 4096, 11008, 4096, 0.3951, 0.835},
      {"Llama 13B", 5120, 13824, 5120, 0.3157, 0.316},
      {"Llama 33B", 6656, 17920, 6656, 0.4860, 0.243},
      {"Llama 65B", 8192, 22016, 8192, 0.3951, 0.561},
      {"Llama-2 70B", 8192, 28672, 1024, 0.3652, 0.441}};  // 0.3873 where k and v have rank 2048, beyond their 1024 rows
  for (const Model& m : models) {
    INFO(m.name);
    double weights = 0, paper = 0, official = 0;
    for (const auto& [out, in] : linears(m)) {
      const auto o = static_cast<double>(out), i = static_cast<double>(in);
      weights += o * i;
      paper += static_cast<double>(Lrq{}.rank_of(out, in)) * (o + i);
      const auto r = static_cast<double>(Lrq{.ranks = RankRule::official}.rank_of(out, in));
      official += r == 0 ? o * i + 2 * o : r * (o + i) + 2 * o + i;
    }
    CHECK(paper / weights == Approx(m.paper).margin(5e-5));
    CHECK(official / weights == Approx(m.official).margin(6e-4));
  }
  CHECK(Lrq{.ranks = RankRule::fixed, .rank = 64}.rank_of(48, 512) == 48);
  CHECK(Lrq{.ranks = RankRule::official}.rank_of(64, 1100) == 64);
  CHECK(Lrq{.ranks = RankRule::official}.rank_of(8192, 8192) == 0);
  CHECK(Lrq{.ranks = RankRule::official}.rank_of(8192, 28672) == 2048);
}

TEST_CASE("where the released rule has no low rank, the form is FlexRound's") {
  const Lrq policy{.ranks = RankRule::official};
  at::manual_seed(8);
  const Tensor w = at::randn({2, 4097}, at::kDouble).to(at::kFloat);
  const Scheme scheme = weights("int4:range=flexround");
  const NamedTensors state = policy.start(w, scheme), full = FlexRound{}.start(w, scheme);
  REQUIRE(state.size() == full.size());
  for (const auto& [name, t] : full) CHECK(at::equal(state.at(name), t));
  CHECK(at::equal(policy.weight(state, w, scheme), FlexRound{}.weight(full, w, scheme)));
}

TEST_CASE("of full rank, with U the identity, LRQ is FlexRound: codes, values and gradients") {
  at::manual_seed(1);
  const Tensor w = at::randn({10, 16}, at::kDouble), a = 0.3 * at::randn({10, 16}, at::kDouble);
  for (const char* format : {"int4:range=flexround", "int3:g8:sym", "int8:tensor"}) {
    const Scheme scheme = weights(format);
    const c10::AutoGradMode on(true);
    const FlexRound flex;
    const Lrq low{.ranks = RankRule::fixed, .rank = 16};
    NamedTensors one = flex.start(w, scheme), two = low.start(w, scheme);
    one["A"] = a.clone().requires_grad_(true);
    two["L"] = a.clone().requires_grad_(true), two["U"] = at::eye(16, at::kDouble);
    one["rho"] = two["rho"] = 0.1 * at::randn({10, 1}, at::kDouble);
    const Tensor x = flex.weight(one, w, scheme), y = low.weight(two, w, scheme);
    CHECK(at::equal(x, y));
    x.square().sum().backward(), y.square().sum().backward();
    CHECK(at::allclose(one["A"].grad(), two["L"].grad(), 1e-12, 1e-14));
  }
}

TEST_CASE("in the first step U does not move, and L moves by the rate") {
  at::manual_seed(2);
  const Tensor w = at::randn({12, 20}, at::kDouble), g = at::randn({12, 20}, at::kDouble);
  const Scheme scheme = weights("int3:range=flexround");
  const Lrq policy{.ranks = RankRule::fixed, .rank = 4};
  NamedTensors state = policy.start(w, scheme);
  CHECK(state.at("U").abs().max().item<double>() <= 1 / std::sqrt(20.0));
  CHECK(state.at("U").abs().max().item<double>() > 0.8 / std::sqrt(20.0));
  const Tensor u = state.at("U").clone();
  (void)minimise(
      {{{state.at("L"), state.at("U")}, 1e-3}}, {}, 1, 1e-12, [&](int64_t) { return (policy.weight(state, w, scheme) * g).sum(); }, "here");
  CHECK(at::equal(state.at("U"), u));
  CHECK(at::allclose(state.at("L").abs(), at::full({12, 4}, 1e-3, at::kDouble), 1e-6, 0));
}

TEST_CASE("a linear learns r (out + in) + 2 out + in numbers, which for the paper's ranks are the published shares") {
  const Scheme scheme = weights("int4:range=flexround");
  const auto learned = [&](const Lrq& policy, int64_t out, int64_t in) {
    int64_t n = 0;
    const NamedTensors state = policy.start(at::randn({out, in}), scheme);
    for (const Learnable& l : policy.learnable())
      for (const std::string& name : l.names)
        if (const auto found = state.find(name); found != state.end()) n += found->second.numel();
    return n;
  };
  for (const auto& [out, in, r] : std::vector<std::array<int64_t, 3>>{{12, 20, 5}, {20, 12, 12}, {1, 7, 1}, {7, 1, 1}})
    CHECK(learned({.ranks = RankRule::fixed, .rank = r}, out, in) == r * (out + in) + 2 * out + in);
  const double shares[] = {0.3957, 0.3162, 0.4864, 0.3954};  // of L, U, both vectors and the step
  const Model models[] = {{"Llama 7B", 4096, 11008, 4096, 0, 0},
                          {"Llama 13B", 5120, 13824, 5120, 0, 0},
                          {"Llama 33B", 6656, 17920, 6656, 0, 0},
                          {"Llama 65B", 8192, 22016, 8192, 0, 0}};
  for (size_t i = 0; i < 4; ++i) {
    INFO(models[i].name);
    double weights = 0, all = 0;
    for (const auto& [out, in] : linears(models[i]))
      weights += static_cast<double>(out * in), all += static_cast<double>(Lrq{}.rank_of(out, in) * (out + in) + 2 * out + in);
    CHECK(all / weights == Approx(shares[i]).margin(6e-5));
  }
}

TEST_CASE("one row, one column, more rows than columns and fewer: shapes hold and gradients are finite") {
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{{1, 24}, {24, 1}, {7, 24}, {24, 7}})
    for (const int64_t rank : {1, 3, 64}) {
      INFO(out << " x " << in << ", rank " << rank);
      at::manual_seed(3);
      const Lrq policy{.ranks = RankRule::fixed, .rank = rank};
      const Tensor w = at::randn({out, in}, at::kDouble);
      const Scheme scheme = weights("int3:range=flexround");
      const c10::AutoGradMode on(true);
      NamedTensors state = policy.start(w, scheme);
      const int64_t r = std::min({rank, out, in});
      CHECK(state.at("L").sizes() == at::IntArrayRef({out, r}));
      CHECK(state.at("U").sizes() == at::IntArrayRef({r, in}));
      CHECK(state.at("rho").sizes() == at::IntArrayRef({out, 1}));
      CHECK(state.at("gamma").sizes() == at::IntArrayRef({1, in}));
      for (auto& [name, t] : state)
        if (name != "zero") t = (t + 0.1 * at::randn_like(t)).detach().requires_grad_(true);
      const Tensor y = policy.weight(state, w, scheme);
      CHECK(y.sizes() == w.sizes());
      y.square().sum().backward();
      for (const auto& [name, t] : state)
        if (name != "zero") CHECK(at::isfinite(t.grad()).all().item<bool>());
    }
}

TEST_CASE("LRQ keeps zeros and signs, and its row and column factors change codes but not the grid") {
  at::manual_seed(5);
  for (const char* format : {"int2:range=flexround", "int4:range=flexround", "int3:g8:sym", "int8:tensor:range=flexround"}) {
    INFO(format);
    Tensor w = at::randn({12, 24}, at::kDouble);
    w.index_put_({at::randn({12, 24}).gt(1)}, at::zeros({}, at::kDouble));
    const Scheme scheme = weights(format);
    const Lrq policy{.ranks = RankRule::fixed, .rank = 3};
    NamedTensors state = policy.start(w, scheme);
    const Tensor start = policy.weight(state, w, scheme);
    for (const char* name : {"L", "U", "rho", "gamma"}) state[name] = state[name] + 0.4 * at::randn_like(state[name]);
    const Tensor q = policy.weight(state, w, scheme);
    CHECK(!at::equal(q, start));
    CHECK(q.masked_select(w.eq(0)).eq(0).all().item<bool>());
    CHECK((q * w).ge(0).all().item<bool>());
    const Tensor s = policy.start(w, scheme).at("l1").exp().repeat_interleave(24 / state.at("l1").size(1), 1);  // the old steps
    CHECK((q / s - (q / s).round()).abs().max().item<double>() < 1e-9);
  }
}

TEST_CASE("gradients of LRQ's smooth surrogate are those of central differences") {
  at::manual_seed(6);
  const Tensor w = at::randn({5, 8}, at::kDouble), g = at::randn({5, 8}, at::kDouble);
  const Scheme scheme = weights("int3:range=flexround");
  const Lrq policy{.ranks = RankRule::fixed, .rank = 2};
  NamedTensors state = policy.start(w, scheme), leaves;
  const char* const names[] = {"l1", "L", "U", "rho", "gamma"};
  for (const char* name : names) state[name] = state[name] + 0.1 * at::randn_like(state[name]);
  const Coordinates at = policy.coordinates(state, w, scheme);
  const Tensor v = w / at.divisor, k = policy.weight(state, w, scheme) / state.at("l1").exp();
  const Tensor m = (k - v.round()).abs().lt(1e-6).to(at::kDouble);
  const auto surrogate = [&](const NamedTensors& now) {  // rounding adds a constant, the clamp is one where it is active
    const Tensor coordinate = w / (now.at("l1") + now.at("L").mm(now.at("U")) + now.at("rho") + now.at("gamma")).exp();
    return (now.at("l1").exp() * (m * (coordinate + (k - v)) + (1 - m) * k) * g).sum().item<double>();
  };
  const c10::AutoGradMode on(true);
  for (const auto& [name, t] : state) leaves[name] = name == "zero" ? t : t.clone().requires_grad_(true);
  (policy.weight(leaves, w, scheme) * g).sum().backward();
  const double h = 1e-6;
  for (const char* name : names)
    for (int64_t i = 0; i < state.at(name).numel(); ++i) {
      NamedTensors up = state, down = state;
      up[name] = state.at(name).clone(), down[name] = state.at(name).clone();
      up[name].view(-1)[i] += h, down[name].view(-1)[i] -= h;
      INFO(name << " " << i);
      CHECK(leaves[name].grad().reshape(-1)[i].item<double>() ==
            Approx((surrogate(up) - surrogate(down)) / (2 * h)).epsilon(1e-6).margin(1e-8));
    }
}

TEST_CASE("every linear draws a right factor of its own, the same one each time, uniform within its bound") {
  const Scheme scheme = weights("int4");
  const Lrq policy{.ranks = RankRule::fixed, .rank = 64};
  at::manual_seed(7);
  const Tensor w = at::randn({64, 96}, at::kDouble).to(at::kFloat), other = at::randn({64, 96}, at::kDouble).to(at::kFloat);
  const auto u = [&](const Tensor& weight, const Lrq& p) { return p.start(weight, scheme).at("U"); };
  CHECK(at::equal(u(w, policy), u(w.clone(), policy)));
  CHECK(at::equal(u(w, policy), u(w.to(at::kDouble), policy).to(at::kFloat)));
  CHECK(at::equal(u(w, policy), u(w.t().contiguous().t(), policy)));  // numbers count, not how they lie
  Tensor near = w.clone();
  near[63][95] += 1e-3;
  for (const Tensor& fresh : {u(other, policy), u(near, policy), u(w, Lrq{.ranks = RankRule::fixed, .rank = 64, .seed = 1})}) {
    const Tensor mine = u(w, policy);
    const double bound = 1 / std::sqrt(96.0);
    CHECK(fresh.abs().max().item<double>() <= bound);
    CHECK(fresh.mean().item<double>() == Approx(0).margin(5 * bound / std::sqrt(3.0 * 6144)));
    CHECK(fresh.square().mean().item<double>() == Approx(bound * bound / 3).epsilon(0.06));
    CHECK(std::abs((fresh * mine).mean().item<double>()) < 5 * bound * bound / 3 / std::sqrt(6144.0));  // and independent
  }
}

TEST_CASE("another seed draws another right factor; numbers without sense are refused") {
  at::manual_seed(9);
  const Tensor w = at::randn({6, 9}, at::kDouble).to(at::kFloat);
  const Scheme scheme = weights("int4");
  CHECK(at::equal(Lrq{}.start(w, scheme).at("U"), Lrq{}.start(w, scheme).at("U")));
  CHECK(!at::equal(Lrq{}.start(w, scheme).at("U"), Lrq{.seed = 1}.start(w, scheme).at("U")));
  CHECK_THAT(refuses(Recipe<Lrq>{.rounding = {.rank = 0}}, formats("int4")), ContainsSubstring("rounding.rank"));
  CHECK_THAT(refuses(Recipe<Lrq>{.rounding = {.rate = -1}}, formats("int4")), ContainsSubstring("rounding.rate"));
}
