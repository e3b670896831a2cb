// FlexRound's and LRQ's weight quantizers against the released code: start, values, codes, gradients; and gradients in closed form.
#include "division.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// Gradients of Σ G Ŵ by the formulas: D = −G s m v, m the inclusive mask of the rounded coordinate; l1: Σ G s (q − m v).
NamedTensors closed_form(const NamedTensors& state, const Tensor& w, const Tensor& g, const Grid& grid, const Tensor& divisor) {
  const Tensor v = w / divisor, k = v.round(), lo = grid.lowest - grid.zero, hi = grid.highest - grid.zero;  // (rows, cols)
  const Tensor m = k.ge(lo).logical_and(k.le(hi)).to(w.scalar_type()), q = at::minimum(at::maximum(k, lo), hi);
  const Tensor d = -g * grid.scale * m * v, l1 = g * grid.scale * (q - m * v);
  NamedTensors all{{"l1", grid.scale.numel() == 1 ? l1.sum().reshape({1, 1}) : l1.sum(1, true)}, {"rho", d.sum(1, true)}};
  if (state.count("A") > 0) all["A"] = d;
  if (state.count("L") > 0) all["L"] = d.mm(state.at("U").t()), all["U"] = state.at("L").t().mm(d), all["gamma"] = d.sum(0, true);
  return all;
}

template <class P>
NamedTensors gradients(const P& policy, NamedTensors state, const Tensor& w, const Scheme& scheme, const Tensor& g) {
  const c10::AutoGradMode on(true);
  NamedTensors found;
  for (auto& [name, t] : state) t = name == "zero" ? t : t.clone().requires_grad_(true);
  (policy.weight(state, w, scheme) * g).sum().backward();
  for (const auto& [name, t] : state)
    if (name != "zero") found[name] = t.grad().defined() ? t.grad() : at::zeros_like(t);
  return found;
}

int64_t count(const Tensor& which) { return which.sum().item<int64_t>(); }

/// Relative to the largest entry; a gradient that is zero but for rounding is compared with what it is a sum of.
void check_gradient(const Tensor& mine, const Tensor& other, double tolerance, double summand) {
  const Tensor a = mine.reshape({-1}).to(at::kDouble), b = other.reshape({-1}).to(at::kDouble);
  CHECK(largest(a - b) <= tolerance * std::max(largest(b), 1e-3 * summand));
}

template <class P>
void replay(const P& policy, const io::Hdf5Reader& file, const std::string& name, Scheme scheme, const Precise& p) {
  const auto given = [&](const std::string& what) { return io::get(file, name + "/in/" + what).to(p.dtype); };
  const auto golden = [&](const std::string& what) { return io::get(file, cat(name, "/", p.name, "/", what)); };
  const Tensor w = given("W"), g = given("G");  // (rows, cols)
  if (file.attribute<int>(name, "per_channel") == 0) scheme.granularity = Granularity::tensor;
  const bool wide = p.dtype == at::kDouble;
  const Stages stages = ptq::stages(Recipe<P>{.rounding = policy});

  NamedTensors state = policy.start(w, scheme);
  if (state.count("U") > 0) state["U"] = given("U_init");
  CHECK(at::allclose(state.at("l1").reshape({-1}), golden("l1_init").reshape({-1}), p.step, p.step));
  check_equal(state.at("zero"), golden("zero"));
  const RoundingStage& stage = *stages.rounding;
  Tensor tie = at::zeros_like(w, at::kBool);
  if (const std::string mask = cat(name, "/", p.name, "/tie_mask_init"); file.exists(mask)) tie = io::get(file, mask).ne(0);
  const Tensor differs = signed_codes(stage, state, w, scheme).ne(golden("q_init"));
  CHECK(count(differs & ~tie) == 0);
  CHECK(count(tie) <= (scheme.symmetric ? w.size(0) : 0));
  if (wide && file.attribute<int>(name, "init_gradients_gateable") != 0)
    for (const auto& [which, t] : gradients(policy, state, w, scheme, g)) {
      INFO("at the start, " << which);
      check_gradient(t, golden("grad_init_" + which), 1e-11, largest(g * w));
      if (which == "U") CHECK(largest(t) == 0);  // L is zero
    }

  for (auto& [which, t] : state)
    if (which != "zero") t = given(which).reshape(t.sizes());
  CHECK(far(policy.weight(state, w, scheme), golden("Wq")) <= p.value);
  check_equal(signed_codes(stage, state, w, scheme), golden("q"));
  if (!wide) return;
  const Coordinates at = policy.coordinates(state, w, scheme);
  check_equal((w / at.divisor).round(), golden("k"));
  const NamedTensors expected = closed_form(state, w, g, *at.grid, at.divisor);
  for (const auto& [which, t] : gradients(policy, state, w, scheme, g)) {
    INFO(which);
    check_gradient(t, golden("grad_" + which), 1e-11, largest(g * w));
    check_gradient(t, expected.at(which), 1e-12, largest(g * w));
  }
}

}  // namespace

TEST_CASE("FlexRound's and LRQ's quantizers give the released code's values, codes and gradients", "[oracle]") {
  const auto files = oracles({"flexround_quantizer", "lrq_quantizer"});
  if (files.empty()) SKIP_TEST("no flexround_quantizer*.h5 or lrq_quantizer*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups()) {
      if (file.attribute<std::string>(name, "quirk") != "none") continue;  // the released symmetric search multiplies by a placeholder
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        with_division(file, name, 1e-3, [&](const auto& policy) { replay(policy, file, name, division_scheme(file, name), p); });
      }
    }
  }
}
