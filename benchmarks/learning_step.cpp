// One update of a learned method on a LLaMA block: forward and backward of the fake-quantized block, optimizer. Least work: three products
// a linear, and what factors multiply. `products` is the share of the time of an update that is spent in matrix products, taken in the
// update itself, attention's included; `kernels` that of no operator of libtorch: roundings, transposes and the time between operators;
// `optimizer` that of Adam. What remains are softmax, norms, activations and copies. PTQ_BENCH_SPLIT=1 prints all operators. The peer of
// `_bf16` is the same update in float32.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <ptq/calibration/reference.hpp>
#include <ptq/core/kept_memory.hpp>
#include <ptq/methods.hpp>
#include <ptq/quantize/learn.hpp>

#include "paired.hpp"
#include "split.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// A block's shape and how much of it an update sees.
struct Shape {
  int64_t hidden, ffn, heads, kv_heads;
  int64_t sequences = 2, tokens = 512;
};
constexpr Shape smollm2{576, 1536, 9, 3}, llama{2048, 5632, 32, 32};

ModelConfig configuration(const Shape& s) {
  ModelConfig c;
  c.family = Family::llama;
  c.vocab = 8, c.hidden = c.embedding_dim = s.hidden, c.ffn = s.ffn, c.layers = 1, c.head_dim = s.hidden / s.heads, c.heads = s.heads;
  c.kv_heads = s.kv_heads, c.max_positions = 2048;
  return c;
}

/// A method with the formats of its paper.
struct Method {
  Stages stages;
  Precision precision;
};

Scheme format(const char* text, Role role) { return Scheme::parse(text, "benchmark", role); }

Method method(const std::string& name) {
  if (name == "lrquant") {
    Method m{stages(methods::lrquant), {}};
    m.precision.weights = format("int4:channel:range=omni", Role::weight);
    m.precision.activations = format("int4:token", Role::activation);
    for (const auto which : {Operand::query, Operand::key, Operand::value})
      m.precision.attention[static_cast<size_t>(which)] = m.precision.activations;
    return m;
  }
  Method m{name == "lrq" ? stages(methods::lrq) : stages(methods::flexround), {}};
  m.precision.weights = format("int4:channel:range=flexround", Role::weight);
  return m;
}

struct Step {
  KeptMemory kept;  // as in learn_block
  ModelConfig config;
  Transformer model;
  BlockParameters block;
  Stages stages;
  std::vector<Scheme> schemes;
  BlockState state;
  Tensor x, target;  // (sequences, tokens, hidden)
  Formats formats;
  std::vector<ParameterGroup> groups;
  std::unique_ptr<Adam> adam;
  double loss = 0;

  Step(const Method& how, const Shape& shape, at::ScalarType dtype)
      : config(configuration(shape)),
        model(config,
              {[](const std::string&) { return true; },
               [](const std::string& name, at::IntArrayRef size) {
                 at::manual_seed(std::hash<std::string>()(name));
                 return name.find("norm") != std::string::npos ? at::ones(size) : at::randn(size) * 0.03;
               }},
              dtype),
        block(model.load(0)),
        stages(how.stages),
        schemes(model.layout().sites.size(), how.precision.weights) {
    const c10::NoGradGuard off;
    at::manual_seed(1);
    x = at::randn({shape.sequences, shape.tokens, shape.hidden}).to(dtype);
    const Layout& layout = model.layout();
    formats = formats_of(how.precision, layout, 0);
    std::vector<Statistics> seen;
    target = reference_forward(model, 0, x, seen, 4096);
    state.smoothing = stages.smoothing->start(layout, block, seen);
    const BlockParameters fused = stages.smoothing->fuse(layout, block, state.smoothing);
    for (size_t i = 0; i < schemes.size(); ++i) state.rounding.push_back(stages.rounding->start(fused.linears[i].weight, schemes[i]));
    for (NamedTensors& s : state.rounding) ptq::detail::collect_groups(stages.rounding->learnable(), {}, s, groups);
    ptq::detail::collect_groups(stages.smoothing->learnable(), {}, state.smoothing, groups);
    adam = std::make_unique<Adam>(groups, stages.learning, 1e-8);
  }

