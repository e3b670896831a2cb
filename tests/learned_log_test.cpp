// Learned smoothings: what they may learn moves nothing, what they start from, and chains; losses beside the golden files.
#include <ptq/loss/aug.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/quantize.hpp>
#include <ptq/smoothing/chain.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/smoothing/static_log.hpp>

#include "catch.hpp"
#include "models.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// Any state at all: factors of either sign around one, shifts around zero.
NamedTensors anything(NamedTensors state, uint64_t seed) {
  at::manual_seed(seed);
  for (auto& [name, t] : state) {
    const bool shift = name.starts_with("d.") || name.find(".d.") != std::string::npos;
    t = shift ? at::randn_like(t) : (0.5 * at::randn_like(t)).exp() * at::where(at::rand_like(t) < 0.2, -1.0, 1.0).to(t.scalar_type());
  }
  return state;
}

Tensor output(const Transformer& model, const BlockParameters& parameters, const Tensor& x, int64_t block = 0) {
  FloatOperators ops(model.config(), parameters);
  return model.forward(block, x, ops);
}

std::vector<Statistics> statistics(const Transformer& model, const Tensor& tokens) {
  ComputedReference reference(model, tokens, 4096);
  return reference.statistics(0);
}

/// How far the float output moves when the state is anything.
template <class S>
double moved(const Transformer& model, const S& smoothing) {
  const Tensor tokens = tiny_tokens(2, 16);
  const BlockParameters block = model.load(0);
  const NamedTensors state = anything(smoothing.start(model.layout(), block, statistics(model, tokens)), 5);
  const Tensor x = model.embed(tokens);
  return greatest_error(output(model, smoothing.fuse(model.layout(), block, state), x), output(model, block, x));
}

/// Statistics of the inputs that the block's linears read.
std::vector<Statistics> read(const Transformer& model, const BlockParameters& block, const Tensor& x) {
  return observe(model, 0, block, x, {.absmax = true, .extent = true, .middle = true, .profile = true, .square = true}, {}, 4096);
}

}  // namespace

TEST_CASE("whatever a smoothing learns, the float output of the block stays") {
  for (const Family family : {Family::llama, Family::opt}) {  // LLaMA with grouped heads
    INFO(name(family));
    const Transformer model = tiny_model(family, at::kDouble);
    CHECK(moved(model, LearnedLog{}) < 1e-11);
    CHECK(moved(tiny_model(family), LearnedLog{}) < 1e-4);
    CHECK(moved(model, LearnedLog{.query_key = false}) < 1e-11);
    CHECK(moved(model, Chain<LearnedLog, LearnedLog>{}) < 1e-10);
    const Chain<SmoothQuant, LearnedLog> divided{{SmoothQuant{.sites = SmoothSites::all, .fold = false}, LearnedLog{}}};
    if (family == Family::opt)
      CHECK(moved(model, divided) < 1e-11);
    else  // a value's shift is shared by query heads, a factor at run time is not
      CHECK_THROWS_WITH(moved(model, divided), ContainsSubstring("fold the factor"));
  }
  for (const auto& folder : zoo()) {
    INFO(folder.filename().string());
    const Transformer model = open_model(folder, at::kDouble);
    const Tensor tokens = tiny_tokens(1, 16);
    const BlockParameters block = model.load(0);
    const LearnedLog smoothing;
    const NamedTensors state = anything(smoothing.start(model.layout(), block, statistics(model, tokens)), 6);
    const Tensor x = model.embed(tokens);
    CHECK(greatest_error(output(model, smoothing.fuse(model.layout(), block, state), x), output(model, block, x)) < 1e-10);
  }
}

TEST_CASE("factors of q and k that are not tied move a block that turns its channels, and no other") {
  const LearnedLog untied{.tie_rotary = false};
  CHECK(moved(tiny_model(Family::llama, at::kDouble), untied) > 1e-4);
  CHECK(moved(tiny_model(Family::opt, at::kDouble), untied) < 1e-11);
}

