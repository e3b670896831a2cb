// Attention and rotary positions against loops that spell out their definitions.
#include <ptq/model/attention.hpp>
#include <ptq/model/rope.hpp>

#include <sys/resource.h>

#include "catch.hpp"

using namespace ptq;

namespace {

/// Operands pass, or go through `change`; nothing else of a block is used.
struct OnlyOperands : Operators {
  std::function<Tensor(Operand, const Tensor&)> change;
  Tensor norm(int, const Tensor& x) override { return x; }
  Tensor linear(int, const Tensor& x) override { return x; }
  Tensor operand(Operand which, const Tensor& t) override { return change ? change(which, t) : t; }
  [[nodiscard]] bool operands_pass() const override { return !change; }
};

OnlyOperands passing() { return {}; }
OnlyOperands chunked() {
  OnlyOperands ops;
  ops.change = [](Operand, const Tensor& t) { return t; };
  return ops;
}

/// One query and one key at a time.
Tensor by_loops(const Tensor& q, const Tensor& k, const Tensor& v, int64_t window, double scale) {
  const int64_t repeat = q.size(1) / k.size(1), tokens = q.size(2), d = q.size(3);
  Tensor y = at::zeros(q.sizes(), at::kDouble);
  const Tensor qd = q.to(at::kDouble).contiguous(), kd = k.to(at::kDouble).contiguous(), vd = v.to(at::kDouble).contiguous();
  const auto Q = qd.accessor<double, 4>(), K = kd.accessor<double, 4>(), V = vd.accessor<double, 4>();
  auto Y = y.accessor<double, 4>();
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t h = 0; h < q.size(1); ++h)
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (int64_t s = 0; s <= t; ++s) {
          if (window > 0 && t - s >= window) continue;
          double dot = 0;
          for (int64_t j = 0; j < d; ++j) dot += Q[b][h][t][j] * K[b][h / repeat][s][j];
          const double weight = std::exp(scale * dot);
          sum += weight;
          for (int64_t j = 0; j < d; ++j) Y[b][h][t][j] += weight * V[b][h / repeat][s][j];
        }
        for (int64_t j = 0; j < d; ++j) Y[b][h][t][j] /= sum;
      }
  return y;
}

struct Operands3 {
  Tensor q, k, v;
};
Operands3 random_operands(int64_t batch, int64_t heads, int64_t kv, int64_t tokens, int64_t d, at::ScalarType dtype) {
  at::manual_seed(3);
  const auto make = [&](int64_t n) { return at::randn({batch, tokens, n, d}, at::kDouble).to(dtype).transpose(1, 2); };
  return {make(heads), make(kv), make(kv)};
}

double distance(const Tensor& a, const Tensor& b) { return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>(); }

}  // namespace

TEST_CASE("fused and chunked attention equal loops over queries and keys, with windows and shared key/value heads") {
  const int64_t kv = GENERATE(1, 2, 4), window = GENERATE(0, 1, 3, 8, 21, 22, 40);
  const auto dtype = GENERATE(at::kDouble, at::kFloat);
  const auto [q, k, v] = random_operands(2, 4, kv, 21, 6, dtype);
  const Tensor expected = by_loops(q, k, v, window, 0.3);
  const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
  OnlyOperands fused = passing();
  CHECK(distance(attention(q, k, v, {window}, 0.3, fused), expected) < tolerance);
  for (const int64_t chunk : {1, 4, 20, 21, 64}) {
    INFO("chunk " << chunk << ", window " << window);
    OnlyOperands ops = chunked();
    CHECK(distance(attention(q, k, v, {window, chunk}, 0.3, ops), expected) < tolerance);
  }
}

TEST_CASE("a window of w sees the query's own key and the w - 1 before it") {
  const auto [q, k, v] = random_operands(1, 1, 1, 10, 4, at::kDouble);
  OnlyOperands ops = passing();
  CHECK(distance(attention(q, k, v, {1}, 1, ops), v) < 1e-14);
  Tensor moved = v.clone();
  moved.select(2, 4).add_(1);  // token 4 is seen by queries 4, 5 and 6 alone
  const Tensor change = (attention(q, k, moved, {3}, 1, ops) - attention(q, k, v, {3}, 1, ops)).abs().sum({0, 1, 3});
  for (int64_t t = 0; t < 10; ++t) CHECK((change[t].item<double>() > 1e-9) == (t >= 4 && t <= 6));
}

