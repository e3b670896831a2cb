// Peak memory of learning one LLaMA block, beside the least that it can be: weights, learned parameters, their gradients and two moments,
// what one mini-batch leaves for the way back, streams. Without streams where these are mapped.

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include <ptq/calibration/reference.hpp>
#include <ptq/methods.hpp>
#include <ptq/quantize/learn.hpp>
#include <ptq/results/environment.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

constexpr int64_t hidden = 2048, ffn = 5632, heads = 32, tokens = 512;

struct Method {
  Stages stages;
  Precision precision;
};

Method method(const std::string& name) {
  const auto format = [](const char* text, Role role) { return Scheme::parse(text, "benchmark", role); };
  Method m{name == "lrquant" ? stages(methods::lrquant) : name == "lrq" ? stages(methods::lrq) : stages(methods::flexround), {}};
  m.precision.weights = format(name == "lrquant" ? "int4:channel:range=omni" : "int4:channel:range=flexround", Role::weight);
  if (name == "lrquant") {
    m.precision.activations = format("int4:token", Role::activation);
    for (const auto which : {Operand::query, Operand::key, Operand::value})
      m.precision.attention[static_cast<size_t>(which)] = m.precision.activations;
  }
  return m;
}

/// One block of normal weights.
Transformer llama_block() {
  ModelConfig c;
  c.family = Family::llama;
  c.vocab = 8, c.hidden = c.embedding_dim = hidden, c.ffn = ffn, c.layers = 1, c.heads = c.kv_heads = heads, c.head_dim = hidden / heads;
  c.max_positions = 2048;
  return Transformer(c, {[](const std::string&) { return true; },
                         [](const std::string& name, at::IntArrayRef size) {
                           at::manual_seed(std::hash<std::string>()(name));
                           return name.find("norm") != std::string::npos ? at::ones(size) : at::randn(size) * 0.03;
                         }});
}

struct Problem {
  Method how;
  Transformer model = llama_block();
  BlockParameters block = model.load(0);
  std::vector<Scheme> schemes{model.layout().sites.size(), how.precision.weights};
  Formats formats = formats_of(how.precision, model.layout(), 0);
  StreamMemory streams;
  Tensor x, target;  // (sequences, tokens, hidden)
  BlockState start;

  Problem(const std::string& name, int64_t sequences, StreamMemory memory) : how(method(name)), streams(std::move(memory)) {
    x = streams.empty({sequences, tokens, hidden}, at::kFloat);
    at::manual_seed(1);
    for (int64_t i = 0; i < sequences; ++i) x[i].normal_(), io::forget(x[i]);
    std::vector<Statistics> seen;
    target = reference_forward(model, 0, x, seen, 1024, streams);
    start.smoothing = how.stages.smoothing->start(model.layout(), block, seen);
    const BlockParameters fused = how.stages.smoothing->fuse(model.layout(), block, start.smoothing);
    for (size_t i = 0; i < schemes.size(); ++i) start.rounding.push_back(how.stages.rounding->start(fused.linears[i].weight, schemes[i]));
  }
  [[nodiscard]] static BlockState copy(BlockState state) {
    for (auto& [name, t] : state.smoothing) t = t.clone();
    for (NamedTensors& r : state.rounding)
      for (auto& [name, t] : r) t = t.clone();
    return state;
  }
  Descent learn(BlockState& state, int64_t steps) {
    how.stages.learning.steps = steps;
    return learn_block(how.stages, model, 0, block, state, schemes, formats, x, target, 0, {.streams = streams});
  }
  [[nodiscard]] double weight_bytes() const {
    double all = 0;
    for (const LinearParameters& l : block.linears) all += static_cast<double>(l.weight.nbytes());
    return all;
  }
  [[nodiscard]] double learned_bytes(BlockState state) const {
    std::vector<ParameterGroup> groups;
    for (NamedTensors& r : state.rounding) ptq::detail::collect_groups(how.stages.rounding->learnable(), {}, r, groups);
    ptq::detail::collect_groups(how.stages.smoothing->learnable(), {}, state.smoothing, groups);
    double all = 0;
    for (const ParameterGroup& g : groups)
      for (const Tensor& t : g.tensors) all += static_cast<double>(t.nbytes());
    return all;
  }
  /// What the float block must keep of a mini-batch: inputs of both norms and of four groups of linears, q, k, v, gate and up.
  [[nodiscard]] double saved_bytes() const {
    return static_cast<double>(how.stages.learning.batch * tokens * (8 * hidden + 3 * ffn)) * sizeof(float);
  }
};

void memory(benchmark::State& state, const std::string& name, int64_t sequences, bool mapped) {
  if (!results::forget_peak_memory()) return state.SkipWithError("skipped: this system keeps no peak that can be set back");
  Problem p(name, sequences, mapped ? StreamMemory::mapped(std::filesystem::temp_directory_path()) : StreamMemory());
  BlockState warm = Problem::copy(p.start);
  (void)p.learn(warm, 1);  // code, threads, scratch of the libraries
  warm = {};
  { const KeptMemory returns_what_is_free; }
  BlockState learned = Problem::copy(p.start);
  const bool set = results::forget_peak_memory();
  const results::ResidentMemory before = results::resident_memory();
  Descent done;
  for (auto _ : state) {
    const auto begun = std::chrono::steady_clock::now();
    done = p.learn(learned, 4);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  }
  const results::ResidentMemory after = results::resident_memory();
  if (!set || done.losses.size() != 4 || !std::isfinite(done.losses.back())) return state.SkipWithError("wrong: nothing was learned");
  const double weights = p.weight_bytes(), parameters = p.learned_bytes(learned), saved = p.saved_bytes();
  const double streams = mapped ? 0 : static_cast<double>(p.x.nbytes() + p.target.nbytes());
  const double grown = static_cast<double>(after.peak - before.all()), floor = weights + 4 * parameters + saved + streams;
  auto& c = state.counters;
  c["weights"] = weights, c["parameters"] = parameters, c["gradients"] = parameters, c["moments"] = 2 * parameters, c["saved"] = saved;
  c["streams"] = streams, c["grown"] = grown, c["file_pages"] = static_cast<double>(after.file - before.file);
  c["peak"] = weights + parameters + streams + grown, c["floor"] = floor, c["memory_ratio"] = c["peak"] / floor;
}

}  // namespace

void register_learning_memory() {
  for (const char* name : {"flexround", "lrq", "lrquant"}) {
    add(
        cat("learning/memory_", name, "/2048x5632_1024"), [=](benchmark::State& s) { memory(s, name, 8, false); }, 1);
    add(
        cat("learning/memory_", name, "_mapped/2048x5632_1024"), [=](benchmark::State& s) { memory(s, name, 64, true); }, 1);
  }
}