TEST_CASE("a value's shift is lost when attention's probabilities are rounded, as it must be") {
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  const Tensor tokens = tiny_tokens(2, 16), x = model.embed(tokens);
  const BlockParameters block = model.load(0);
  const LearnedLog smoothing;
  const NamedTensors state = anything(smoothing.start(model.layout(), block, statistics(model, tokens)), 7);
  Formats formats = formats_of({}, model.layout(), 0);
  formats.attention[static_cast<size_t>(Operand::probability)] = activations("int4");
  FormatOperators plain(model.config(), block, formats), fused(model.config(), smoothing.fuse(model.layout(), block, state), formats);
  CHECK(greatest_error(model.forward(0, x, fused), model.forward(0, x, plain)) > 1e-5);
}

TEST_CASE("the logarithmic start turns a maximum m into log2(2 + m), floored, whatever the weights") {
  const double maxima[] = {0.02, 0.5, 1, 2, 10, 37, 100, 2600},
               factors[] = {1.97170e-2, 0.378235, 0.630930, 1, 2.789429, 7.000413, 14.987054, 229.1677};
  for (size_t i = 0; i < 8; ++i)
    CHECK(logarithmic_factor(at::tensor({maxima[i]}, at::kDouble)).item<double>() == Approx(factors[i]).epsilon(1e-5));
  const Transformer model = tiny_model(Family::opt, at::kDouble);
  const Tensor tokens = tiny_tokens(), x = model.embed(tokens);
  const BlockParameters block = model.load(0);
  const auto stats = statistics(model, tokens);
  const StaticLog smoothing;
  const auto after = read(model, smoothing.fuse(model.layout(), block, smoothing.start(model.layout(), block, stats)), x);
  for (const size_t g : {0, 1, 2}) {
    const Tensor m = stats[g].absmax, large = m.ge(0.02);
    CHECK(large.any().item<bool>());
    CHECK(at::allclose(after[g].absmax.masked_select(large), (2 + m).log2().masked_select(large), 1e-10));
  }
  CHECK(at::allclose(after[3].absmax, stats[3].absmax, 1e-10));  // the second linear of the feed-forward is left alone
}

TEST_CASE("the logarithmic start knows nothing of weights and alpha, SmoothQuant's both") {
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const auto stats = statistics(model, tiny_tokens());
    const BlockParameters block = model.load(0);
    BlockParameters other = block;
    for (LinearParameters& l : other.linears) l.weight = 3 * l.weight + at::randn_like(l.weight);
    const auto starts = [&](SmoothStart start, double alpha, const BlockParameters& of) {
      return LearnedLog{.start_at = start, .alpha = alpha}.start(model.layout(), of, stats);
    };
    for (const char* key : {"s.attention_in", "s.attention_out", "s.mlp_in"}) {
      INFO(name(family) << " " << key);
      const Tensor log = starts(SmoothStart::log, 0.5, block).at(key), smooth = starts(SmoothStart::smoothquant, 0.5, block).at(key);
      CHECK(at::equal(log, starts(SmoothStart::log, 0.9, block).at(key)));
      CHECK(at::equal(log, starts(SmoothStart::log, 0.5, other).at(key)));
      CHECK(!at::allclose(smooth, starts(SmoothStart::smoothquant, 0.9, block).at(key)));
      CHECK(!at::allclose(smooth, starts(SmoothStart::smoothquant, 0.5, other).at(key)));
    }
  }
}

