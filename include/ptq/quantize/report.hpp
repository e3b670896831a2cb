// What is reported of one block: errors, seconds, losses, bits.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/quantized_linear.hpp>

namespace ptq {

struct LinearReport {
  std::string name;            ///< "self_attn.q_proj"
  double relative_error = 0;   ///< ‖X Wᵀ − X̂ Q̂ᵀ‖² / ‖X Wᵀ‖² on measured tokens, W fused, X̂ as the layer sees it
  double relative_to_rtn = 0;  ///< the same over plain rounding's
  double seconds = 0;          ///< solve and correct
  std::vector<std::pair<std::string, double>> numbers;  ///< what the solver reports: "loss", "damp", …
};

struct BlockReport {
  int64_t index = 0;
  double error = 0;  ///< ‖B(x) − B_q(x_q)‖² / ‖B(x)‖² over the calibration tokens
  std::vector<LinearReport> linears;
  std::vector<double> losses;                           ///< of learning, before each update
  std::vector<double> tracked;                          ///< the loss on the tracked sequences: start, on the way, what is kept
  std::vector<std::pair<std::string, double>> seconds;  ///< by stage
  BitCount bits;
};

}  // namespace ptq
