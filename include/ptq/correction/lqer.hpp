// LQER: the rounding error's best approximation of low rank.
#pragma once

#include <ptq/correction.hpp>

namespace ptq {

/// A B = the truncated SVD of E = (W* − Q)ᵀ: A = U_k, B = diag(σ_k) V_kᵀ, the least ‖E − A B‖ of rank k.
/// Zhang, Cheng, Constantinides, Zhao: LQER, arXiv 2402.02446, section 3.1. It needs no statistics.
struct Lqer {
  static constexpr std::string_view tag = "lqer";

  int64_t rank = 32;                          ///< k, at most min(in, out)
  double energy = 0;                          ///< fewer directions where they hold this share of the squared error; 0: always `rank`
  double budget = 0;                          ///< bits that factors may cost a weight; 0: any number
  FactorBlocks blocks = FactorBlocks::outer;  ///< along which axes groups of the factors' format run
  bool whole = false;                         ///< the whole decomposition of every matrix; else by iteration where it is large

  [[nodiscard]] constexpr Needs needs() const { return {}; }
  [[nodiscard]] Stream source() const { return Stream::reference; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return refuses_rank({rank, energy, budget}); }
  [[nodiscard]] Reason redundant(const Precision&) const { return rank == 0 ? "a correction of rank 0" : ""; }

  [[nodiscard]] LowRank fit(const Residual& r) const {
    return fit_factors(r.error, r.error, {rank, energy, budget}, r.factors, blocks, svd_options(whole), r.place);
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Lqer, rank, energy, budget, blocks, whole);