TEST_CASE("gradients of factors and shifts are central differences of what they fold") {
  for (const Family family : {Family::llama, Family::opt})
    for (const bool tied : {true, false}) {
      INFO(name(family) << (tied ? ", tied" : ""));
      const Transformer model = tiny_model(family, at::kDouble);
      const Layout& layout = model.layout();
      const BlockParameters block = model.load(0);
      const LearnedLog smoothing{.tie_rotary = tied};
      const NamedTensors state = anything(smoothing.start(layout, block, statistics(model, tiny_tokens())), 11);
      BlockParameters weigh = smoothing.fuse(layout, block, state);  // what every folded number is weighed with
      const auto random = [](Tensor& t) {
        if (t.defined()) t = at::randn_like(t);
      };
      for (LinearParameters& l : weigh.linears) random(l.weight), random(l.bias);
      for (NormParameters& n : weigh.norms) random(n.weight), random(n.bias);
      const auto value = [&](const NamedTensors& at) {
        const BlockParameters fused = smoothing.fuse(layout, block, at);
        Tensor sum = at::zeros({}, at::kDouble);
        const auto add = [&](const Tensor& t, const Tensor& w) {
          if (t.defined()) sum = sum + (t * w).sum();
        };
        for (size_t i = 0; i < fused.linears.size(); ++i)
          add(fused.linears[i].weight, weigh.linears[i].weight), add(fused.linears[i].bias, weigh.linears[i].bias);
        for (size_t i = 0; i < fused.norms.size(); ++i)
          add(fused.norms[i].weight, weigh.norms[i].weight), add(fused.norms[i].bias, weigh.norms[i].bias);
        return sum;
      };
      NamedTensors leaves;
      {
        const c10::AutoGradMode on(true);
        for (const auto& [key, t] : state) leaves[key] = t.clone().requires_grad_(true);
        value(leaves).backward();
      }
      const c10::NoGradGuard off;
      for (const auto& [key, t] : state) {
        INFO(key);
        Tensor found = at::empty_like(t);
        for (int64_t i = 0; i < t.numel(); ++i) {
          const double h = 1e-6 * std::max(1e-2, std::abs(t[i].item<double>()));
          NamedTensors up = state, down = state;
          up[key] = t.clone(), down[key] = t.clone();
          up[key][i] += h, down[key][i] -= h;
          found[i] = (value(up) - value(down)).item<double>() / (2 * h);
        }
        CHECK(leaves[key].grad().abs().min().item<double>() > 0);
        CHECK(greatest_error(leaves[key].grad(), found) < 1e-6);
      }
    }
}

TEST_CASE("learning factors alone touches neither the feed-forward's last linear nor embeddings nor the head") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const Tensor tokens = tiny_tokens(4, 12), embedded = model.embed(tokens);
    const Tensor head = model.load_head().weight.clone();
    Recipe<Nearest, LearnedLog, Sum<Mse, Nlc>> recipe{.smoothing = {.rate = 1e-2}, .learning = {.steps = 8}};
    const Kept kept = walk(model, stages(recipe), formats("none", "int4"), tokens);
    for (size_t b = 0; b < 2; ++b) {
      const BlockParameters loaded = model.load(static_cast<int64_t>(b));
      CHECK(at::equal(kept.blocks[b].linears.back().effective_weight(), loaded.linears.back().weight));
      for (const size_t moved : {0, 1, 2, 3, 4})
        CHECK(!at::equal(kept.blocks[b].linears[moved].effective_weight(), loaded.linears[moved].weight));
      CHECK(kept.reports[b].losses.size() == 8);
    }
    CHECK(at::equal(model.embed(tokens), embedded));
    CHECK(at::equal(model.load_head().weight, head));
  }
}

TEST_CASE("a learned smoothing leaves the last linear, and starts with as many numbers as the papers count") {
  const Transformer model = tiny_model(Family::opt, at::kDouble);
  const BlockParameters block = model.load(0);
  const auto stats = statistics(model, tiny_tokens());
  const LearnedLog smoothing;
  NamedTensors state = smoothing.start(model.layout(), block, stats);
  int64_t numbers = 0;
  for (const auto& [name, t] : state) numbers += t.numel();
  CHECK(numbers == 7 * model.config().hidden);
  CHECK(at::equal(state.at("d.mlp_in"), stats[2].middle));  // OPT's norms have biases
  const BlockParameters fused = smoothing.fuse(model.layout(), block, anything(state, 3));
  CHECK(fused.linears.back().weight.is_same(block.linears.back().weight));

  const Transformer llama = tiny_model(Family::llama, at::kDouble);  // 4 query heads share 2 key/value heads of 8
  const auto grouped = smoothing.start(llama.layout(), llama.load(0), statistics(llama, tiny_tokens()));
  CHECK(grouped.at("s.attention_out").numel() == 16);
  CHECK(grouped.at("s.query_key").numel() == 8);
  CHECK(grouped.at("d.attention_in").eq(0).all().item<bool>());
  const LearnedLog omniquant{.start_at = SmoothStart::smoothquant_one_linear, .shifts = Shifts::biased};
  CHECK(omniquant.start(llama.layout(), llama.load(0), statistics(llama, tiny_tokens())).count("d.attention_in") == 0);
  CHECK(omniquant.start(model.layout(), block, stats).count("d.attention_in") == 1);
}

