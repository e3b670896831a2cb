// Causal attention under gradient: products by oneDNN, memory linear in length.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include <ptq/core/affine.hpp>

namespace ptq {
namespace detail {

/// One sequence's heads that share a key/value head, against the keys that a run of queries sees. Scores of 1 MiB at a time, so that what
/// follows them finds them in a cache.
struct AttentionTile {
  Tensor q, k, v;       // (heads · rows, head) times the scale, (seen, head), (seen, head)
  int64_t heads, rows;  ///< that share the key/value head; queries

  AttentionTile(const Tensor& query, const Tensor& key, const Tensor& value, int64_t begin, int64_t end, double scale)
      : q((query.narrow(1, begin, end - begin) * scale).reshape({-1, query.size(2)})),
        k(key.narrow(0, 0, end).contiguous()),
        v(value.narrow(0, 0, end).contiguous()),
        heads(query.size(0)),
        rows(end - begin) {}

  /// ahead: 0 or −∞, as of `keys_ahead`, at least (rows, rows).
  [[nodiscard]] Tensor probabilities(const Tensor& ahead) const {  // (heads · rows, seen)
    const Tensor scores = onednn_affine(q, k);
    scores.view({heads, rows, -1}).narrow(2, k.size(0) - rows, rows).add_(ahead.narrow(0, 0, rows).narrow(1, 0, rows));
    return at::softmax(scores, -1);
  }
};

/// Queries of a tile, where `shared` heads share a key/value head.
[[nodiscard]] inline int64_t tile_rows(int64_t shared, int64_t tokens) {
  return std::clamp<int64_t>((int64_t{1} << 18) / std::max<int64_t>(shared * tokens, 1), 32, 512);
}

/// What is added to the scores of a tile's queries and the keys of the same tokens: −∞ where the key lies ahead. (rows, rows)
[[nodiscard]] inline Tensor keys_ahead(const Tensor& q, const Tensor& k) {
  const int64_t rows = std::min(tile_rows(q.size(1) / k.size(1), q.size(2)), q.size(2));
  return at::full({rows, rows}, -std::numeric_limits<double>::infinity(), q.options()).triu_(1);
}

/// Runs work(sequence, key/value head, first query, last query + 1).
template <class Work>
void for_tiles(const Tensor& q, const Tensor& k, const Work& work) {
  const int64_t tokens = q.size(2), rows = tile_rows(q.size(1) / k.size(1), tokens);
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t h = 0; h < k.size(1); ++h)
      for (int64_t begin = 0; begin < tokens; begin += rows) work(b, h, begin, std::min(begin + rows, tokens));
}

/// softmax(scale · q kᵀ + causal mask) v; back, probabilities are computed again rather than kept. With P, G = ∂/∂out:
///   ∂v = Pᵀ G,   D = G vᵀ,   ∂scores = P ⊙ (D − rowsum(D ⊙ P)),   ∂q = scale · ∂scores k,   ∂k = scale · ∂scoresᵀ q.
struct CausalAttention : Differentiable<CausalAttention> {
  static Tensor forward(Context* context, const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
    context->save_for_backward({q, k, v});
    context->saved_data["scale"] = scale;
    const int64_t shared = q.size(1) / k.size(1);
    const Tensor ahead = keys_ahead(q, k);
    Tensor out = at::empty(q.sizes(), q.options());  // (batch, heads, tokens, head)
    for_tiles(q, k, [&](int64_t b, int64_t h, int64_t begin, int64_t end) {
      const AttentionTile t(q[b].narrow(0, h * shared, shared), k[b][h], v[b][h], begin, end, scale);
      const Tensor y = onednn_affine(t.probabilities(ahead), t.v.t());
      out[b].narrow(0, h * shared, shared).narrow(1, begin, end - begin).copy_(y.view({shared, end - begin, -1}));
    });
    return out;
  }
  static TensorList backward(Context* context, const TensorList& upstream) {
    const TensorList kept = context->get_saved_variables();
    const Tensor &q = kept[0], &k = kept[1], &v = kept[2];
    const double scale = context->saved_data["scale"].toDouble();
    const int64_t shared = q.size(1) / k.size(1), head = q.size(3);
    const Tensor ahead = keys_ahead(q, k);
    const Tensor d_q = at::empty(q.sizes(), q.options()), d_k = at::zeros(k.sizes(), k.options()), d_v = at::zeros(v.sizes(), v.options());
    for_tiles(q, k, [&](int64_t b, int64_t h, int64_t begin, int64_t end) {
      const auto part = [&](const Tensor& t) { return t[b].narrow(0, h * shared, shared); };
      const AttentionTile t(part(q), k[b][h], v[b][h], begin, end, scale);
      const Tensor p = t.probabilities(ahead), g = part(upstream[0]).narrow(1, begin, end - begin).reshape({-1, head});
      const Tensor d = at::_softmax_backward_data(onednn_affine(g, t.v), p, -1, at::kFloat);  // (heads · rows, seen)
      part(d_q).narrow(1, begin, end - begin).copy_(onednn_affine(d, t.k.t()).mul_(scale).view({shared, end - begin, head}));
      d_k[b][h].narrow(0, 0, end).add_(onednn_crossed(d, t.q));
      d_v[b][h].narrow(0, 0, end).add_(onednn_crossed(p, g));
    });
    return {d_q, d_k, d_v, {}};
  }
};

}  // namespace detail
}  // namespace ptq
