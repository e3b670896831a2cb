// QERA: the approximation of low rank with the least error of the layer's output.
#pragma once

#include <ptq/core/linalg.hpp>
#include <ptq/correction.hpp>

namespace ptq {

/// What is known of the inputs: their second moment whole, or its diagonal alone.
enum class QeraForm { exact, approximate };
template <>
struct EnumNames<QeraForm> {
  static constexpr std::array<std::string_view, 2> names{"exact", "approximate"};
};

/// exact:       the least E‖x (E − A B)‖² of rank k, E = (W* − Q)ᵀ: A B = E V Vᵀ, V the leading eigenvectors of Eᵀ R E, R = E[xᵀ x]
/// approximate: the least ‖diag(√R_ii) (E − A B)‖, which is the same where channels are uncorrelated
/// Zhang, Wong, Xiao, Constantinides, Zhao: QERA, arXiv 2410.06040, theorems 1 and 2. The published form takes the square root of R and its
/// inverse; here any factor R = L Lᵀ does, for Eᵀ R E = (Lᵀ E)ᵀ (Lᵀ E), and nothing is inverted, so that a singular R is no exception.
struct Qera {
  static constexpr std::string_view tag = "qera";

  int64_t rank = 32;                          ///< k, at most min(in, out)
  double energy = 0;                          ///< fewer directions where they hold this share of the output error; 0: always `rank`
  double budget = 0;                          ///< bits that factors may cost a weight; 0: any number
  QeraForm form = QeraForm::exact;            ///< of the problem
  Stream stream = Stream::reference;          ///< whose inputs: the float model's (the paper), or the quantized stream's
  FactorBlocks blocks = FactorBlocks::outer;  ///< along which axes groups of the factors' format run
  bool whole = false;                         ///< the whole decomposition of every matrix; else by iteration where it is large

  [[nodiscard]] constexpr Needs needs() const { return {.square = form == QeraForm::approximate, .hessian = form == QeraForm::exact}; }
  [[nodiscard]] Stream source() const { return stream; }
  [[nodiscard]] Reason refuses(const Scheme&) const { return refuses_rank({rank, energy, budget}); }
  [[nodiscard]] Reason redundant(const Precision&) const { return rank == 0 ? "a correction of rank 0" : ""; }

  /// L with R = L Lᵀ, (in, in): Cholesky's in the type of the statistics, of float32 ones in float64 if need be; where R is singular, from
  /// its eigenvectors, without those that are rounding noise. R (in, in) symmetric.
  [[nodiscard]] static Tensor factor(const Tensor& second_moment, const std::string& place) {
    require_finite(second_moment, place + ", second moment");
    const UpperFactor upper = upper_factor(second_moment);
    if (upper.positive) return upper.r;
    const bool wide = second_moment.scalar_type() == at::kDouble;
    const auto [l, info] = at::linalg_cholesky_ex(second_moment.to(at::kDouble));
    if (!wide && info.item<int>() == 0) return l.to(second_moment.scalar_type());
    const auto [lambda, vectors] = at::linalg_eigh(second_moment.to(at::kDouble));  // ascending
    const Tensor noise = lambda.abs().max() * static_cast<double>(lambda.numel()) * (wide ? 1e-15 : 1e-7);
    return (vectors * at::where(lambda > noise, lambda, at::zeros_like(lambda)).sqrt()).to(second_moment.scalar_type());
  }

  [[nodiscard]] LowRank fit(const Residual& r) const {
    if (r.stats->tokens == 0) fail(r.place, ": no calibration token reached this layer");
    Tensor weighted;  // (out, in) E Lᵀ transposed
    if (form == QeraForm::approximate) {
      require_finite(r.stats->square, r.place + ", squares of activations");
      weighted = r.error * (r.stats->square / static_cast<double>(r.stats->tokens)).sqrt().to(r.error.scalar_type());
    } else {
      const auto make = [&] { return factor(r.stats->hessian / static_cast<double>(r.stats->tokens), r.place); };
      const Tensor l = r.shared->get<Tensor>("qera", make).to(r.error.scalar_type());
      weighted = affine(r.error, l.t().contiguous());
    }
    return fit_factors(r.error, weighted, {rank, energy, budget}, r.factors, blocks, svd_options(whole), r.place);
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Qera, rank, energy, budget, form, stream, blocks, whole);
