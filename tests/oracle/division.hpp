// Golden files of FlexRound and LRQ: their settings as recipes, and what the replays share.
#pragma once

#include <memory>
#include <set>
#include <string>

#include <ptq/quantize.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/lrq.hpp>

#include "toy_model.hpp"

namespace ptq::test {

/// The number format of a file, or of one of its cases.
inline Scheme division_scheme(const io::Hdf5Reader& file, const std::string& at) {
  const auto flag = [&](const char* what) { return file.attribute<int>(at, what) != 0; };
  Scheme s;
  s.bits = file.attribute<int>(at, "bits"), s.symmetric = flag("symmetric"), s.search = flag("search"), s.range = Range::flexround;
  return s;
}

inline bool is_lrq(const io::Hdf5Reader& file, const std::string& at) { return file.attribute<std::string>(at, "mode") == "lrq"; }

/// Runs work(policy) with the rounding of the file: FlexRound, or LRQ of its rank.
template <class Work>
void with_division(const io::Hdf5Reader& file, const std::string& at, double rate, const Work& work) {
  if (is_lrq(file, at))
    work(Lrq{.rate = rate, .ranks = RankRule::fixed, .rank = file.attribute<int64_t>(at, "rank")});
  else
    work(FlexRound{.rate = rate});
}

/// The rounding of a file whose right factors are given: LRQ's U, by weight.
struct GivenFactors final : RoundingStage {
  std::shared_ptr<const RoundingStage> inner;
  std::vector<std::pair<Tensor, Tensor>> factors;  // weight, U

  NamedTensors start(const Tensor& w, const Scheme& s) const override {
    NamedTensors state = inner->start(w, s);
    if (state.count("U") == 0) return state;
    for (const auto& [weight, u] : factors)
      if (weight.sizes() == w.sizes() && at::equal(weight, w)) {
        state["U"] = u.clone();
        return state;
      }
    fail("no right factor of this weight is given");
  }
  std::vector<Learnable> learnable() const override { return inner->learnable(); }
  Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& s) const override { return inner->weight(state, w, s); }
  Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& s) const override {
    return inner->coordinates(state, w, s);
  }
};

/// The recipe of a reconstruction file: sum over tokens, Adam, cosine rate, batches in order, the last iterate.
inline Stages division_stages(const io::Hdf5Reader& file) {
  Learning how;
  how.steps = file.attribute<int64_t>("/", "iters"), how.batch = file.attribute<int64_t>("/", "batch"), how.schedule = Schedule::cosine;
  Stages out;
  with_division(file, "/", file.attribute<double>("/", "w_lr"), [&](const auto& rounding) {
    out = stages(Recipe<std::remove_cvref_t<decltype(rounding)>>{.rounding = rounding, .loss = {Reduce::sum}, .learning = how});
  });
  return out;
}

/// The one block of a block file as a model; its embedding and head are not in the file and stay zero.
inline Transformer block_model(const std::shared_ptr<const io::Hdf5Reader>& file, at::ScalarType dtype) {
  const auto size = [&](const char* name) { return file->attribute<int64_t>("/", name); };
  ModelConfig c;
  c.family = Family::llama;
  c.vocab = 1, c.hidden = c.embedding_dim = size("hidden"), c.ffn = size("ffn"), c.layers = 1, c.heads = size("heads");
  c.kv_heads = size("kv_heads"), c.head_dim = size("head_dim"), c.max_positions = size("tokens"), c.activation = Activation::silu;
  c.norm_eps = file->attribute<double>("/", "rms_eps"), c.rope_theta = file->attribute<double>("/", "rope_theta");
  return Transformer(c,
                     {[](const std::string&) { return true; },
                      [=](const std::string& name, at::IntArrayRef shape) {
                        const size_t layer = name.find("layers.");
                        if (layer == std::string::npos) return at::zeros(shape);
                        std::string place = "in/weights/" + name.substr(layer);
                        place[place.rfind('.')] = '/';
                        return io::get(*file, place);
                      }},
                     dtype);
}

/// "self_attn.q_proj" → "q_proj".
inline std::string short_name(const Site& site) { return site.name.substr(site.name.rfind('.') + 1); }

/// Signed codes as released: stored ones less the zero point. (rows, cols) int32
inline Tensor signed_codes(const Tensor& codes, const Grid& grid) { return codes.to(at::kInt) + grid.lowest - grid.zero; }
inline Tensor signed_codes(const RoundingStage& rounding, const NamedTensors& state, const Tensor& w, const Scheme& scheme) {
  const Coordinates at = rounding.coordinates(state, w, scheme);
  return signed_codes(quantize(w, *at.grid, at.divisor), *at.grid);
}

/// Tolerances of a reconstruction file in one precision.
struct DivisionTolerance {
  double loss, parameter, codes;
  int64_t exact_steps;  ///< losses of the steps before agree to 1e-4 even in float32; -1: all
  bool gates;           ///< whether the file's group is more than informative

  DivisionTolerance(const io::Hdf5Reader& file, const Precise& p, const std::string& block = "") {
    const std::string of = cat("tol_", p.name, "_");
    loss = file.attribute<double>("/", of + "loss_rel"), parameter = file.attribute<double>("/", of + "param_abs");
    codes = file.attribute<double>("/", of + "code_fraction");
    const auto leaves = file.attribute<int64_t>("/", "f32_vs_f64_first_step_loss_dev_above_1em4" + block);
    exact_steps = p.dtype == at::kDouble || leaves == 0 ? -1 : leaves;
    // Symmetric min-max grids put the largest weight of each row on a tie: two right float32 runs part when noise decides one, here one
    // step before the released code's own precisions do.
    if (exact_steps > 0 && file.attribute<int>("/", "symmetric") != 0) exact_steps = std::max<int64_t>(1, exact_steps / 2);
    gates = loss <= 0.05;
  }
};

inline void check_losses(const std::vector<double>& mine, const Tensor& golden, const DivisionTolerance& t, const Precise& p) {
  REQUIRE(static_cast<int64_t>(mine.size()) == golden.numel());
  double worst = 0;
  for (size_t i = 0; i < mine.size(); ++i) {
    const double expected = golden[static_cast<int64_t>(i)].item<double>(), off = std::abs(mine[i] - expected) / expected;
    worst = std::max(worst, off);
    if (p.dtype == at::kFloat && (t.exact_steps < 0 || static_cast<int64_t>(i) < t.exact_steps)) CHECK(off <= 1e-4);
  }
  if (t.gates) CHECK(worst <= t.loss);
}

/// Learned parameters and codes after some step of one linear; those the file holds.
inline void check_learned(const io::Hdf5Reader& file, const std::string& learned, const NamedTensors& state, double tolerance) {
  for (const auto& [name, t] : state) {
    if (name == "zero" || !file.exists(learned + "/" + name)) continue;
    INFO(learned << "/" << name);
    const Tensor expected = io::get(file, learned + "/" + name);
    REQUIRE(t.numel() == expected.numel());
    const double own = expected.scalar_type() == at::kFloat && t.scalar_type() == at::kDouble ? std::max(tolerance, 2e-8) : tolerance;
    CHECK(largest(t.to(at::kDouble).reshape({-1}) - expected.to(at::kDouble).reshape({-1})) <= own);
  }
}
inline void check_signed(const Tensor& mine, const Tensor& golden, double fraction) {
  const auto wrong = static_cast<double>(mine.ne(golden.to(at::kInt)).sum().item<int64_t>());
  CHECK(wrong <= fraction * static_cast<double>(mine.numel()));
}

}  // namespace ptq::test
