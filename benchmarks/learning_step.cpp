// One update of FlexRound on a LLaMA block: forward and backward of the fake-quantized block, Adam. Least work: three products a linear.
// Counters `division` and `adam` are the shares of time of those parts alone; the rest is products, attention, norms and activations.

#include <algorithm>
#include <chrono>
#include <memory>

#include <ptq/quantize/learn.hpp>
#include <ptq/rounding/flexround.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

ModelConfig configuration(int64_t hidden, int64_t ffn) {
  ModelConfig c;
  c.family = Family::llama;
  c.vocab = 8, c.hidden = c.embedding_dim = hidden, c.ffn = ffn, c.layers = 1, c.head_dim = 64, c.heads = c.kv_heads = hidden / 64;
  c.max_positions = 2048;
  return c;
}

struct Step {
  ModelConfig config;
  Transformer model;
  BlockParameters block;
  std::vector<Scheme> schemes;
  Stages stages = ptq::stages(Recipe<FlexRound>{.loss = {Reduce::sum}});
  BlockState state;
  Tensor x, target;  // (2, tokens, hidden)
  Formats formats;
  std::vector<ParameterGroup> groups;
  std::unique_ptr<Adam> adam;
  double loss = 0;

  Step(int64_t hidden, int64_t ffn, int64_t tokens, at::ScalarType dtype)
      : config(configuration(hidden, ffn)),
        model(config,
              {[](const std::string&) { return true; },
               [](const std::string& name, at::IntArrayRef shape) {
                 at::manual_seed(std::hash<std::string>()(name));
                 return name.find("norm") != std::string::npos ? at::ones(shape) : at::randn(shape) * 0.03;
               }},
              dtype),
        block(model.load(0)) {
    at::manual_seed(1);
    x = at::randn({2, tokens, hidden}).to(dtype);
    const Layout& layout = model.layout();
    Scheme scheme;
    scheme.bits = 4, scheme.range = Range::flexround;
    schemes.assign(layout.sites.size(), scheme);
    formats = ptq::detail::no_formats(layout);
    for (const LinearParameters& l : block.linears) state.rounding.push_back(stages.rounding->start(l.weight, scheme));
    const c10::NoGradGuard off;
    FloatOperators ops(config, block);
    target = model.forward(0, x, ops);
    for (NamedTensors& s : state.rounding) ptq::detail::collect_groups(stages.rounding->learnable(), {}, s, groups);
    adam = std::make_unique<Adam>(groups, stages.learning, 1e-8);
  }

  /// Everything of one update but the change of parameters: the rate is multiplied by zero, so that every step is the same.
  void operator()() {
    const c10::AutoGradMode on(true);
    adam->clear();
    FormatOperators ops(config, fake_quantized(stages, model.layout(), block, state, schemes), formats);
    const Tensor value = stages.loss->value({target, {}}, model.forward(0, x, ops));
    loss = value.item<double>();
    value.backward();
    adam->step(0);
  }
  void division() {
    const c10::AutoGradMode on(true);
    adam->clear();
    const BlockParameters rounded = fake_quantized(stages, model.layout(), block, state, schemes);
    for (size_t i = 0; i < schemes.size(); ++i) rounded.linears[i].weight.backward(block.linears[i].weight);
  }
  [[nodiscard]] double multiplications() const {
    double weights = 0;
    for (const LinearParameters& l : block.linears) weights += static_cast<double>(l.weight.numel());
    return 6 * weights * static_cast<double>(x.size(0) * x.size(1));
  }
};

double seconds(const std::function<void()>& work) {
  std::vector<double> all;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    all.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(all.begin(), all.end());
  return all[2];
}

void step(benchmark::State& state, int64_t hidden, int64_t ffn, int64_t tokens) {
  const auto mine = std::make_shared<Step>(hidden, ffn, tokens, at::kFloat);
  Case c;
  c.ours = [=] { (*mine)(); };
  c.error = [=] {
    Step exact(hidden, ffn, tokens, at::kDouble);
    exact();
    return std::abs(mine->loss / exact.loss - 1);
  };
  c.tolerance = 1e-3;
  c.ceiling = Ceiling::multiply, c.work = mine->multiplications();
  measure(state, c);
  const double whole = seconds(c.ours);
  state.counters["division"] = seconds([&] { mine->division(); }) / whole;
  (*mine)();
  state.counters["adam"] = seconds([&] { mine->adam->step(0); }) / whole;
}

}  // namespace

void register_learning_step() {
  add(
      "learning/step/576x1536_512/multiply/quick", [](benchmark::State& s) { step(s, 576, 1536, 512); }, 3);
  add(
      "learning/step/2048x5632_1024/multiply", [](benchmark::State& s) { step(s, 2048, 5632, 1024); }, 3);
}