TEST_CASE("factors too near to zero are moved away in place, keeping their sign") {
  NamedTensors state{{"s.mlp_in", at::tensor({0.005, -0.005, 0.0, -3.0}, at::kDouble)}, {"d.mlp_in", at::tensor({0.001}, at::kDouble)}};
  const Tensor kept = state.at("s.mlp_in");
  LearnedLog{}.project(state);
  CHECK(at::equal(kept, at::tensor({0.01, -0.01, 0.01, -3.0}, at::kDouble)));
  CHECK(state.at("d.mlp_in").item<double>() == 0.001);
}

TEST_CASE("a chain starts each smoothing on what the earlier ones leave") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens(3, 16), x = model.embed(tokens);
    const BlockParameters block = model.load(0);
    const LearnedLog first;
    const NamedTensors own = anything(first.start(model.layout(), block, statistics(model, tokens)), 8);
    const auto told = smoothed(model.layout(), read(model, block, x), own), seen = read(model, first.fuse(model.layout(), block, own), x);
    for (size_t g = 0; g < told.size(); ++g) {
      INFO(model.layout().groups[g].name);
      CHECK(at::allclose(told[g].absmax, seen[g].absmax, 1e-9, 1e-12));
      CHECK(at::allclose(told[g].low, seen[g].low, 1e-9, 1e-12));
      CHECK(at::allclose(told[g].high, seen[g].high, 1e-9, 1e-12));
      CHECK(at::allclose(told[g].middle, seen[g].middle, 1e-9, 1e-12));
      CHECK(told[g].profile.defined() == (g == 3));  // a sum of |x − d| cannot follow from that of |x|
      CHECK(told[g].square.defined() == (g == 3));
    }
    const Chain<SmoothQuant, StaticLog> chain;
    const BlockParameters fused = chain.fuse(model.layout(), block, chain.start(model.layout(), block, statistics(model, tokens)));
    const auto after = read(model, fused, x);
    const SmoothQuant smoothquant;
    const auto between =
        read(model, smoothquant.fuse(model.layout(), block, smoothquant.start(model.layout(), block, statistics(model, tokens))), x);
    for (const size_t g : {0, 2}) CHECK(at::allclose(after[g].absmax, (2 + between[g].absmax).log2(), 1e-9));
  }
}

TEST_CASE("fields of sums and chains are named by their parts") {
  Sum<Mse, Nlc, Aug<>> loss;
  std::vector<std::string> paths;
  for (const Field& f : describe(loss, "loss")) paths.push_back(f.path);
  CHECK(paths == std::vector<std::string>{"loss.mse.weight", "loss.mse.reduce", "loss.nlc.weight", "loss.nlc.form", "loss.nlc.reduce",
                                          "loss.nlc.min", "loss.aug_mse.weight", "loss.aug_mse.reduce"});
  for (Field& f : describe(loss, "loss"))
    if (f.path == "loss.nlc.weight") f.set("0.5");
  CHECK(label(loss) == "mse+nlc+aug_mse(nlc.weight=0.5)");
  CHECK(loss.term<Nlc>().weight == 0.5);
  Chain<SmoothQuant, LearnedLog> chain;
  for (Field& f : describe(chain, "smoothing"))
    if (f.path == "smoothing.0.alpha") f.set("0.8");
  CHECK(label(chain) == "smoothquant>learned_log(0.alpha=0.8)");
}

