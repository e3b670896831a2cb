// Which number format stands where: weights, inputs and outputs of linears, operands of attention, biases, low-rank factors, the head.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ptq/core/scheme.hpp>

namespace ptq {

/// A function from places to formats. Places are named as in the plan of the model: "blocks.3.self_attn.q_proj", "head".
struct Precision {
  Scheme weights;                                       ///< of linears in blocks
  Scheme activations;                                   ///< of the inputs of linears in blocks
  std::vector<std::pair<std::string, Scheme>> outputs;  ///< of linears by the ending of their name: "q_proj", "v_proj"
  std::array<Scheme, 4> attention;                      ///< query, key, probability, value, as attention multiplies them
  Scheme bias;                                          ///< of quantized linears, as if it were an activation of one token
  Scheme factors;                                       ///< of low-rank corrections
  Scheme branch;                                        ///< of x A, and of (x A) B, where a correction runs beside the quantized product
  std::vector<std::pair<std::string, Scheme>>
      overrides;  ///< glob over places → weight format; the last match wins; reaches "head" by name only

  static constexpr std::array<std::string_view, 4> operand_names{"q", "k", "p", "v"};

  /// Weight format of a linear; `place` is "blocks.<i>.<site>" or "head".
  [[nodiscard]] Scheme weight(std::string_view place) const {
    Scheme found = place == "head" ? Scheme{} : weights;
    for (const auto& [pattern, scheme] : overrides)
      if (place == "head" ? pattern == "head" : glob_match(pattern, place)) found = scheme;
    return found;
  }

  [[nodiscard]] Scheme output(std::string_view place) const {
    for (const auto& [ending, scheme] : outputs)
      if (place.ends_with(ending)) return scheme;
    return {};
  }

  [[nodiscard]] bool quantizes_activations() const { return activations.active(); }
  [[nodiscard]] bool quantizes_attention() const {
    return attention[0].active() || attention[1].active() || attention[2].active() || attention[3].active();
  }

  /// Every slot by name, in a fixed order: attributes of results, part of keys. Those of biases and corrections only where they are used.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> slots() const {
    std::vector<std::pair<std::string, std::string>> all{{"weights", weights.text()}, {"activations", activations.text()}};
    for (const auto& [ending, s] : outputs) all.emplace_back("outputs." + ending, s.text());
    for (size_t i = 0; i < attention.size(); ++i) all.emplace_back("attention." + std::string(operand_names[i]), attention[i].text());
    for (const auto& [name, s] : {std::pair{"bias", &bias}, {"factors", &factors}, {"branch", &branch}})
      if (s->active()) all.emplace_back(name, s->text());
    for (const auto& [pattern, s] : overrides) all.emplace_back("override." + pattern, s.text());
    return all;
  }
};

}  // namespace ptq
