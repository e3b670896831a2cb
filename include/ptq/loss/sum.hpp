// A weighted sum of losses.
#pragma once

#include <tuple>

#include <ptq/loss.hpp>

namespace ptq {

/// One term of a sum.
template <class L>
struct Term {
  L loss{};
  double weight = 1;

  template <class Visit>
  void each(const Visit& visit) {
    visit("weight", weight), ptq::detail::visit_members(loss, visit);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    visit("weight", weight), ptq::detail::visit_members(loss, visit);
  }
};

/// L = Σ w_i L_i. Fields are below the tag of each term: loss.mse.weight, loss.nlc.form.
/// Sum<Mse, Nlc> is the loss of LRQuant (ACL 2024), which weighs both alike.
template <class... Ls>
struct Sum {
  static_assert(sizeof...(Ls) > 0, "Sum: takes losses, such as Sum<Mse, Nlc>");
  static_assert((Loss<Ls> && ...), "Sum: takes losses, such as Sum<Mse, Nlc>");
  static_assert(distinct_tags<Ls...>, "Sum: every loss may stand once; give it another weight instead");

  static constexpr std::string_view tag = joined_tags<'+', Ls...>.text();
  static constexpr bool reads_own_target = (ptq::reads_own_target<Ls> || ...);

  std::tuple<Term<Ls>...> terms{};

  template <class L>
  [[nodiscard]] constexpr Term<L>& term() {
    return std::get<Term<L>>(terms);
  }
  template <class L>
  [[nodiscard]] constexpr const Term<L>& term() const {
    return std::get<Term<L>>(terms);
  }

  template <class Visit>
  void each(const Visit& visit) {
    std::apply([&](auto&... t) { (visit(std::string(named(t)), t), ...); }, terms);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    std::apply([&](const auto&... t) { (visit(std::string(named(t)), t), ...); }, terms);
  }

  [[nodiscard]] Tensor operator()(const Tensor& target, const Tensor& output) const { return (*this)(Targets{target, target}, output); }
  [[nodiscard]] Tensor operator()(const Targets& targets, const Tensor& output) const {
    Tensor all;
    std::apply(
        [&](const auto&... t) {
          const auto add = [&](const auto& term) {
            if (term.weight == 0) return;
            const Tensor value = loss_value(term.loss, targets, output);
            const Tensor weighed = term.weight == 1 ? value : value * term.weight;
            all = all.defined() ? all + weighed : weighed;
          };
          (add(t), ...);
        },
        terms);
    return all;
  }
  [[nodiscard]] bool averages() const {
    return std::apply([](const auto&... t) { return (t.loss.averages() && ...); }, terms);
  }
  [[nodiscard]] Reason refuses(const Scheme& scheme) const {
    Reason why;
    int averaged = 0;
    bool any = false;
    const auto ask = [&](const auto& t) {
      averaged += t.loss.averages();
      any = any || t.weight > 0;
      const std::string at = "loss." + std::string(named(t));
      if (why.empty() && !(t.weight >= 0)) why = at + ".weight must not be negative, it is " + number_text(t.weight);
      if constexpr (requires { t.loss.refuses(scheme); })
        if (why.empty()) why = t.loss.refuses(scheme);
    };
    std::apply([&](const auto&... t) { (ask(t), ...); }, terms);
    if (why.empty() && !any) why = "the loss has no term of positive weight";
    if (why.empty() && averaged != 0 && averaged != static_cast<int>(sizeof...(Ls)))
      why = "some terms of the loss sum over tokens and others average; give all the same reduce";
    return why;
  }

 private:
  template <class L>
  static constexpr std::string_view named(const Term<L>&) {
    return L::tag;
  }
};

}  // namespace ptq
