// The formats that LQER's released scripts give everything around its weights; shared by the drivers of LQER and L²QER.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "driver.hpp"

namespace ptq::driver {

/// W4A8 in block floating point: blocks of 16, exponents rounded up; inputs, operands of attention, biases, factors and their branch at 8
/// bits. Zhang, Cheng, Constantinides, Zhao: LQER, arXiv 2402.02446, and its released scripts.
[[nodiscard]] inline Experiment lqer_w4a8(std::string about, std::vector<Row> rows) {
  const std::string eight = "mxint8:b16:ceil";
  return {.about = std::move(about),
          .rows = std::move(rows),
          .weights = "mxint4:b16:ceil",
          .activations = eight,
          .attention = "q=" + eight + ",k=" + eight + ",p=" + eight + ",v=" + eight,
          .bias = eight,
          .factors = eight,
          .branch = eight,
          .calibrate = "c4:32x2048"};
}

}  // namespace ptq::driver
