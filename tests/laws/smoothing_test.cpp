// Laws of smoothings, on every member: LLaMA, grouped heads, OPT, and every model of the zoo.
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "models.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Subject {
  std::string name;
  std::shared_ptr<Transformer> model;  // float64
  Tensor tokens;
};

std::vector<Subject> subjects() {
  std::vector<Subject> all;
  for (const Family f : {Family::llama, Family::opt})
    all.push_back({std::string(name(f)), std::make_shared<Transformer>(tiny_model(f, at::kDouble)), tiny_tokens()});
  for (const auto& folder : zoo()) {
    const io::Hdf5Reader reference(folder / "reference.h5");
    const Tensor given = ids(reference, "ids");
    all.push_back({folder.filename().string(), std::make_shared<Transformer>(open_model(folder, at::kDouble)),
                   given.narrow(0, 0, 1).narrow(1, 0, std::min<int64_t>(64, given.size(1)))});
  }
  return all;
}

template <class P, class Law>
void on_all(const Law& law) {
  for (const Subject& s : subjects())
    for (const P& p : Variants<P>::all())
      for (int64_t block = 0; block < std::min<int64_t>(2, s.model->blocks()); ++block) {
        INFO(s.name << " block " << block << ", " << label(p));
        ComputedReference reference(*s.model, s.tokens, 4096);
        const BlockParameters plain = s.model->load(block);
        const NamedTensors state = p.start(s.model->layout(), plain, reference.statistics(block));
        law(s, block, p, plain, state, reference.input(block));
      }
}

Tensor output(const Subject& s, int64_t block, const BlockParameters& parameters, const Tensor& x) {
  FloatOperators ops(s.model->config(), parameters);
  return s.model->forward(block, x, ops);
}

/// Everything finite; factors, "s.<group>", positive.
void check_state(const NamedTensors& state) {
  for (const auto& [key, t] : state) {
    INFO(key);
    CHECK(at::isfinite(t).all().item<bool>());
    if (key.starts_with("s.") || key.find(".s.") != std::string::npos) CHECK(t.gt(0).all().item<bool>());
  }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("a smoothing leaves the float output of a block where it was", "[laws]", Smoothings) {
  on_all<TestType>(
      [](const Subject& s, int64_t block, const TestType& p, const BlockParameters& plain, const NamedTensors& state, const Tensor& x) {
        const BlockParameters fused = p.fuse(s.model->layout(), plain, state);
        const Tensor before = output(s, block, plain, x), after = output(s, block, fused, x);
        CHECK(greatest_error(after, before) < 1e-12);
        if (!state.empty()) {  // it did something
          bool changed = false;
          for (size_t i = 0; i < plain.linears.size(); ++i)
            changed = changed || !at::equal(plain.linears[i].weight, fused.linears[i].weight);
          CHECK(changed);
        }
      });
}

TEMPLATE_LIST_TEST_CASE("factors of a smoothing are positive and finite, dead and outlying channels included", "[laws]", Smoothings) {
  on_all<TestType>(
      [](const Subject& s, int64_t, const TestType& p, const BlockParameters& plain, const NamedTensors& given, const Tensor&) {
        std::vector<Statistics> hostile(s.model->layout().groups.size());
        for (size_t g = 0; g < hostile.size(); ++g) {
          const int64_t n = s.model->layout().groups[g].width;
          const Tensor x = at::ones({n}, at::kDouble);
          x[0] = 0, x[1] = 1e30, x[2] = 1e-30;
          hostile[g].absmax = x, hostile[g].low = -x, hostile[g].high = x, hostile[g].profile = x.unsqueeze(0),
          hostile[g].square = x.square(), hostile[g].middle = x, hostile[g].tokens = hostile[g].sequences = 1;
        }
        check_state(given);
        check_state(p.start(s.model->layout(), plain, hostile));
      });
}

TEST_CASE("no smoothing at all returns the very tensors it was given", "[laws]") {
  on_all<NoSmoothing>(
      [](const Subject& s, int64_t, const NoSmoothing& p, const BlockParameters& plain, const NamedTensors& state, const Tensor&) {
        CHECK(state.empty());
        const BlockParameters fused = p.fuse(s.model->layout(), plain, state);
        for (size_t i = 0; i < plain.linears.size(); ++i) CHECK(fused.linears[i].weight.is_same(plain.linears[i].weight));
        for (size_t i = 0; i < plain.norms.size(); ++i) CHECK(fused.norms[i].weight.is_same(plain.norms[i].weight));
        for (const Tensor& t : fused.input_scale) CHECK(!t.defined());
      });
}

TEST_CASE("what a smoothing takes from activations it gives to weights", "[laws]") {  // SmoothQuant, eq. 4: the maxima meet at alpha 0.5
  const Transformer model = tiny_model(Family::llama, at::kDouble);
  ComputedReference reference(model, tiny_tokens(), 4096);
  const BlockParameters plain = model.load(0);
  const SmoothQuant half{.alpha = 0.5, .sites = SmoothSites::all, .fold = false};
  const auto stats = reference.statistics(0);
  const BlockParameters fused = half.fuse(model.layout(), plain, half.start(model.layout(), plain, stats));
  for (size_t g = 0; g < stats.size(); ++g) {
    Tensor w;
    for (const int site : model.layout().groups[g].sites) {
      const Tensor most = fused.linears[static_cast<size_t>(site)].weight.abs().amax(0);
      w = w.defined() ? at::maximum(w, most) : most;
    }
    const NamedTensors state = half.start(model.layout(), plain, stats);
    CHECK(at::allclose(w, stats[g].absmax / state.at("s." + model.layout().groups[g].name), 1e-12));
  }
}
