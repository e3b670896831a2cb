// Causal attention in memory linear in length: a fused kernel where operands pass as they are, else chunks of queries.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include <ptq/core/affine.hpp>
#include <ptq/model/block.hpp>
#include <ptq/model/causal_attention.hpp>

namespace ptq {

/// Query t sees the keys s with s ≤ t and, where window > 0, t − s < window.
struct AttentionSpan {
  int64_t window = 0;
  int64_t chunk = 0;  ///< queries multiplied at once; 0 takes what 16 MiB of scores hold
};

namespace detail {

/// Queries whose scores against all keys take about 16 MiB in float32.
[[nodiscard]] inline int64_t query_chunk(int64_t heads, int64_t tokens) {
  return std::clamp<int64_t>((int64_t{1} << 22) / std::max<int64_t>(heads * tokens, 1), 16, 512);
}

/// Queries begin … end of one sequence against the keys they can see.
[[nodiscard]] inline Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, int64_t begin, int64_t end, int64_t window,
                                   double scale, Operators& ops) {
  const int64_t heads = q.size(0), kv = k.size(0), d = q.size(2), rows = end - begin;
  const int64_t first = window > 0 ? std::max<int64_t>(0, begin - window + 1) : 0, seen = end - first;
  const Tensor query = q.narrow(1, begin, rows).reshape({kv, heads / kv * rows, d});  // the heads that share a key/value head, stacked
  const Tensor scores = products(query, k.narrow(1, first, seen)).view({heads, rows, seen});
  const Tensor t = at::arange(begin, end, k.options().dtype(at::kLong)).unsqueeze(1);  // (rows, 1)
  const Tensor s = at::arange(first, end, k.options().dtype(at::kLong));               // (seen)
  const Tensor hidden = window > 0 ? (s > t) | (t - s >= window) : s > t;              // (rows, seen)
  const Tensor mask = at::zeros({rows, seen}, scores.options()).masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  const auto wide = at::isReducedFloatingType(q.scalar_type()) ? at::kFloat : q.scalar_type();
  const Tensor p =
      ops.operand(Operand::probability, at::softmax(at::add(mask, scores, scale), -1, wide).to(q.scalar_type()));  // (heads, rows, seen)
  return products(p.reshape({kv, heads / kv * rows, seen}), v.narrow(1, first, seen).transpose(1, 2)).view({heads, rows, d});
}

}  // namespace detail

/// softmax(scale · q kᵀ + mask) v, Vaswani et al., arXiv 1706.03762, eq. 1. Query head h reads key/value head h / (heads / kv_heads).
/// `operand` sees query (batch, heads, tokens, head), key and value (batch, kv_heads, tokens, head) whole, and the probabilities of one
/// sequence by chunks of queries (heads, queries, keys), each row with all its keys; their hidden entries are zero. A format with one grid
/// for a whole tensor of probabilities is therefore one grid a chunk. Differentiable; arguments stay as they are.
[[nodiscard]] inline Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, AttentionSpan span, double scale,
                                      Operators& ops) {  // → (batch, heads, tokens, head)
  const int64_t heads = query.size(1), tokens = query.size(2);
  const int64_t window = span.window < tokens ? span.window : 0;
  const bool taught = detail::taught(query, key) || detail::taught(value, value);
  if (ops.operands_pass() && window == 0 && taught && detail::onednn_takes(query, key, value))
    return detail::CausalAttention::apply(query, key, value, scale);
  if (ops.operands_pass() && window == 0) return at::scaled_dot_product_attention(query, key, value, {}, 0.0, true, scale, true);
  const Tensor q = ops.operand(Operand::query, query), k = ops.operand(Operand::key, key), v = ops.operand(Operand::value, value);
  const int64_t chunk = span.chunk > 0 ? span.chunk : detail::query_chunk(heads, window > 0 ? std::min(tokens, 2 * window) : tokens);
  std::vector<Tensor> sequences;
  for (int64_t b = 0; b < q.size(0); ++b) {
    std::vector<Tensor> parts;
    for (int64_t begin = 0; begin < tokens; begin += chunk)
      parts.push_back(detail::attend(q[b], k[b], v[b], begin, std::min(begin + chunk, tokens), window, scale, ops));
    sequences.push_back(at::cat(parts, 1));  // (heads, tokens, head)
  }
  return at::stack(sequences);
}

}  // namespace ptq