TEST_CASE("sums and chains refuse what does not go together") {
  Sum<Mse, Nlc> mixed;
  mixed.term<Mse>().loss.reduce = Reduce::sum;
  CHECK_THAT(mixed.refuses({}), ContainsSubstring("others average"));
  Sum<Mse, Nlc> negative;
  negative.term<Nlc>().weight = -1;
  CHECK_THAT(negative.refuses({}), ContainsSubstring("loss.nlc.weight must not be negative"));
  Sum<Mse, Nlc> nothing;
  nothing.term<Nlc>().weight = nothing.term<Mse>().weight = 0;
  CHECK_THAT(nothing.refuses({}), ContainsSubstring("no term"));
  Chain<SmoothQuant, LearnedLog> streams;
  std::get<0>(streams.links).stream = Stream::quantized;
  CHECK_THAT(streams.refuses({}), ContainsSubstring("one stream"));
  std::get<1>(streams.links).min = 0;
  CHECK_THAT(streams.refuses({}), ContainsSubstring("link 1 of the chain: smoothing.min"));
}

TEST_CASE("the cosine ignores lengths, and a token without one") {
  at::manual_seed(9);
  const Tensor f = at::randn({2, 5, 8}, at::kDouble), q = (f + 0.3 * at::randn_like(f)).detach();
  for (const auto form : {NlcForm::mean_cosine, NlcForm::token_log, NlcForm::half_token}) {
    const Nlc loss{.form = form};
    CHECK(loss(f, q * (0.1 + at::rand({2, 5, 1}, at::kDouble))).item<double>() == Approx(loss(f, q).item<double>()).epsilon(1e-12));
    CHECK(std::abs(loss(f, 1.1 * f).item<double>()) < 1e-15);
    const c10::AutoGradMode on(true);
    const Tensor leaf = q.clone().requires_grad_(true);
    loss(f, leaf).backward();
    CHECK((leaf.grad() * q).sum(-1).abs().max().item<double>() < 1e-15);  // orthogonal to the output
    const Tensor dead = q.clone();
    dead[0][0] = 0;
    const Tensor leaf_of_dead = dead.requires_grad_(true), value = loss(f, leaf_of_dead);
    value.backward();
    CHECK(std::isfinite(value.item<double>()));
    CHECK(leaf_of_dead.grad()[0][0].abs().sum().item<double>() == 0);
    CHECK(leaf_of_dead.grad()[0][1].abs().sum().item<double>() > 0);
  }
  // ∂L/∂Q_bt = −(F̂ − c Q̂)/(c̄ B T ‖Q‖)
  const c10::AutoGradMode on(true);
  const Tensor leaf = q.clone().requires_grad_(true);
  Nlc{}(f, leaf).backward();
  const Tensor unit_q = q / q.norm(2, {-1}, true), unit_f = f / f.norm(2, {-1}, true), c = (unit_q * unit_f).sum(-1, true);
  const Tensor expected = -(unit_f - c * unit_q) / (c.mean() * 10 * q.norm(2, {-1}, true));
  CHECK(greatest_error(leaf.grad(), expected) < 1e-13);
}

TEST_CASE("the worked example tells the four forms of the cosine apart") {
  const Tensor f = at::tensor({1.0, 2.0, 2.0, 0.0, 3.0, 4.0}).view({1, 2, 3}),
               q = at::tensor({1.0, 2.0, 1.0, 0.0, 4.0, 3.0}).view({1, 2, 3});
  const auto value = [&](NlcForm form) { return Nlc{.form = form}(f, q).item<double>(); };
  CHECK(value(NlcForm::mean_cosine) == Approx(0.0446944074).margin(1e-10));
  CHECK(value(NlcForm::token_log) == Approx(0.0447019344).margin(1e-10));
  CHECK(value(NlcForm::half_token) == Approx(0.0220993243).margin(1e-10));
  CHECK(value(NlcForm::flattened) == Approx(0.0461866601).margin(1e-10));
  CHECK(Mse{}(f, q).item<double>() == 0.5);
  CHECK(Sum<Mse, Nlc>{}(f, q).item<double>() == Approx(0.5446944074).margin(1e-10));
}

