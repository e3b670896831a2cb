// A checked recipe with its types erased: one virtual adapter a policy, so that the walk over blocks is no template and a sweep of
// hundreds of recipes compiles once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/recipe.hpp>

namespace ptq {

struct RoundingStage {
  virtual ~RoundingStage() = default;
  [[nodiscard]] virtual NamedTensors start(const Tensor& w, const Scheme& scheme) const = 0;
  [[nodiscard]] virtual std::vector<Learnable> learnable() const = 0;
  [[nodiscard]] virtual Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const = 0;
  [[nodiscard]] virtual Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const = 0;
};

struct SmoothingStage {
  virtual ~SmoothingStage() = default;
  [[nodiscard]] virtual Needs needs() const = 0;
  [[nodiscard]] virtual Stream source() const = 0;
  [[nodiscard]] virtual NamedTensors start(const Layout& layout, const BlockParameters& block,
                                           const std::vector<Statistics>& stats) const = 0;
  [[nodiscard]] virtual std::vector<Learnable> learnable() const = 0;
  [[nodiscard]] virtual BlockParameters fuse(const Layout& layout, const BlockParameters& block, const NamedTensors& state) const = 0;
  virtual void project(NamedTensors& state) const = 0;  ///< keeps learned values where they mean something, in place
};

struct LossStage {
  virtual ~LossStage() = default;
  [[nodiscard]] virtual Tensor value(const Targets& targets, const Tensor& output) const = 0;
  [[nodiscard]] virtual bool reads_own_target() const = 0;
  [[nodiscard]] virtual bool averages() const = 0;
};

struct SolverStage {
  virtual ~SolverStage() = default;
  [[nodiscard]] virtual Needs needs() const = 0;
  [[nodiscard]] virtual Observed observed() const = 0;
  [[nodiscard]] virtual bool sequential() const = 0;  ///< input groups observed one after the other, earlier ones quantized
  [[nodiscard]] virtual std::optional<int> statistic_bits()
      const = 0;  ///< of activations in statistics, where they are not those at run time
  [[nodiscard]] virtual Solution solve(const Problem& problem) const = 0;
};

struct CorrectionStage {
  virtual ~CorrectionStage() = default;
  [[nodiscard]] virtual bool active() const = 0;
  [[nodiscard]] virtual Needs needs() const = 0;
  [[nodiscard]] virtual Stream source() const = 0;
  [[nodiscard]] virtual LowRank fit(const Residual& residual) const = 0;
};

struct AdaptationStage {
  virtual ~AdaptationStage() = default;
  [[nodiscard]] virtual AdaptationScope scope() const = 0;
  [[nodiscard]] virtual int64_t steps() const = 0;
  [[nodiscard]] virtual Refit refit() const = 0;
};

namespace detail {

template <Rounding P>
struct RoundingOf final : RoundingStage {
  P p;
  explicit RoundingOf(P policy) : p(std::move(policy)) {}
  NamedTensors start(const Tensor& w, const Scheme& s) const override { return p.start(w, s); }
  std::vector<Learnable> learnable() const override { return p.learnable(); }
  Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& s) const override { return p.weight(state, w, s); }
  Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& s) const override { return p.coordinates(state, w, s); }
};

template <Smoothing P>
struct SmoothingOf final : SmoothingStage {
  P p;
  explicit SmoothingOf(P policy) : p(std::move(policy)) {}
  Needs needs() const override { return p.needs(); }
  Stream source() const override { return p.source(); }
  NamedTensors start(const Layout& l, const BlockParameters& b, const std::vector<Statistics>& s) const override {
    return p.start(l, b, s);
  }
  std::vector<Learnable> learnable() const override { return p.learnable(); }
  BlockParameters fuse(const Layout& l, const BlockParameters& b, const NamedTensors& s) const override { return p.fuse(l, b, s); }
  void project(NamedTensors& state) const override {
    if constexpr (requires { p.project(state); }) p.project(state);
  }
};

