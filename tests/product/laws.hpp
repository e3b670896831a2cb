// What one recipe of the product must obey on a small model, and what is left of its run to be compared with other recipes' runs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "product/entry.hpp"
#include "tiny.hpp"

namespace ptq::test {

/// Where recipes run.
struct Setting {
  std::string name;
  Transformer model;
  Precision precision;
  Tensor tokens = tiny_tokens(4, 16);       // calibration
  Tensor windows = tiny_tokens(2, 16, 77);  // the text under test
};

/// What a recipe made. Texts are raw bytes of all that runs: codes, grids, levels, factors, biases, norms, divisors.
struct Outcome {
  std::vector<std::string> blocks;           ///< as committed
  std::string adapted;                       ///< what stands in the last block's place once adapted to the text
  std::map<std::string, std::string> codes;  ///< of every linear as committed, by place
  std::map<std::string, std::string> state;  ///< what was learned, by block and name
  std::vector<double> nll;                   ///< of the text
  bool refitted = false;                     ///< whether an adaptation's result was kept
  bool operator==(const Outcome&) const = default;
};

/// Quantizes, adapts, scores, saves, reads back, exports; every law of a single recipe is checked on the way.
Outcome run(const Entry& entry, const Setting& setting);

/// That a recipe which a precision rules out is refused by name and reason before anything is computed.
void require_refusal(const Entry& entry, const Setting& setting, const Reason& why);

}  // namespace ptq::test
