// The snippets of docs/, compiled and true: each page shows what stands between two marks here.
#include <ptq/loss/aug.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/smoothing/chain.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/static_log.hpp>
#include <ptq/sweep.hpp>

#include "catch.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

TEST_CASE("nearest") {
  // [nearest]
  const Tensor w = at::tensor({-1.0, 0.625, 2.75}).view({1, 3});           // (out, in)
  const Scheme scheme = Scheme::parse("int4:channel", "w", Role::weight);  // scale 0.25, zero point 4
  const Tensor q = Nearest{}.weight({}, w, scheme);
  CHECK(at::equal(q, at::tensor({-1.0, 0.5, 2.75}).view({1, 3})));  // 0.625 / 0.25 = 2.5 rounds to the even 2
  // [/nearest]
}

TEST_CASE("smoothquant") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  ComputedReference reference(model, tiny_tokens(), 4096);
  // [smoothquant]
  const SmoothQuant smoothing{.alpha = 0.8};
  const BlockParameters block = model.load(0);
  const NamedTensors factors = smoothing.start(model.layout(), block, reference.statistics(0));  // "s.attention_in", "s.mlp_in"
  const BlockParameters fused = smoothing.fuse(model.layout(), block, factors);                  // computes what `block` computes
  CHECK(at::allclose(fused.norms[0].weight * factors.at("s.attention_in"), block.norms[0].weight));
  // [/smoothquant]
  CHECK(factors.size() == 2);
  FloatOperators before(model.config(), block), after(model.config(), fused);
  const Tensor x = reference.input(0);
  CHECK(at::allclose(model.forward(0, x, after), model.forward(0, x, before)));
}

TEST_CASE("learned smoothings and losses") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  ComputedReference reference(model, tiny_tokens(), 4096);
  const BlockParameters block = model.load(0);
  // [static_log]
  const StaticLog logarithmic;
  const NamedTensors fixed = logarithmic.start(model.layout(), block, reference.statistics(0));
  const Tensor m = reference.statistics(0)[0].absmax;  // (hidden)
  CHECK(at::allclose(fixed.at("s.attention_in"), (m / (2 + m).log2()).clamp_min(0.01), 1e-5));
  // [/static_log]
  // [learned_log]
  const LearnedLog learned;
  NamedTensors what = learned.start(model.layout(), block, reference.statistics(0));  // "s.mlp_in", "d.mlp_in", "s.query_key", …
  what.at("d.mlp_in").fill_(0.5);
  const BlockParameters shifted = learned.fuse(model.layout(), block, what);
  CHECK(shifted.norms[1].bias.defined());    // −0.5 / s
  CHECK(shifted.linears[4].bias.defined());  // 0.5 times the sum of each row
  // [/learned_log]
  CHECK(at::allclose(shifted.norms[1].bias * what.at("s.mlp_in"), -what.at("d.mlp_in")));
  CHECK(at::allclose(shifted.linears[4].bias, 0.5 * block.linears[4].weight.sum(1)));
  // [chain]
  Recipe<Nearest, Chain<SmoothQuant, LearnedLog>> chained;
  CHECK(label(chained) == "smoothquant>learned_log + mse");
  // [/chain]
  // [nlc]
  const Tensor f = at::tensor({1.0, 2.0, 2.0, 0.0, 3.0, 4.0}, at::kDouble).view({1, 2, 3});
  const Tensor q = at::tensor({1.0, 2.0, 1.0, 0.0, 4.0, 3.0}, at::kDouble).view({1, 2, 3});
  CHECK(Nlc{}(f, q).item<double>() == Approx(0.0446944074));
  CHECK(Nlc{.form = NlcForm::half_token}(f, q).item<double>() == Approx(0.0220993243));
  CHECK(Nlc{}(f, 7 * q).item<double>() == Approx(0.0446944074));
  // [/nlc]
  // [aug]
  const Sum<Mse, Nlc, Aug<>> lrquant_with_aug;  // Aug<> is Aug<Mse>
  CHECK(label(lrquant_with_aug) == "mse+nlc+aug_mse");
  CHECK(reads_own_target<Sum<Mse, Nlc, Aug<>>>);
  // [/aug]
}

