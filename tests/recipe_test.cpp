// Recipes: names, fields, what is refused and what is redundant; concepts of one axis reject the members of every other.
#include <ptq/methods.hpp>
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// For each axis: its members satisfy its concept, and no concept of another axis.
template <class P>
constexpr int axes = Rounding<P> + Smoothing<P> + Loss<P> + Solver<P> + Correction<P> + Adaptation<P>;
template <class... P>
constexpr bool one_axis(const std::tuple<P...>*) {
  return ((axes<P> == 1) && ...);
}
template <class List>
constexpr bool exclusive = one_axis(static_cast<const List*>(nullptr));
static_assert(exclusive<Roundings> && exclusive<Smoothings> && exclusive<Losses> && exclusive<Solvers> && exclusive<Corrections> &&
              exclusive<Adaptations>);

static_assert(!Rounding<NoSmoothing> && !Rounding<Mse> && !Rounding<Direct> && !Rounding<NoCorrection> && !Rounding<NoAdaptation>);
static_assert(!Smoothing<Nearest> && !Smoothing<Mse> && !Smoothing<Direct> && !Smoothing<NoCorrection> && !Smoothing<NoAdaptation>);
static_assert(!Loss<Nearest> && !Loss<NoSmoothing> && !Loss<Direct> && !Loss<NoCorrection> && !Loss<NoAdaptation>);
static_assert(!Solver<Nearest> && !Solver<NoSmoothing> && !Solver<Mse> && !Solver<NoCorrection> && !Solver<NoAdaptation>);
static_assert(!Correction<Nearest> && !Correction<NoSmoothing> && !Correction<Mse> && !Correction<Direct> && !Correction<NoAdaptation>);
static_assert(!Adaptation<Nearest> && !Adaptation<NoSmoothing> && !Adaptation<Mse> && !Adaptation<Direct> && !Adaptation<NoCorrection>);
static_assert(!Rounding<int> && !Smoothing<void> && !Loss<double> && !Solver<std::string> && !Policy<int>);
static_assert(composable<Nearest, Gptq, NoAdaptation> && !composable<ToyClip, ToyCodebook, NoAdaptation> &&
              !composable<Nearest, Gptq, ToyEpisodic>);
static_assert(composable<ToyClip, Gptq, ToyTta> && composable<Nearest, Direct, ToyEpisodic> &&
              composable<ToyDivisor, ToyCodebook, NoAdaptation>);
static_assert(column_solver<Gptq> && !column_solver<Direct> && !column_solver<Nearest>);

template <class R>
Field field(R& recipe, const std::string& path) {
  for (const Field& f : describe(recipe))
    if (f.path == path) return f;
  FAIL("no field " << path);
  return {};
}

}  // namespace

TEST_CASE("a recipe is named by its parts that are not null, with the fields that differ") {
  CHECK(label(methods::rtn) == "rtn");
  CHECK(label(methods::gptq) == "gptq");
  CHECK(label(methods::gptq_act_order) == "gptq(order=descending, static_groups=true)");
  CHECK(label(methods::gptq_as_published) == "gptq(damp_increase=0, as_published=true)");
  CHECK(label(methods::smoothquant) == "smoothquant");
  const Recipe<ToyDivisor, SmoothQuant, Mse, Gptq> all{.smoothing = {.alpha = 0.8}, .loss = {Reduce::sum}};
  CHECK(label(all) == "smoothquant(alpha=0.8) + toy_divisor + gptq + mse(reduce=sum)");
  Recipe<ToyDivisor> learned;
  CHECK(label(learned) == "toy_divisor + mse");
  learned.learning.steps = 5;
  CHECK(label(learned) == "toy_divisor + mse + learning(steps=5)");
  CHECK(label(Recipe<Nearest, NoSmoothing, Mse>{.loss = {Reduce::sum}}) == "rtn");  // where nothing is learned a loss changes nothing
  CHECK(label(Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, ToyTta>{}) == "gptq + mse + toy_tta");  // it decides what is kept
  CHECK(label(Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, ToyTta>{.adaptation = {0}}) == "gptq");
}