template <Loss P>
struct LossOf final : LossStage {
  P p;
  explicit LossOf(P policy) : p(std::move(policy)) {}
  Tensor value(const Targets& targets, const Tensor& output) const override { return loss_value(p, targets, output); }
  bool reads_own_target() const override { return ptq::reads_own_target<P>; }
  bool averages() const override { return p.averages(); }
};

template <Solver P>
struct SolverOf final : SolverStage {
  P p;
  explicit SolverOf(P policy) : p(std::move(policy)) {}
  Needs needs() const override { return p.needs(); }
  Observed observed() const override { return p.observed(); }
  bool sequential() const override {
    if constexpr (requires { p.true_sequential; }) return p.true_sequential;
    return false;
  }
  std::optional<int> statistic_bits() const override {
    if constexpr (requires { p.statistic_bits; }) return p.statistic_bits;
    return {};
  }
  Solution solve(const Problem& problem) const override { return p.solve(problem); }
};

template <Correction P>
struct CorrectionOf final : CorrectionStage {
  P p;
  explicit CorrectionOf(P policy) : p(std::move(policy)) {}
  bool active() const override { return !std::is_same_v<P, NoCorrection>; }
  Needs needs() const override { return p.needs(); }
  Stream source() const override { return p.source(); }
  LowRank fit(const Residual& residual) const override { return p.fit(residual); }
};

template <Adaptation P>
struct AdaptationOf final : AdaptationStage {
  P p;
  explicit AdaptationOf(P policy) : p(std::move(policy)) {}
  AdaptationScope scope() const override { return p.scope(); }
  int64_t steps() const override { return p.steps(); }
  Refit refit() const override { return p.refit(); }
};

}  // namespace detail

/// What the walk over blocks knows of a recipe.
struct Stages {
  std::shared_ptr<const RoundingStage> rounding;
  std::shared_ptr<const SmoothingStage> smoothing;
  std::shared_ptr<const LossStage> loss;
  std::shared_ptr<const SolverStage> solver;
  std::shared_ptr<const CorrectionStage> correction;
  std::shared_ptr<const AdaptationStage> adaptation;
  Learning learning;
  std::string label;
  std::function<Reason(const Precision&)> refuses;               ///< why it cannot run at a precision; empty: it can
  std::function<Reason(const Precision&)> redundant;             ///< why a simpler recipe gives the same; empty: none does
  std::vector<std::pair<std::string, std::string>> description;  ///< every axis and hyperparameter, in order

  [[nodiscard]] bool learns() const { return !rounding->learnable().empty() || !smoothing->learnable().empty(); }
};

namespace detail {

/// All about a recipe that is no stage.
inline void name_stages(Stages& s, Parts p) {
  s.label = label(p);
  for (const Part* part : p.all()) {
    s.description.emplace_back(part->axis, part->tag);
    s.description.insert(s.description.end(), part->fields.begin(), part->fields.end());
  }
  s.refuses = [p](const Precision& precision) { return refuses(p, precision); };
  s.redundant = [p](const Precision& precision) { return redundant(p, precision); };
}

}  // namespace detail

template <class R, class S, class L, class V, class C, class A>
[[nodiscard]] Stages stages(const Recipe<R, S, L, V, C, A>& r) {
  Stages s;
  s.rounding = std::make_shared<detail::RoundingOf<R>>(r.rounding);
  s.smoothing = std::make_shared<detail::SmoothingOf<S>>(r.smoothing);
  s.loss = std::make_shared<detail::LossOf<L>>(r.loss);
  s.solver = std::make_shared<detail::SolverOf<V>>(r.solver);
  s.correction = std::make_shared<detail::CorrectionOf<C>>(r.correction);
  s.adaptation = std::make_shared<detail::AdaptationOf<A>>(r.adaptation);
  s.learning = r.learning;
  detail::name_stages(s, parts(r));
  return s;
}

}  // namespace ptq
