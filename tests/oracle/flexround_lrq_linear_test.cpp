// FlexRound and LRQ learning one linear, against the released code: losses of every step, gradients, parameters, codes, outputs.
#include <ptq/core/minimize.hpp>

#include "division.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct LinearRun {
  const io::Hdf5Reader& file;
  Precise p;
  Stages stages = division_stages(file);
  Scheme scheme = division_scheme(file, "/");
  Tensor w = given("W"), x = given("X_q"), y = given("Y_fp");  // (out, in), (samples, tokens, in), (samples, tokens, out)
  Tensor bias = file.exists("in/bias") ? given("bias") : Tensor();
  NamedTensors state = start();

  [[nodiscard]] Tensor given(const std::string& what) const { return io::get(file, "in/" + what).to(p.dtype); }
  [[nodiscard]] Tensor golden(const std::string& what) const { return io::get(file, cat(p.name, "/", what)); }
  [[nodiscard]] bool has(const std::string& what) const { return file.exists(cat(p.name, "/", what)); }

  [[nodiscard]] NamedTensors start() const {
    NamedTensors s = stages.rounding->start(w, scheme);
    if (s.count("U") > 0) s["U"] = given("U_init/proj");
    if (file.exists("in/l1_start")) s["l1"] = given("l1_start");
    return s;
  }
  [[nodiscard]] Tensor output(const Tensor& input) const { return affine(input, stages.rounding->weight(state, w, scheme), bias); }
  [[nodiscard]] Tensor loss(int64_t step) const {
    const int64_t batch = stages.learning.batch, first = step % (x.size(0) / batch) * batch;
    return stages.loss->value({y.narrow(0, first, batch), {}}, output(x.narrow(0, first, batch)));
  }

  void check_step(int64_t step, const DivisionTolerance& t) {
    const c10::NoGradGuard off;
    const std::string at = cat("step", step, "/proj");
    INFO("after " << step << " updates");
    check_learned(file, cat(p.name, "/learned/", at), state, t.parameter);
    if (has("codes/" + at)) check_signed(signed_codes(*stages.rounding, state, w, scheme), golden("codes/" + at), t.codes);
  }
};

void check_first_gradients(LinearRun& run) {
  const c10::AutoGradMode on(true);
  for (auto& [name, t] : run.state)
    if (name != "zero") t.requires_grad_(true);
  run.loss(0).backward();
  for (auto& [name, t] : run.state) {
    if (name == "zero") continue;
    INFO("first gradient of " << name);
    const Tensor expected = run.golden("grad_step1/proj/" + name);
    CHECK(largest(t.grad().reshape({-1}) - expected.reshape({-1})) <= 1e-11 * std::max(largest(expected), 1e-300));
    t.mutable_grad().reset();
    t.requires_grad_(false);
  }
}

Descent learn(LinearRun& run, const std::function<void(int64_t)>& on_step) {
  ParameterGroup all{{}, run.stages.rounding->learnable().front().rate};
  for (const auto& [name, tensor] : run.state)
    if (name != "zero") all.tensors.push_back(tensor);
  const Learning& how = run.stages.learning;
  const auto loss = [&](int64_t step) {
    if (on_step) on_step(step);
    return run.loss(step);
  };
  return minimise({all}, how, how.steps, how.epsilon, loss, "linear");
}

void replay(const io::Hdf5Reader& file, const Precise& p) {
  LinearRun run{file, p};
  DivisionTolerance t(file, p);
  check_step(file.exists("in/l1_start") ? fit_grid(run.w, run.scheme).scale : run.state.at("l1").exp(), run.golden("init/proj/step"),
             {p.name, p.dtype, p.dtype == at::kDouble ? 1e-13 : 1e-6, 0});
  check_equal(run.state.at("zero"), run.golden("init/proj/zero"));
  run.check_step(0, t);
  if (p.dtype == at::kDouble) {
    check_first_gradients(run);
    CHECK(far(run.output(run.x.narrow(0, 0, run.stages.learning.batch)), run.golden("block_out_step1_batch")) <= 1e-9);
  }
  const Descent done = learn(run, [&](int64_t step) {
    if (step == 1 || step == 10) run.check_step(step, t);
  });
  check_losses(done.losses, run.golden("loss"), t, p);
  if (!t.gates) return;
  run.check_step(run.stages.learning.steps, t);
  if (p.dtype == at::kDouble) CHECK(far(run.output(run.x), run.golden("out_final")) <= 2e-7);
}

}  // namespace

TEST_CASE("FlexRound and LRQ learn a linear as the released code does, at every step", "[oracle]") {
  const auto files = oracles({"flexround_linear", "lrq_linear"});
  if (files.empty()) SKIP_TEST("no flexround_linear*.h5 or lrq_linear*.h5 in data/oracles or PTQ_ORACLES");
  const c10::NoGradGuard off;
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const Precise& p : golden_precisions) {
      INFO(path.filename().string() << " " << p.name);
      replay(file, p);
    }
  }
}