TEST_CASE("every hyperparameter of a recipe is a field by axis, and the last one set counts") {
  Recipe<ToyDivisor, SmoothQuant, Mse, Gptq> r{};
  field(r, "solver.damp").set("0.05");
  field(r, "solver.damp").set("0.02");
  field(r, "smoothing.sites").set("all");
  field(r, "loss.reduce").set("sum");
  field(r, "rounding.rate").set("0.1");
  field(r, "learning.optimizer").set("adamw");
  CHECK(r.solver.damp == 0.02);
  CHECK(r.smoothing.sites == SmoothSites::all);
  CHECK(r.loss.reduce == Reduce::sum);
  CHECK(r.rounding.rate == 0.1);
  CHECK(r.learning.optimizer == Optimizer::adamw);
  CHECK_THROWS_WITH(field(r, "solver.order").set("ascending"),
                    ContainsSubstring("solver.order") && ContainsSubstring("natural|descending"));
  CHECK_THROWS_WITH(field(r, "solver.damp").set("nan"), ContainsSubstring("solver.damp"));
  const auto all = stages(r).description;
  const auto said = [&](const std::string& key) {
    for (const auto& [name, text] : all)
      if (name == key) return text;
    return std::string("absent");
  };
  CHECK(said("rounding") == "toy_divisor");
  CHECK(said("solver.damp") == "0.02");
  CHECK(said("learning.optimizer") == "adamw");
  CHECK(said("correction") == "none");
}

TEST_CASE("numbers that a policy cannot run with are refused, overrides included") {
  const Precision int4 = formats("int4");
  CHECK(refuses(methods::gptq, int4).empty());
  CHECK_THAT(refuses(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.damp = 1.5}}, int4),
             ContainsSubstring("solver.damp") && ContainsSubstring("1.5"));
  CHECK_THAT(refuses(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.damp = -0.1}}, int4), ContainsSubstring("solver.damp"));
  CHECK_THAT(refuses(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.damp = std::nan("")}}, int4), ContainsSubstring("solver.damp"));
  CHECK_THAT(refuses(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.block = 0}}, int4), ContainsSubstring("solver.block"));
  CHECK_THAT(refuses(Recipe<Nearest, SmoothQuant>{.smoothing = {.alpha = 1.1}}, int4), ContainsSubstring("smoothing.alpha"));
  CHECK_THAT(refuses(Recipe<Nearest, SmoothQuant>{.smoothing = {.min = 0}}, int4), ContainsSubstring("smoothing.min"));
  const Recipe<Nearest, NoSmoothing, Mse, ToyCodebook> codebook{};
  CHECK(refuses(codebook, int4).empty());
  CHECK_THAT(refuses(codebook, formats("int4:g8")), ContainsSubstring("groups"));
  Precision mixed = int4;
  mixed.overrides.emplace_back("blocks.0.*", weights("int4:g8"));
  CHECK_THAT(refuses(codebook, mixed), ContainsSubstring("groups"));
  mixed.overrides = {{"head", weights("int8:g8")}};  // the head is not the recipe's
  CHECK(refuses(codebook, mixed).empty());
}

TEST_CASE("what changes nothing is redundant, and says why") {
  const Precision int4 = formats("int4");
  CHECK(redundant(methods::gptq, int4).empty());
  CHECK(redundant(Recipe<ToyDivisor>{.loss = {Reduce::sum}}, int4).empty());
  CHECK_THAT(redundant(Recipe<>{.loss = {Reduce::sum}}, int4), ContainsSubstring("nothing is learned"));
  CHECK_THAT(redundant(Recipe<Nearest, NoSmoothing, Mse, Direct, NoCorrection, ToyTta>{}, int4), ContainsSubstring("needs data"));
  CHECK_THAT(redundant(Recipe<Nearest, NoSmoothing, Mse, Direct, Lqer, ToyTta>{}, int4), ContainsSubstring("needs data"));
  CHECK(redundant(Recipe<Nearest, NoSmoothing, Mse, Direct, Qera, ToyTta>{}, int4).empty());  // factors are fitted to the text
  CHECK_THAT(redundant(Recipe<ToyDivisor, NoSmoothing, Mse, Direct, NoCorrection, ToyTta>{.adaptation = {0}}, int4),
             ContainsSubstring("zero steps"));
  CHECK(redundant(Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, ToyTta>{}, int4).empty());
  // The loss decides whether what an adaptation finds is kept, although nothing is learned.
  CHECK(redundant(Recipe<Nearest, NoSmoothing, Mse, Gptq, NoCorrection, ToyTta>{.loss = {Reduce::sum}}, int4).empty());
}