TEST_CASE("an error of length alone is the squared error's to see, a turn is seen by both") {
  at::manual_seed(10);
  const Tensor f = at::randn({2, 5, 8}, at::kDouble);
  CHECK(std::abs(Nlc{}(f, 1.1 * f).item<double>()) < 1e-14);
  CHECK(Mse{}(f, 1.1 * f).item<double>() == Approx(0.01 * f.square().mean().item<double>()));
  Tensor turned = f.clone();  // by 0.3 in the plane of the first two features: lengths stay
  turned.select(2, 0).copy_(std::cos(0.3) * f.select(2, 0) - std::sin(0.3) * f.select(2, 1));
  turned.select(2, 1).copy_(std::sin(0.3) * f.select(2, 0) + std::cos(0.3) * f.select(2, 1));
  CHECK(at::allclose(turned.norm(2, {-1}), f.norm(2, {-1})));
  CHECK(Nlc{}(f, turned).item<double>() > 1e-3);
  CHECK(Mse{}(f, turned).item<double>() > 1e-3);
}

TEST_CASE("the augmented term compares with the float block on the learned block's own input") {
  const Tensor reference = at::zeros({1, 2, 3}), own = at::ones({1, 2, 3}), output = 3 * at::ones({1, 2, 3});
  const Sum<Mse, Aug<>> loss;
  CHECK(loss(Targets{reference, own}, output).item<float>() == 9 + 4);
  CHECK(reads_own_target<Sum<Mse, Aug<>>>);
  CHECK(!reads_own_target<Sum<Mse, Nlc>>);
}

TEST_CASE("learning a smoothing lowers the loss and the error of four-bit blocks") {
  for (const Family family : {Family::llama, Family::opt}) {
    INFO(name(family));
    const Transformer model = tiny_model(family);
    const Tensor tokens = tiny_tokens(8, 24);
    Precision precision = formats("int4:channel:range=omni", "int4");
    for (const size_t i : {0, 1, 3}) precision.attention[i] = activations("int4");
    Recipe<Nearest, LearnedLog, Sum<Mse, Nlc, Aug<>>> recipe;
    recipe.smoothing.rate = 5e-3, recipe.learning.steps = 160, recipe.learning.batch = 4, recipe.learning.optimizer = Optimizer::adamw;
    const Kept rtn = walk(model, stages(Recipe<>{}), precision, tokens),
               start = walk(model, stages(Recipe<Nearest, StaticLog>{}), precision, tokens),
               done = walk(model, stages(recipe), precision, tokens);
    const auto& losses = done.reports[0].losses;
    REQUIRE(losses.size() == 160);
    CHECK(losses[158] + losses[159] < 0.9 * (losses[0] + losses[1]));
    CHECK(done.reports[1].error < rtn.reports[1].error);
    CHECK(done.reports[0].error < start.reports[0].error);
    for (const auto& [key, t] : done.blocks[0].state)
      if (key.starts_with("smoothing.s.")) CHECK(t.abs().min().item<double>() >= 0.01f);
    // What is committed is what was learned with: fused, rounded, biases and all.
    const QuantizedBlock& block = done.blocks[0];
    CHECK(block.linears[0].bias.defined());
    CHECK(block.norms[0].bias.defined());
    NamedTensors state;
    for (const auto& [key, t] : block.state)
      if (key.starts_with("smoothing.")) state[key.substr(10)] = t;
    const BlockParameters fused = recipe.smoothing.fuse(model.layout(), model.load(0), state);
    for (size_t i = 0; i < fused.linears.size(); ++i)
      CHECK(at::equal(block.linears[i].weight(),
                      fake_quantize(fused.linears[i].weight, fit_grid(fused.linears[i].weight, precision.weights))));
  }
}