TEST_CASE("operands are rounded where the block multiplies them, probabilities as whole rows that sum to one") {
  const auto [q, k, v] = random_operands(2, 4, 2, 13, 4, at::kDouble);
  int64_t rows = 0;
  OnlyOperands ops;
  ops.change = [&](Operand which, const Tensor& t) {
    if (which == Operand::query) return t * 2;
    if (which == Operand::key) return t + 1;
    if (which == Operand::value) return t * -3;
    CHECK(distance(t.sum(-1), at::ones(t.sizes().slice(0, 2), at::kDouble)) < 1e-12);
    CHECK((t == 0).sum().item<int64_t>() == t.size(0) * t.size(1) * (t.size(1) - 1) / 2);  // the last keys lie ahead of all queries but one
    rows += t.size(1);
    return t * 0.5;
  };
  const Tensor y = attention(q, k, v, {0, 5}, 0.5, ops);
  CHECK(rows == 2 * 13);
  CHECK(distance(y, by_loops(q * 2, k + 1, v * -3, 0, 0.5) * 0.5) < 1e-12);
}

TEST_CASE("what a query gets does not depend on how many tokens follow") {
  const auto [q, k, v] = random_operands(1, 4, 2, 700, 8, at::kDouble);
  for (const int64_t window : {0, 50}) {
    OnlyOperands ops = chunked();
    const Tensor whole = attention(q, k, v, {window}, 0.35, ops);
    const Tensor start = attention(q.narrow(2, 0, 301), k.narrow(2, 0, 301), v.narrow(2, 0, 301), {window}, 0.35, ops);
    CHECK(distance(whole.narrow(2, 0, 301), start) < 1e-13);
  }
}

TEST_CASE("attention is differentiable and leaves its arguments alone") {
  auto [q, k, v] = random_operands(1, 4, 2, 9, 4, at::kDouble);
  const Tensor weights = at::randn({1, 4, 9, 4}, at::kDouble), q0 = q.clone(), k0 = k.clone(), v0 = v.clone();
  const int64_t window = GENERATE(0, 4);
  const bool fused = GENERATE(true, false);
  OnlyOperands ops = fused ? passing() : chunked();
  std::vector<Tensor> leaves{q.clone().requires_grad_(), k.clone().requires_grad_(), v.clone().requires_grad_()};
  (attention(leaves[0], leaves[1], leaves[2], {window, 4}, 0.5, ops) * weights).sum().backward();
  const auto loss = [&](const Tensor& a, const Tensor& b, const Tensor& c) {
    return (by_loops(a, b, c, window, 0.5) * weights).sum().item<double>();
  };
  for (size_t which = 0; which < 3; ++which)
    for (const int64_t token : {0, 3, 8}) {
      const double step = 1e-6;
      std::vector<Tensor> up{q.clone(), k.clone(), v.clone()}, down{q.clone(), k.clone(), v.clone()};
      up[which][0][1][token][2] += step, down[which][0][1][token][2] -= step;
      const double slope = (loss(up[0], up[1], up[2]) - loss(down[0], down[1], down[2])) / (2 * step);
      CHECK(leaves[which].grad()[0][1][token][2].item<double>() == Approx(slope).margin(1e-8));
    }
  CHECK((at::equal(q, q0) && at::equal(k, k0) && at::equal(v, v0)));
}

TEST_CASE("memory grows with the length, not with its square") {
  const at::NoGradGuard no_grad;
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;  // MiB
  };
  const int64_t window = GENERATE(0, 300);
  const bool fused = GENERATE(true, false);
  const auto [q, k, v] = random_operands(1, 4, 2, 8192, 8, at::kFloat);  // all scores: 1 GiB
  OnlyOperands ops = fused ? passing() : chunked();
  const auto before = peak();
  const Tensor y = attention(q, k, v, {window}, 0.35, ops);
  CHECK(peak() - before < 400);
  CHECK(std::isfinite(y.sum().item<double>()));
}

TEST_CASE("bfloat16 operands give bfloat16 results near those of float64") {
  const auto [q, k, v] = random_operands(1, 4, 2, 30, 8, at::kBFloat16);
  for (OnlyOperands ops : {passing(), chunked()}) {
    const Tensor y = attention(q, k, v, {0, 7}, 0.35, ops);
    CHECK(y.scalar_type() == at::kBFloat16);
    CHECK(distance(y, by_loops(q, k, v, 0, 0.35)) < 0.04);
  }
}

