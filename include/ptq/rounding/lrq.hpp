// LRQ: FlexRound whose matrix of divisors is of low rank, with a row and a column vector.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <span>
#include <string>

#include <ptq/core/affine.hpp>
#include <ptq/core/digest.hpp>
#include <ptq/core/division.hpp>
#include <ptq/rounding.hpp>

namespace ptq {

/// How large the rank of a linear is: `rank` itself; as the paper has it, by the width of the model; as the released code has it, where
/// many linears are no longer of low rank.
enum class RankRule { fixed, paper, official };
template <>
struct EnumNames<RankRule> {
  static constexpr std::array<std::string_view, 3> names{"fixed", "paper", "official"};
};

/// Ŵ = s1 clamp(rne(W / exp(l1 + L U + ρ + γ))),  s1 = exp(l1),  L (out, r), U (r, in), row ρ, column γ; the zero point stays
/// Lee, Kim, Kim, Yang, Kwon, Yang, Yoo, Lee: LRQ, NAACL 2025, arXiv 2407.11534, eq. 2. L, ρ, γ start at zero, so plain rounding is the
/// start.
struct Lrq {
  static constexpr std::string_view tag = "lrq";
  static constexpr bool keeps_powers = true;

  double rate = 9e-4;                              ///< of all that is learned
  std::optional<double> step_rate = std::nullopt;  ///< of the step alone; none: `rate`; 0: it stays
  RankRule ranks = RankRule::paper;                ///< at most min(out, in) in any case
  int64_t rank = 64;                               ///< of `fixed`
  bool row_factor = true;                          ///< ρ
  bool column_factor = true;                       ///< γ
  std::optional<double> bound = std::nullopt;      ///< |L U + ρ + γ| at most; none: unbounded, as published
  int64_t seed = 0;                                ///< of U, with the weight itself: every linear draws its own

  /// r of a linear; 0: the full matrix of FlexRound and no γ.
  /// `paper`: 1024 for models narrower than 6144 (up to 30 B parameters), else 2048. `official`: the released code of July 2024.
  [[nodiscard]] int64_t rank_of(int64_t out, int64_t in) const {
    const int64_t least = std::min(out, in);
    if (ranks == RankRule::fixed) return std::min(rank, least);
    if (ranks == RankRule::paper) return std::min<int64_t>(least >= 6144 ? 2048 : 1024, least);
    if ((out <= 4096) != (in <= 4096) || (out == 8192 && in == 8192)) return 0;
    return std::min<int64_t>(least >= 8192 ? 2048 : 1024, least);
  }

  /// State: l1 (or step, where it stays), zero (out or 1, groups), L (out, r), U (r, in), rho (out, 1), gamma (1, in); or A (out, in) in
  /// place of L, U, gamma.
  [[nodiscard]] NamedTensors start(const Tensor& w, const Scheme& scheme) const {
    const int64_t out = w.size(0), in = w.size(1), r = rank_of(out, in);
    NamedTensors state = start_division(w, scheme);
    if (row_factor) state["rho"] = at::zeros({out, 1}, w.options());
    if (r == 0) {
      state["A"] = at::zeros({out, in}, w.options());
      return state;
    }
    if (column_factor) state["gamma"] = at::zeros({1, in}, w.options());
    state["L"] = at::zeros({out, r}, w.options());
    state["U"] = uniform(r, w).to(w.options());
    return state;
  }
  [[nodiscard]] std::vector<Learnable> learnable() const { return division_learnables(rate, step_rate, {"A", "L", "U", "rho", "gamma"}); }
  [[nodiscard]] Tensor weight(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    return divide_through(w, state, scheme, log_divisor(state));
  }
  [[nodiscard]] Coordinates coordinates(const NamedTensors& state, const Tensor& w, const Scheme& scheme) const {
    const auto [grid, divisor] = division_coordinates(w, state, scheme, log_divisor(state));
    return {grid, divisor};
  }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    if (rank < 1) return cat("rounding.rank must be at least 1, it is ", rank);
    return refuses_division(rate, step_rate, bound);
  }

 private:
  [[nodiscard]] LogDivisor log_divisor(const NamedTensors& state) const {
    const auto part = [&](const char* name) {
      const auto found = state.find(name);
      return found == state.end() ? Tensor() : found->second;
    };
    return {part("A").defined() ? part("A") : affine(state.at("L"), state.at("U").t()), part("rho"), part("gamma"), bound};
  }

  /// Uniform in ±1/√in, as the released code draws U; from a seed of its own for each weight w (out, in). (r, in) float
  [[nodiscard]] Tensor uniform(int64_t r, const Tensor& w) const {
    const Tensor bytes = w.detach().to(at::kCPU, at::kFloat).contiguous();
    Sha256 digest;
    digest.field("seed", seed).field("weight", std::as_bytes(std::span(bytes.const_data_ptr<float>(), static_cast<size_t>(bytes.numel()))));
    std::mt19937_64 random(std::stoull(digest.hex().substr(0, 16), nullptr, 16));
    const int64_t in = w.size(1);
    Tensor u = at::empty({r, in}, at::kFloat);
    const double half_width = 1 / std::sqrt(static_cast<double>(in));
    float* values = u.mutable_data_ptr<float>();
    for (int64_t i = 0; i < u.numel(); ++i)
      values[i] = static_cast<float>((std::ldexp(static_cast<double>(random() >> 11), -52) - 1) * half_width);
    return u;
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Lrq, rate, step_rate, ranks, rank, row_factor, column_factor, bound, seed);