TEST_CASE("flexround, lrq and learned clip") {
  // [flexround]
  const Tensor w = at::tensor({-3.0, -1.4, 0.6, 4.0}).view({1, 4});  // (out, in); step 1, zero point 3
  const Scheme scheme = Scheme::parse("int3:range=flexround", "w", Role::weight);
  const FlexRound flex;
  NamedTensors learned = flex.start(w, scheme);  // l1 = 0, A = 0, rho = 0
  CHECK(at::allclose(flex.weight(learned, w, scheme), at::tensor({-3.0, -1.0, 1.0, 4.0}).view({1, 4})));
  learned["A"][0][1] = std::log(0.7);  // −1.4 / 0.7 = −2, times the step of 1
  CHECK(at::allclose(flex.weight(learned, w, scheme), at::tensor({-3.0, -2.0, 1.0, 4.0}).view({1, 4})));
  // [/flexround]
  // [lrq]
  CHECK(Lrq{}.rank_of(11008, 4096) == 1024);                               // as the paper has it
  CHECK(Lrq{.ranks = RankRule::official}.rank_of(11008, 4096) == 0);       // as released: the full matrix
  CHECK(Lrq{.ranks = RankRule::fixed, .rank = 64}.rank_of(48, 96) == 48);  // never more than the smaller side
  // [/lrq]
  // [learned_clip]
  const Tensor row = at::tensor({-1.0, -0.5, 0.0, 0.3, 0.75, 1.5}).view({1, 6});
  const Scheme omni = Scheme::parse("int4:range=omni", "w", Role::weight);
  const NamedTensors logits = LearnedClip{}.start(row, omni);  // up = low = 4
  CHECK(LearnedClip{}.coordinates(logits, row, omni).grid->scale.item<double>() == Approx(0.98201379003790845 * 2.5 / 15));
  // [/learned_clip]
}

TEST_CASE("test-time adaptation") {
  // [tta]
  Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, Tta> adapted{.learning = {.epochs = 2}};
  CHECK(label(adapted).ends_with("tta"));
  adapted.adaptation.epochs = 0;
  CHECK(redundant(adapted, {}) == "an adaptation of zero steps");
  // [/tta]
}

TEST_CASE("mse") {
  // [mse]
  const Tensor target = at::zeros({2, 5, 8}), output = at::ones({2, 5, 8});  // 2 sequences of 5 tokens of 8 features
  CHECK(Mse{}(target, output).item<float>() == 1);
  CHECK(Mse{Reduce::sum}(target, output).item<float>() == 5);  // summed over tokens
  // [/mse]
}

TEST_CASE("gptq and direct") {
  // [gptq]
  at::manual_seed(0);
  const Tensor w = at::randn({16, 64});                                     // (out, in)
  const Tensor x = at::matmul(at::randn({2, 128, 8}), at::randn({8, 64}));  // (sequences, tokens, in), of rank 8
  Statistics stats;
  stats.add({.hessian = true}, x);
  stats.finish();
  Shared shared;  // what linears of one input share: the factor of H
  const Problem problem{.place = "w",
                        .weight = w,
                        .scheme = Scheme::parse("int4:g32", "w", Role::weight),
                        .coordinates = {},
                        .stats = &stats,
                        .shared = &shared};
  const auto error = [&](const Solution& s) { return at::matmul(x, (w - s.linear.weight()).t()).norm().item<double>(); };
  CHECK(error(Gptq{}.solve(problem)) < 0.5 * error(Direct{}.solve(problem)));
  // [/gptq]
  // [direct]
  const Solution plain = Direct{}.solve(problem);
  CHECK(at::equal(plain.linear.weight(), fake_quantize(w, fit_grid(w, problem.scheme))));
  CHECK(plain.linear.bits().per_weight() == 4 + (32 + 4) / 32.0);  // codes; a scale and a zero point for 32 weights
  // [/direct]
}