TEST_CASE("rotary frequencies follow the formula of each kind") {
  ModelConfig c;
  c.head_dim = 16, c.rope_theta = 10000;
  const auto plain = [&](int i, double theta) { return std::pow(theta, -2.0 * i / 16); };
  const auto found = [&](int i, int64_t length) { return rope_frequencies(c, length).at(static_cast<size_t>(i)); };
  for (int i = 0; i < 8; ++i) {
    INFO("pair " << i);
    c.rope = {};
    CHECK(found(i, 5000) == Approx(plain(i, 10000)).epsilon(1e-14));
    c.rope.kind = RopeKind::linear, c.rope.factor = 4;
    CHECK(found(i, 5000) == Approx(plain(i, 10000) / 4).epsilon(1e-14));
    c.rope.kind = RopeKind::dynamic, c.rope.original = 2048;
    CHECK(found(i, 2048) == Approx(plain(i, 10000)).epsilon(1e-14));
    CHECK(found(i, 3072) == Approx(plain(i, 10000 * std::pow(4 * 3072.0 / 2048 - 3, 16.0 / 14))).epsilon(1e-14));
    c.rope.kind = RopeKind::divisors, c.rope.divisors = {1, 2, 3, 4, 5, 6, 7, 8};
    CHECK(found(i, 10) == Approx(plain(i, 10000) / (i + 1)).epsilon(1e-14));
  }
}

TEST_CASE("llama3 scaling keeps short waves, slows long ones by the factor and blends between") {
  ModelConfig c;
  c.head_dim = 64, c.rope_theta = 500000;
  c.rope.kind = RopeKind::llama3, c.rope.factor = 8, c.rope.low = 1, c.rope.high = 4, c.rope.original = 8192;
  const auto scaled = rope_frequencies(c, 100);
  int kept = 0, slowed = 0, blended = 0;
  for (int i = 0; i < 32; ++i) {
    const double f = std::pow(500000.0, -2.0 * i / 64), wave = 2 * 3.14159265358979323846 / f;
    double expected = f;
    if (wave > 8192.0 / 1) {
      expected = f / 8, ++slowed;
    } else if (wave >= 8192.0 / 4) {
      const double s = (8192.0 / wave - 1) / (4 - 1);
      expected = (1 - s) * f / 8 + s * f, ++blended;
    } else {
      ++kept;
    }
    CHECK(scaled.at(static_cast<size_t>(i)) == Approx(expected).epsilon(1e-13));
  }
  CHECK((kept > 0 && slowed > 0 && blended > 0));
}

TEST_CASE("rotation turns element i with element i + d/2, so that products depend on distances alone") {
  ModelConfig c;
  c.head_dim = 8, c.rope_theta = 100;
  at::manual_seed(1);
  const Tensor x = at::randn({2, 12, 3, 8}, at::kDouble);  // (batch, tokens, heads, d)
  const Tensor y = rotate(x, rotary(c, 12, at::dtype(at::kDouble)));
  const auto X = x.accessor<double, 4>();
  for (int64_t t : {0, 5, 11})
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = static_cast<double>(t) * std::pow(100.0, -2.0 * static_cast<double>(i) / 8);
      const double a = X[1][t][2][i], b = X[1][t][2][i + 4];
      CHECK(y[1][t][2][i].item<double>() == Approx(a * std::cos(angle) - b * std::sin(angle)).margin(1e-13));
      CHECK(y[1][t][2][i + 4].item<double>() == Approx(b * std::cos(angle) + a * std::sin(angle)).margin(1e-13));
    }
  const Tensor same = at::randn({1, 1, 2, 8}, at::kDouble).expand({1, 12, 2, 8});  // one query and one key at every position
  const Tensor r = rotate(same, rotary(c, 12, at::dtype(at::kDouble)));
  const auto product = [&](int64_t m, int64_t n) { return (r[0][m][0] * r[0][n][1]).sum().item<double>(); };
  CHECK(product(9, 4) == Approx(product(7, 2)).epsilon(1e-12));
  CHECK(std::abs(product(9, 4) - product(9, 3)) > 1e-6);
}

TEST_CASE("under gradient, float32 attention and its gradients are those of float64 to rounding, in tiles and with shared heads") {
  const int64_t heads = 6, kv = GENERATE(1, 2, 6), tokens = GENERATE(1, 17, 700);
  const auto [q, k, v] = random_operands(2, heads, kv, tokens, 8, at::kDouble);
  const Tensor weights = at::randn({2, heads, tokens, 8}, at::kDouble);
  const auto run = [&](at::ScalarType dtype) {
    OnlyOperands ops = dtype == at::kDouble ? chunked() : passing();
    std::vector<Tensor> all{q.to(dtype, false, true), k.to(dtype, false, true), v.to(dtype, false, true)};
    for (Tensor& t : all) t.requires_grad_();
    const Tensor y = attention(all[0], all[1], all[2], {}, 0.4, ops);
    (y * weights.to(dtype)).sum().backward();
    return std::vector<Tensor>{y.detach(), all[0].grad(), all[1].grad(), all[2].grad()};
  };
  const std::vector<Tensor> narrow = run(at::kFloat), wide = run(at::kDouble);
  for (size_t i = 0; i < wide.size(); ++i) CHECK(distance(narrow[i], wide[i]) <= 2e-6 * std::max(1.0, wide[i].abs().max().item<double>()));
}
