// What is kept of a run: its description, its figures, its costs. Plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ptq::results {

/// Named texts, in their order: hyperparameters by path ("solver.damp", "0.01"), formats, versions, …
using Texts = std::vector<std::pair<std::string, std::string>>;
using Numbers = std::vector<std::pair<std::string, double>>;

/// Perplexity on one text.
struct Evaluation {
  std::string text{};                                 ///< "wikitext2"
  std::string protocol{};                             ///< "gptq", "tail", "lqer-shards"
  std::int64_t windows = 0;                           ///< how many
  std::int64_t window = 0;                            ///< tokens of each
  std::int64_t tokens = 0;                            ///< of all windows
  double perplexity = 0;                              ///< exp(mean of nll)
  std::optional<double> standard_error{};             ///< ppl · sd(nll) / √n; none for a single window
  std::optional<double> difference{};                 ///< to full precision, same windows; none for full precision itself
  std::optional<double> difference_standard_error{};  ///< paired: sd(ppl_q nll_q − ppl_fp nll_fp) / √n
  std::vector<double> nll{};                          ///< (windows) mean negative log-likelihood of each, nats a token

  bool operator==(const Evaluation&) const = default;

  /// Whether both are of the same windows of a text of that name.
  [[nodiscard]] bool same_windows(const Evaluation& other) const {
    return text == other.text && protocol == other.protocol && windows == other.windows && window == other.window;
  }
};

struct Linear {
  std::string name{};                       ///< "self_attn.q_proj"
  std::optional<double> relative_error{};   ///< ‖X Wᵀ − X̂ Q̂ᵀ‖² / ‖X Wᵀ‖²
  std::optional<double> relative_to_rtn{};  ///< the same over plain rounding's
  std::optional<double> seconds{};
  Numbers numbers{};  ///< what the solver reports: "damp", "loss", …

  bool operator==(const Linear&) const = default;
};

struct Block {
  std::int64_t index = 0;
  std::optional<double> error{};  ///< ‖B(x) − B_q(x_q)‖² / ‖B(x)‖² over the calibration tokens
  std::vector<Linear> linears{};
  std::vector<double> losses{};   ///< of learning, before each update
  std::vector<double> tracked{};  ///< of learning, on the tracked sequences: start, on the way, what is kept

  bool operator==(const Block&) const = default;
};

/// The text of that name, or "".
[[nodiscard]] inline std::string find(const Texts& texts, const std::string& name) {
  for (const auto& [key, text] : texts)
    if (key == name) return text;
  return "";
}

/// One recipe on one model.
struct Run {
  std::string digest{};         ///< hexadecimal: of everything that changes bytes; names the file
  std::string label{};          ///< what a table calls it: "gptq int4:g64"
  std::string recipe{};         ///< "gptq(damp=0.01)"
  bool full_precision = false;  ///< the reference of the others
  std::int64_t seed = 0;
  std::string started{};   ///< UTC, "2025-01-31T12:00:00Z"
  std::string revision{};  ///< of the source
  Texts description{};     ///< every hyperparameter of the recipe
  Texts precision{};       ///< the format of each slot, overrides included
  Texts settings{};        ///< calibration text and sampling, dtype, first token, …
  Texts versions{};        ///< ptq, libtorch, hdf5, compiler
  Texts machine{};         ///< cpu, threads, isa, device
  Texts model{};           ///< path, digest, architecture
  std::vector<Evaluation> evaluations{};
  std::vector<Block> blocks{};
  Numbers stages{};                                  ///< seconds by stage
  std::optional<double> bits_per_weight{};           ///< of quantized linears, scales and corrections included
  std::optional<double> model_bits_per_parameter{};  ///< of everything
  double seconds = 0;
  std::int64_t peak_memory_bytes = 0;

  bool operator==(const Run&) const = default;
};

/// Bits per weight as the method's paper counts them: the mean of what solvers report as `nominal_bits` over their `weights`; none where
/// none reports it.
[[nodiscard]] inline std::optional<double> nominal_bits(const Run& run) {
  double bits = 0, weights = 0;
  for (const Block& block : run.blocks)
    for (const Linear& linear : block.linears) {
      double mine = 0, of = 0;
      for (const auto& [name, value] : linear.numbers) {
        if (name == "nominal_bits") mine = value;
        if (name == "weights") of = value;
      }
      bits += mine * of, weights += of;
    }
  return weights > 0 ? std::optional(bits / weights) : std::nullopt;
}

}  // namespace ptq::results