TEST_CASE("low-rank corrections") {
  at::manual_seed(1);
  const Tensor w = at::randn({16, 64}), x = at::randn({2, 128, 64});
  const Tensor rtn = fake_quantize(w, fit_grid(w, Scheme::parse("int3", "w", Role::weight)));
  // [l2qer]
  Statistics seen;
  seen.add({.profile = true}, x);  // (sequences, tokens, in)
  const Residual residual{
      .place = "w", .error = w - rtn, .stats = &seen, .factors = Scheme::parse("mxint8:b16", "--factors", Role::weight)};
  const LowRank factors = L2qer{.rank = 4}.fit(residual);
  CHECK(factors.a.sizes() == at::IntArrayRef({64, 4}));
  CHECK((w - rtn - at::mm(factors.a, factors.b).t()).norm().item<float>() < (w - rtn).norm().item<float>());
  // [/l2qer]
}

TEST_CASE("block floating point") {
  // [mxint]
  const Tensor row = at::tensor({1.0f, -0.5f, 0.25f, 0.1f, -0.05f, 0.0f, 0.7f, -1.0f}).view({1, 8});
  CHECK(at::equal(block_float(row, Scheme::parse("mxint4:b8", "w", Role::weight)),
                  at::tensor({1.0f, -0.5f, 0.25f, 0.0f, 0.0f, 0.0f, 0.75f, -1.0f}).view({1, 8})));
  CHECK(at::equal(block_float(row, Scheme::parse("mxint4:b8:ceil", "w", Role::weight)),
                  at::tensor({0.875f, -0.5f, 0.25f, 0.125f, 0.0f, 0.0f, 0.75f, -0.875f}).view({1, 8})));
  // [/mxint]
}

TEST_CASE("floating point of few bits") {
  // [minifloat]
  const Tensor fp4 = at::tensor({12.0f, -7.0f, 5.1f, 0.9f, 0.2f, 10.0f}).view({1, 6});  // steps of 2, M = 12
  CHECK(at::equal(fake_quantize(fp4, fit_grid(fp4, Scheme::parse("float4:e2:b6", "w", Role::weight))),
                  at::tensor({12.0f, -8.0f, 6.0f, 1.0f, 0.0f, 8.0f}).view({1, 6})));
  // [/minifloat]
}

TEST_CASE("null objects") {
  const Transformer model = tiny_model(Family::llama);
  // [null]
  CHECK(label(Recipe<>{}) == "rtn");
  CHECK(label(methods::gptq) == "gptq");
  const Recipe<Nearest, NoSmoothing, Mse, Direct, NoCorrection, NoAdaptation> spelled_out{};
  CHECK(label(spelled_out) == label(methods::rtn));
  // [/null]
  CHECK(NoSmoothing{}.fuse(model.layout(), model.load(0), {}).input_scale.size() == model.load(0).input_scale.size());
  CHECK(!NoCorrection{}.fit({.place = "w", .error = at::ones({2, 2})}).defined());
  CHECK(NoAdaptation{}.steps() == 0);
}

TEST_CASE("formats") {
  // [formats]
  const Scheme s = Scheme::parse("int4:g64", "--weights", Role::weight);
  CHECK(s.text() == "int4:g64:asym:range=gptq");  // every choice spelled out; reads back the same
  CHECK(Scheme::parse(s.text(), "--weights", Role::weight) == s);
  CHECK(Scheme::parse("int8:token:sym", "--activations", Role::activation).text() == "int8:token:sym:range=absmax");
  CHECK(Scheme::parse("int8:tensor", "--activations", Role::activation).text() == "int8:tensor:asym:range=awrq_activation");
  CHECK(Scheme::parse("int8:static", "--activations", Role::activation).text() == "int8:static:asym:range=omni");
  CHECK_THROWS_WITH(Scheme::parse("int9", "--weights", Role::weight), Catch::Matchers::ContainsSubstring("--weights"));
  // [/formats]
}
