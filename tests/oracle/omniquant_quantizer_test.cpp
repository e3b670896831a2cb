// Learned weight clipping against the released codes of OmniQuant and LRQuant: steps, codes, values, gradients; and these in closed form.
#include <ptq/rounding/learned_clip.hpp>

#include "golden.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct ClipCase {
  const io::Hdf5Reader& file;
  std::string at;
  Precise p;
  Scheme scheme;
  bool clips = flag("lwc");

  [[nodiscard]] bool flag(const char* what) const { return file.attribute<int>(at, what) != 0; }
  [[nodiscard]] Tensor given(const char* what) const { return io::get(file, cat(at, "/in/", what)).to(p.dtype); }
  [[nodiscard]] std::string place(const std::string& stage, const char* what) const { return cat(at, "/", p.name, "/", stage, "/", what); }
};

void check_gradient(const Tensor& mine, const Tensor& other, double tolerance) {
  CHECK(largest(mine.reshape({-1}) - other.reshape({-1})) <= tolerance * std::max(largest(other), 1e-300));
}

/// ∂/∂u = S max σ'(u) / Q, ∂/∂l = −S min σ'(l) / Q for asymmetric grids with an unclamped step; S = Σ G ∂Ŵ/∂s, row by row.
void check_closed_form(const ClipCase& c, const Tensor& w, const Tensor& g, const NamedTensors& state, const Grid& grid) {
  const int64_t group = w.size(1) / grid.groups();
  const Tensor x = w.reshape({-1, group}), s = grid.scale.reshape({-1, 1}), z = grid.zero.reshape({-1, 1});  // (rows · groups, …)
  const Tensor k = (x / s).round(), lo = grid.lowest - z, hi = grid.highest - z;
  const Tensor slope = at::where(k.gt(hi), hi.to(x.scalar_type()), at::where(k.lt(lo), lo.to(x.scalar_type()), k - x / s));
  const Tensor sum = (g.reshape(x.sizes()) * slope).sum(1);
  const double most = (1 << c.scheme.bits) - 1;
  const Tensor up = at::sigmoid(state.at("up").reshape({-1})), low = at::sigmoid(state.at("low").reshape({-1}));
  const Tensor step = (x.amax(1) * up - x.amin(1) * low) / most, free = step.gt(1e-5).logical_and(step.lt(1e4));
  check_gradient(state.at("up").grad(), sum * x.amax(1) * up * (1 - up) / most * free, 1e-12);
  check_gradient(state.at("low").grad(), -sum * x.amin(1) * low * (1 - low) / most * free, 1e-12);
}

void replay(const ClipCase& c, const std::string& stage) {
  INFO(stage);
  const c10::AutoGradMode on(true);
  const Tensor w = c.given("W").requires_grad_(true), g = c.given("G");  // (rows, cols)
  NamedTensors state;
  Tensor y;
  Grid grid;
  if (c.clips) {
    const LearnedClip clip{};
    state = clip.start(w, c.scheme);
    if (stage == "learned")
      for (const char* name : {"up", "low"}) state[name] = c.given(name).reshape(state[name].sizes());
    for (auto& [name, t] : state) t.requires_grad_(true);
    y = clip.weight(state, w, c.scheme), grid = *clip.coordinates(state, w, c.scheme).grid;
  } else {
    y = Nearest{}.weight({}, w, c.scheme), grid = fit_grid(w, c.scheme);
  }
  const auto golden = [&](const char* what) { return io::get(c.file, c.place(stage, what)); };
  const auto has = [&](const char* what) { return c.file.exists(c.place(stage, what)); };
  check_step(grid.scale, golden("scale"), c.p);
  if (has("zero")) check_equal(grid.zero, golden("zero"));
  check_equal(quantize(w.detach(), grid).to(at::kInt) + grid.lowest, golden("codes"));
  if (has("y")) CHECK(far(y.detach(), golden("y")) <= c.p.value);
  CHECK(at::equal(y.detach(), fake_quantize(w.detach(), grid)));
  if (!has("grad_W")) return;
  (y * g).sum().backward();
  check_gradient(w.grad(), golden("grad_W"), 1e-11);
  if (!c.clips) return;
  check_gradient(state.at("up").grad(), golden("grad_up"), 1e-11);
  check_gradient(state.at("low").grad(), golden("grad_low"), 1e-11);
  if (!c.scheme.symmetric) check_closed_form(c, w.detach(), g, state, grid);
}

}  // namespace

TEST_CASE("learned clipping gives the released codes' steps, codes, values and gradients", "[oracle]") {
  const auto files = oracles({"lrquant_quantizer", "omniquant_quantizer"});
  if (files.empty()) SKIP_TEST("no lrquant_quantizer*.h5 or omniquant_quantizer*.h5 in data/oracles or PTQ_ORACLES");
  int ragged = 0, replayed = 0;
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups("weight")) {
      const std::string at = "weight/" + name;
      const auto group = file.attribute<int64_t>(at, "group_size");
      if (group > 0 && file.attribute<int64_t>(at, "cols") % group != 0) {
        ++ragged;
        continue;
      }
      Scheme s;
      s.bits = file.attribute<int>(at, "bits"), s.symmetric = file.attribute<int>(at, "symmetric") != 0;
      s.range = file.attribute<int>(at, "disable_zero_point") != 0 ? Range::omni_no_zero_point : Range::omni;
      if (group > 0) s.granularity = Granularity::group, s.group = group;
      for (const Precise& p : golden_precisions)
        for (const char* stage : {"init", "learned"}) {
          if (!file.exists(cat(at, "/", p.name, "/", stage))) continue;
          INFO(path.filename().string() << " " << name << " " << p.name);
          replay({file, at, p, s}, stage);
          ++replayed;
        }
    }
  }
  CHECK(replayed > 0);
  if (ragged > 0) WARN(ragged << " cases have a group size that does not divide the columns; formats refuse that");
}
