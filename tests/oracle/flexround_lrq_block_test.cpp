// FlexRound and LRQ learning the seven linears of a LLaMA block, against the released code.
#include "division.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct BlockRun {
  std::shared_ptr<const io::Hdf5Reader> file;
  Precise p;
  DivisionTolerance t{*file, p};
  Stages stages = division_stages(*file);
  Transformer model = block_model(file, p.dtype);
  BlockParameters loaded = model.load(0);
  std::vector<Scheme> schemes = std::vector<Scheme>(model.layout().sites.size(), division_scheme(*file, "/"));
  Formats formats = ptq::detail::no_formats(model.layout());
  Tensor x = given("X_q"), y = given("Y_fp");  // (samples, tokens, hidden)
  BlockState state = start();

  [[nodiscard]] Tensor given(const std::string& what) const { return io::get(*file, "in/" + what).to(p.dtype); }
  [[nodiscard]] Tensor golden(const std::string& what) const { return io::get(*file, cat(p.name, "/", what)); }
  [[nodiscard]] const Tensor& weight(size_t site) const { return loaded.linears[site].weight; }

  [[nodiscard]] BlockState start() const {
    BlockState s;
    for (size_t i = 0; i < schemes.size(); ++i) {
      s.rounding.push_back(stages.rounding->start(weight(i), schemes[i]));
      if (s.rounding.back().count("U") > 0) s.rounding.back()["U"] = given("U_init/" + short_name(model.layout().sites[i]));
    }
    return s;
  }
  [[nodiscard]] Tensor output(const Tensor& input) const {
    FormatOperators ops(model.config(), fake_quantized(stages, model.layout(), loaded, state, schemes), formats);
    return model.forward(0, input, ops);
  }
  [[nodiscard]] Tensor first_batch(const Tensor& of) const { return of.narrow(0, 0, stages.learning.batch); }

  /// State and codes after so many updates, of every linear.
  void check(int64_t step) const {
    const c10::NoGradGuard off;
    for (size_t i = 0; i < schemes.size(); ++i) {
      const std::string at = cat("step", step, "/", short_name(model.layout().sites[i]));
      INFO("after " << step << " updates");
      check_learned(*file, cat(p.name, "/learned/", at), state.rounding[i], t.parameter);
      if (file->exists(cat(p.name, "/codes/", at)))
        check_signed(signed_codes(*stages.rounding, state.rounding[i], weight(i), schemes[i]), golden("codes/" + at), t.codes);
    }
  }
  void check_first_gradients() {
    const c10::AutoGradMode on(true);
    for (NamedTensors& s : state.rounding)
      for (auto& [name, tensor] : s)
        if (name != "zero") tensor.requires_grad_(true);
    stages.loss->value({first_batch(y), {}}, output(first_batch(x))).backward();
    for (size_t i = 0; i < schemes.size(); ++i)
      for (auto& [name, tensor] : state.rounding[i]) {
        if (name == "zero") continue;
        INFO("first gradient of " << model.layout().sites[i].name << " " << name);
        const Tensor expected = golden(cat("grad_step1/", short_name(model.layout().sites[i]), "/", name));
        const double tolerance = expected.scalar_type() == at::kFloat ? 1e-7 : 1e-10;  // A is stored as float32
        CHECK(largest(tensor.grad() - expected) <= tolerance * std::max(largest(expected), 1e-300));
        tensor.mutable_grad().reset();
        tensor.requires_grad_(false);
      }
  }
};

void replay(BlockRun run) {
  const bool wide = run.p.dtype == at::kDouble;
  for (size_t i = 0; i < run.schemes.size(); ++i) {
    const std::string at = "init/" + short_name(run.model.layout().sites[i]);
    check_step(run.state.rounding[i].at("l1").exp(), run.golden(at + "/step"), {run.p.name, run.p.dtype, wide ? 1e-13 : 1e-6, 0});
    check_equal(run.state.rounding[i].at("zero"), run.golden(at + "/zero"));
  }
  run.check(0);
  if (wide) {
    run.check_first_gradients();
    CHECK(far(run.output(run.first_batch(run.x)), run.golden("block_out_step1_batch")) <= 1e-9);
  }
  const LearnOptions watch{.on_step = [&](int64_t step) {
    if (step == 1 || step == 10) run.check(step);
  }};
  const Descent done = learn_block(run.stages, run.model, 0, run.loaded, run.state, run.schemes, run.formats, run.x, run.y, 0, watch);
  check_losses(done.losses, run.golden("loss"), run.t, run.p);
  CHECK(done.tracked.back() < done.tracked.front());
  run.check(run.stages.learning.steps);
  if (wide) CHECK(far(run.output(run.x), run.golden("out_final")) <= 2e-7);
}

}  // namespace

TEST_CASE("FlexRound and LRQ learn a LLaMA block as the released code does, at every step", "[oracle]") {
  const auto files = oracles({"flexround_block", "lrq_block"});
  if (files.empty()) SKIP_TEST("no flexround_block*.h5 or lrq_block*.h5 in data/oracles or PTQ_ORACLES");
  const c10::NoGradGuard off;
  for (const auto& path : files)
    for (const Precise& p : golden_precisions) {
      INFO(path.filename().string() << " " << p.name);
      replay({std::make_shared<const io::Hdf5Reader>(path), p});
    }
}