TEST_CASE("a rounding before a solver that makes its own levels is redundant, unless divisors decide or a smoothing learns with it") {
  const Precision int4 = formats("int4");
  CHECK_THAT(redundant(Recipe<FlexRound, NoSmoothing, Mse, Claq>{}, int4), ContainsSubstring("does not read"));
  CHECK_THAT(redundant(Recipe<Lrq, SmoothQuant, Mse, Claq>{}, int4), ContainsSubstring("does not read"));
  CHECK_THAT(redundant(Recipe<ToyDivisor, NoSmoothing, Mse, ToyCodebook>{}, int4), ContainsSubstring("does not read"));
  CHECK(redundant(Recipe<FlexRound, NoSmoothing, Mse, Claq>{.solver = {.divisors = Divisors::decide}}, int4).empty());
  CHECK(redundant(Recipe<FlexRound, LearnedLog, Mse, Claq>{}, int4).empty());
  CHECK(redundant(Recipe<FlexRound, NoSmoothing, Mse, Gptq>{}, int4).empty());
  CHECK_THAT(redundant(Recipe<FlexRound, NoSmoothing, Mse, Claq>{.rounding = {.rate = 0}}, int4), ContainsSubstring("does not read"));
  CHECK(redundant(Recipe<Nearest, SmoothQuant, Mse, Claq>{}, int4).empty());
  // Steps that are powers of two stay, and a column solver reads nothing but steps.
  const Precision powers = formats("mxint4:b16");
  CHECK_THAT(redundant(Recipe<FlexRound, NoSmoothing, Mse, Gptq>{}, powers), ContainsSubstring("steps that stay"));
  CHECK(redundant(Recipe<FlexRound, NoSmoothing, Mse, Gptq>{.solver = {.divisors = Divisors::decide}}, powers).empty());
  CHECK(redundant(Recipe<FlexRound>{}, powers).empty());
}

TEST_CASE("of several overrides the last that matches counts, and only its name reaches the head") {
  Precision p = formats("int4");
  p.overrides = {{"*", weights("int3")}, {"blocks.1.*", weights("int8")}, {"blocks.?.mlp.*", weights("none")}};
  CHECK(p.weight("blocks.0.self_attn.q_proj").bits == 3);
  CHECK(p.weight("blocks.1.self_attn.q_proj").bits == 8);
  CHECK(!p.weight("blocks.1.mlp.up_proj").active());
  CHECK(!p.weight("head").active());
  p.overrides.emplace_back("head", weights("int6"));
  CHECK(p.weight("head").bits == 6);
}

TEST_CASE("what cannot run is refused before the first forward, by the place and with what would work") {
  const Transformer model = tiny_model(Family::llama);
  struct Untouched : ReferenceStream {
    Tensor input(int64_t) override { throw std::logic_error("a forward"); }
    std::vector<Statistics> statistics(int64_t) override { throw std::logic_error("a forward"); }
  } reference;
  Kept kept;
  const auto refused = [&](const Stages& s, const Precision& p, const std::string& part, const std::string& other) {
    Walk walk;
    walk.precision = p;
    CHECK_THROWS_WITH(quantize(s, model, tiny_tokens(), reference, kept, walk), ContainsSubstring(part) && ContainsSubstring(other));
    CHECK(kept.blocks.empty());
  };
  refused(stages(methods::gptq), formats("int4:g7"), "blocks.0.self_attn.q_proj", "divisor of 32");
  refused(stages(methods::rtn), formats("int4:g32"), "blocks.0.mlp.down_proj", "48");
  refused(stages(Recipe<Nearest, NoSmoothing, Mse, Gptq>{.solver = {.damp = 2}}), formats("int4"), "gptq(damp=2)", "[0, 1)");
  refused(stages(methods::rtn), formats("int4:sym:range=awrq_activation"), "blocks.0.self_attn.q_proj", "has no grid");
}
