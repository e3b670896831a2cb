// LRQ: ranks by the paper, the released code or by hand; what full rank and the first step must be.
#include <ptq/core/minimize.hpp>
#include <ptq/methods.hpp>

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
  const Tensor w = at::randn({2, 4097});
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

TEST_CASE("another seed draws another right factor; numbers without sense are refused") {
  const Tensor w = at::randn({6, 9});
  const Scheme scheme = weights("int4");
  CHECK(at::equal(Lrq{}.start(w, scheme).at("U"), Lrq{}.start(w, scheme).at("U")));
  CHECK(!at::equal(Lrq{}.start(w, scheme).at("U"), Lrq{.seed = 1}.start(w, scheme).at("U")));
  CHECK_THAT(refuses(Recipe<Lrq>{.rounding = {.rank = 0}}, formats("int4")), ContainsSubstring("rounding.rank"));
  CHECK_THAT(refuses(Recipe<Lrq>{.rounding = {.rate = -1}}, formats("int4")), ContainsSubstring("rounding.rate"));
}