  /// Everything of one update but the change of parameters: the rate is multiplied by zero, so that every step is the same.
  void operator()() {
    const c10::AutoGradMode on(true);
    adam->clear();
    FormatOperators ops(config, fake_quantized(stages, model.layout(), block, state, schemes), formats);
    const NarrowProducts narrow(stages.learning.products == LearningProducts::bf16);
    const Tensor value = stages.loss->value({target, {}}, model.forward(0, x, ops));
    loss = value.item<double>();
    value.backward();
    adam->step(0);
  }
  [[nodiscard]] double multiplications() const {
    double all = 0;
    const auto tokens = static_cast<double>(x.size(0) * x.size(1));
    for (size_t i = 0; i < schemes.size(); ++i) {
      const auto weights = static_cast<double>(block.linears[i].weight.numel());
      all += 6 * weights * tokens;
      if (const auto l = state.rounding[i].find("L"); l != state.rounding[i].end())
        all += 6 * weights * static_cast<double>(l->second.size(1));
    }
    return all;
  }
};

/// Shares of the time of one update, the median of five in `products`.
void report(benchmark::State& state, Step& step) {
  using Split = std::pair<double, std::map<std::string, double>>;
  std::vector<Split> all;
  for (int i = 0; i < 5; ++i) {
    const auto found = split([&] { step(); });
    double whole = 0, products = 0;
    for (const auto& [name, s] : found) whole += s, products += multiplies(name) ? s : 0;
    std::map<std::string, double> shares;
    for (const auto& [name, s] : found) shares[name] = s / whole;
    all.emplace_back(products / whole, std::move(shares));
  }
  std::sort(all.begin(), all.end(), [](const Split& a, const Split& b) { return a.first < b.first; });
  const auto& shares = all[2].second;
  const auto sum = [&](const auto& wanted) {
    double s = 0;
    for (const auto& [name, share] : shares) s += wanted(name) ? share : 0;
    return s;
  };
  const auto holds = [](const char* part) { return [=](const std::string& name) { return name.find(part) != std::string::npos; }; };
  state.counters["products"] = all[2].first;
  state.counters["kernels"] = shares.at("");
  state.counters["optimizer"] = sum(holds("fused_adam"));
  if (std::getenv("PTQ_BENCH_SPLIT") == nullptr) return;
  std::vector<std::pair<double, std::string>> sorted;
  for (const auto& [name, share] : shares) sorted.emplace_back(share, name);
  std::sort(sorted.rbegin(), sorted.rend());
  for (const auto& [share, name] : sorted)
    if (share > 0.002) std::fprintf(stderr, "  %5.1f %%  %s\n", 100 * share, name.empty() ? "(kernels, between operators)" : name.c_str());
}

void step(benchmark::State& state, const std::string& name, const Shape& shape, LearningProducts products) {
  Method how = method(name);
  const auto plain = std::make_shared<Step>(how, shape, at::kFloat);
  how.stages.learning.products = products;
  const bool narrow = products == LearningProducts::bf16;
  if (narrow && !kernels::multiplies_bfloat16()) return state.SkipWithError("skipped: this processor does not multiply bfloat16");
  const auto mine = narrow ? std::make_shared<Step>(how, shape, at::kFloat) : plain;
  Case c;
  c.ours = [=] { (*mine)(); };
  if (narrow) c.peer = [=] { (*plain)(); };
  c.error = [=] {
    Step exact(method(name), shape, at::kDouble);
    exact();
    return std::abs(mine->loss / exact.loss - 1);
  };
  c.tolerance = narrow || name == "lrquant" ? 0.02 : 1e-3;  // with rounded activations, values on the other side of a tie
  c.ceiling = Ceiling::multiply, c.work = mine->multiplications();
  measure(state, c);
  report(state, *mine);
}

}  // namespace

void register_learning_step() {
  for (const char* name : {"flexround", "lrq", "lrquant"}) {
    add(
        cat("learning/step_", name, "/576x1536_1024/multiply/quick"),
        [=](benchmark::State& s) { step(s, name, smollm2, LearningProducts::f32); }, 3);
    add(
        cat("learning/step_", name, "/2048x5632_1024/multiply"), [=](benchmark::State& s) { step(s, name, llama, LearningProducts::f32); },
        3);
    add(
        cat("learning/step_", name, "_bf16/2048x5632_1024/multiply"),
        [=](benchmark::State& s) { step(s, name, llama, LearningProducts::bf16); }, 3);
  }
}
