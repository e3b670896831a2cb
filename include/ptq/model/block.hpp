// A decoder block as data and one forward: places (sites, input groups, norms, fold sites), parameters, operators.
//
// The forward takes its operators as an argument. The float model, the statistics pass, fake quantization under gradient and the
// committed model differ only in their operators; nothing hooks into the block.
#pragma once

#include <string>
#include <vector>

#include <ptq/core/tensor.hpp>

namespace ptq {

/// A linear's place in its block.
struct Site {
  std::string name;  ///< within the block, as in Hugging Face files: "self_attn.q_proj", "fc1"
  int group = 0;     ///< the input group that feeds it
  int64_t out = 0;   ///< rows of its weight
  int64_t in = 0;    ///< columns of its weight
};

/// Linears that read the same tensor share statistics, Hessian and its factor. In the order of the forward: each is one
/// sub-group of a true-sequential pass.
struct InputGroup {
  std::string name;        ///< "attention_in", "attention_out", "mlp_in", "mlp_out"
  std::vector<int> sites;  ///< indices into Layout::sites
  int64_t width = 0;       ///< channels of the input
};

/// A place where a factor of an input group may move into what produces that input, because x = f(y) scales channel by channel.
/// A fold site only permits folding; a policy chooses.
struct FoldSite {
  enum class Source { norm, linear };
  int group = 0;  ///< the input group whose input is divided
  Source source =
      Source::norm;    ///< what absorbs 1/s: a norm's gain (and bias), or the rows of a linear (v for o, up for down, fc1 for fc2)
  int index = 0;       ///< index of that norm or site
  int64_t repeat = 1;  ///< query heads per key/value head: v's rows are shared by `repeat` heads of o's columns
  int64_t head = 0;    ///< head size where repeat > 1 matters (v to o), else 0
};

/// Where q kᵀ does not change when rows of q are divided by factors and the matching rows of k multiplied by them: what is between the
/// projections and the product keeps each channel to itself, or turns it with its rotary partner.
struct QueryKeyFold {
  int64_t repeat = 1;   ///< query heads per key/value head
  int64_t head = 0;     ///< head size; 0: the architecture has no such place (a norm of each head follows)
  bool rotary = false;  ///< channels i and i + head/2 turn together, so they need one factor
};

/// Everything about a block but its numbers.
struct Layout {
  std::vector<Site> sites;
  std::vector<InputGroup> groups;
  std::vector<std::string> norms;  ///< "input_layernorm", "post_attention_layernorm"; OPT: "self_attn_layer_norm", "final_layer_norm"
  std::vector<FoldSite> folds;
  QueryKeyFold query_key;
  static constexpr int query_norm = -1,
                       key_norm = -2;    ///< to `Operators::norm`: the Q/K norm of each head (Qwen3), which `norms` does not list
  int query = -1, key = -1, value = -1;  ///< sites of the attention projections (query/key folds, output formats)

  [[nodiscard]] int site(const std::string& name) const {
    for (size_t i = 0; i < sites.size(); ++i)
      if (sites[i].name == name) return static_cast<int>(i);
    return -1;
  }
};

struct LinearParameters {
  Tensor weight;  // (out, in)
  Tensor bias;    // (out) or undefined
};

struct NormParameters {
  Tensor weight;  // (hidden) or undefined
  Tensor bias;    // (hidden) or undefined
};

/// The float numbers of one block; fusing a smoothing yields another value of this type.
struct BlockParameters {
  std::vector<LinearParameters> linears;  ///< by site
  std::vector<NormParameters> norms;      ///< by norm
  std::vector<Tensor> input_scale;        ///< by input group: divides its input at run time where a factor was not folded, else undefined
  Tensor query_norm, key_norm;            // (head) gains of Qwen3's Q/K norm, else undefined
};

/// What attention multiplies: q kᵀ, then p v.
enum class Operand { query, key, probability, value };

/// What a block's forward does at each place. Non-owning; one forward runs at a time.
struct Operators {
  virtual ~Operators() = default;
  virtual Tensor norm(int norm, const Tensor& x) = 0;  ///< (…, hidden) → the same; Q/K norms (…, heads, head)
  virtual Tensor input(int group, const Tensor& x) {
    (void)group;
    return x;
  }                                                      ///< once per input group, before its linears
  virtual Tensor linear(int site, const Tensor& x) = 0;  ///< (…, in) → (…, out)
  virtual Tensor operand(Operand which, const Tensor& t) {
    (void)which;
    return t;
  }
  /// True when `operand` returns its argument: attention may then use a fused kernel.
  [[nodiscard]] virtual bool operands_pass() const { return true; }
};

}  // namespace ptq
