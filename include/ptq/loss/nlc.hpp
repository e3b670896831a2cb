// Negative logarithm of the cosine: direction, whatever the length.
#pragma once

#include <ptq/loss.hpp>

namespace ptq {

/// Over what the cosine and the logarithm are taken. The paper leaves it open; its code and a continuation of that code differ.
enum class NlcForm { mean_cosine, token_log, half_token, flattened };
template <>
struct EnumNames<NlcForm> {
  static constexpr std::array<std::string_view, 4> names{"mean_cosine", "token_log", "half_token", "flattened"};
};

/// c_bt = ⟨Q_bt, F_bt⟩ / (‖Q_bt‖ ‖F_bt‖)
///   mean_cosine: L = −ln |mean c|           half_token: L = mean −ln((c + 1)/2)
///   token_log:   L = mean −ln c             flattened:  L = −ln |cos(Q, F)|, one cosine of all tokens
/// Zhao et al.: LRQuant, ACL 2024, doi 10.18653/v1/2024.acl-long.122; mean_cosine is its code, half_token that of
/// github.com/wogns3623/lrquant. Blind to length: any token may be multiplied by any positive number. Hence used beside Mse, Sum<Mse, Nlc>.
/// mean_cosine and flattened take an output that points backwards for a good one. A token of no length has no direction: its cosine is 0,
/// with no gradient.
struct Nlc {
  static constexpr std::string_view tag = "nlc";

  NlcForm form = NlcForm::mean_cosine;
  Reduce reduce = Reduce::mean;  ///< sum: times the number of tokens, beside a loss that sums
  double min = 1e-8;             ///< floor of what the logarithm is taken of, and of ‖Q‖ ‖F‖

  [[nodiscard]] Tensor operator()(const Tensor& target, const Tensor& output) const {
    const bool whole = form == NlcForm::flattened;
    const Tensor f = whole ? target.reshape({-1}) : target, q = whole ? output.reshape({-1}) : output;
    const Tensor lengths = at::linalg_vector_norm(q, 2, -1) * at::linalg_vector_norm(f, 2, -1);  // (B, T) or scalar
    const Tensor live = lengths.detach().gt(min);
    const Tensor c = at::where(live, (q * f).sum(-1) / at::where(live, lengths, 1.0), 0.0);
    Tensor value;
    if (form == NlcForm::half_token)
      value = -(0.5 * c + 0.5).clamp_min(min).log().mean();
    else if (form == NlcForm::token_log)
      value = -c.clamp_min(min).log().mean();
    else
      value = -c.mean().abs().clamp_min(min).log();
    return reduce == Reduce::mean || output.dim() < 2 ? value : value * output.size(-2);
  }
  [[nodiscard]] bool averages() const { return reduce == Reduce::mean; }
  [[nodiscard]] Reason refuses(const Scheme&) const {
    return min > 0 && min < 1 ? "" : "min of the loss nlc must lie between 0 and 1, it is " + number_text(min);
  }
};

}  // namespace ptq
BOOST_HANA_ADAPT_STRUCT(ptq::Nlc, form, reduce, min);
