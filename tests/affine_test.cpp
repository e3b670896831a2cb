// Products under gradient in float32, by oneDNN, against libtorch's in float64; operands as they may lie.
#include <ptq/core/affine.hpp>
#include <ptq/model/causal_attention.hpp>

#include "catch.hpp"

using namespace ptq;

namespace {

/// The same numbers by columns, by rows with room between them, or by rows.
Tensor laid(const Tensor& t, int how) {
  if (how == 0) return t.clone();
  if (how == 1) return t.t().contiguous().t();
  return at::cat({t, t}, 1).narrow(1, 0, t.size(1));
}

double off(const Tensor& mine, const Tensor& exact) {
  return (mine.to(at::kDouble) - exact).norm().item<double>() / exact.norm().item<double>();
}

/// Gradients of Σ weights ⊙ value.
std::vector<Tensor> slopes(std::vector<Tensor> at, const std::function<Tensor(const std::vector<Tensor>&)>& value, const Tensor& weights) {
  for (Tensor& t : at) t = t.detach().requires_grad_();
  (value(at) * weights.to(at.front().scalar_type())).sum().backward();
  std::vector<Tensor> all;
  for (const Tensor& t : at) all.push_back(t.grad());
  return all;
}

/// Values and gradients of `mine` in float32, within `tolerance` of those of `exact` in float64.
void compare(const std::vector<Tensor>& operands, const std::function<Tensor(const std::vector<Tensor>&)>& mine,
             const std::function<Tensor(const std::vector<Tensor>&)>& exact, double tolerance) {
  std::vector<Tensor> wide;
  for (const Tensor& t : operands) wide.push_back(t.to(at::kDouble));
  const Tensor y = exact(wide), weights = at::randn(y.sizes(), at::kDouble);
  std::vector<Tensor> leaves = operands;
  for (Tensor& t : leaves) t = t.detach().requires_grad_();
  CHECK(off(mine(leaves).detach(), y) < tolerance);  // the path that keeps what gradients need
  const auto got = slopes(operands, mine, weights), wanted = slopes(wide, exact, weights);
  for (size_t i = 0; i < got.size(); ++i) {
    INFO("gradient " << i);
    REQUIRE(got[i].sizes() == wanted[i].sizes());
    CHECK(off(got[i], wanted[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE("an affine map and its gradients are right however its operands lie") {
  at::manual_seed(2);
  for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{{1, 5, 3}, {33, 65, 17}, {128, 256, 96}, {40, 32, 150}})
    for (const int x_lies : {0, 1, 2})
      for (const int w_lies : {0, 1, 2}) {
        INFO(rows << " x " << in << " x " << out << ", " << x_lies << ", " << w_lies);
        const Tensor x = laid(at::randn({rows, in}), x_lies), w = laid(at::randn({out, in}), w_lies), b = at::randn({out});
        compare(
            {x, w, b}, [](const auto& t) { return affine(t[0], t[1], t[2]); }, [](const auto& t) { return at::linear(t[0], t[1], t[2]); },
            2e-6);
      }
}

TEST_CASE("a matrix that is used transposed gets its gradient") {
  at::manual_seed(3);
  const Tensor l = at::randn({70, 8}), u = at::randn({8, 130});  // LRQ's factors
  compare(
      {l, u}, [](const auto& t) { return affine(t[0], t[1].t()); }, [](const auto& t) { return at::mm(t[0], t[1]); }, 2e-6);
}

TEST_CASE("products of many small matrices and their gradients are right") {
  at::manual_seed(4);
  for (const auto& [rows, columns, k] : std::vector<std::array<int64_t, 3>>{{7, 20, 16}, {64, 8, 33}, {1, 1, 1}}) {
    INFO(rows << " x " << columns << " x " << k);
    compare(
        {at::randn({3, rows, k}), at::randn({3, columns, k})}, [](const auto& t) { return products(t[0], t[1]); },
        [](const auto& t) { return at::bmm(t[0], t[1].transpose(1, 2)); }, 2e-6);
  }
}

TEST_CASE("causal attention by tiles has the values and gradients of the definition, shared heads and a last short tile included") {
  at::manual_seed(5);
  for (const auto& [heads, kv, tokens, head] :
       std::vector<std::array<int64_t, 4>>{{4, 4, 9, 6}, {6, 2, 21, 8}, {3, 1, 530, 16}, {2, 2, 1100, 4}}) {
    INFO(heads << " heads, " << kv << ", " << tokens << " tokens of " << head);
    const int64_t shared = heads / kv;
    const auto make = [&](int64_t n) { return at::randn({2, tokens, n, head}).transpose(1, 2); };  // as projections give them
    compare(
        {make(heads), make(kv), make(kv)}, [](const auto& t) { return ptq::detail::CausalAttention::apply(t[0], t[1], t[2], 0.35); },
        [&](const auto& t) {
          const auto spread = [&](const Tensor& x) { return x.repeat_interleave(shared, 1); };
          const Tensor ahead = at::ones({tokens, tokens}, at::kBool).triu(1);
          const Tensor scores = at::matmul(t[0], spread(t[1]).transpose(2, 3)) * 0.35;
          return at::matmul(at::softmax(scores.masked_fill(ahead, -std::numeric_limits<double>::infinity()), -1), spread(t[2]));
        },
        5e-6);
  }
}
