// GPTAQ against its recursion written out with U and P, against the printed table, and where it must be GPTQ.
#include <ptq/solver/gptaq.hpp>

#include <ptq/solver/awrq.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "generator.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// One layer: what the float model feeds it, and what it sees; x, seen (tokens, n).
struct Layer {
  Tensor w, x, seen;
  Statistics stats;

  Layer(Tensor weight, Tensor reference, Tensor inputs) : w(std::move(weight)), x(std::move(reference)), seen(std::move(inputs)) {
    stats.add({.hessian = true, .cross = true}, seen.unsqueeze(0), x.unsqueeze(0));
    stats.finish();
  }
  template <class P>
  [[nodiscard]] Solution solve(const P& p, const std::string& scheme) const {
    Shared shared;
    Problem problem;
    problem.place = "layer", problem.weight = w, problem.scheme = weights(scheme), problem.stats = &stats, problem.shared = &shared;
    return p.solve(problem);
  }
  /// ‖W X_ref − Q X‖².
  [[nodiscard]] double error(const Tensor& q) const { return (at::mm(x, w.t()) - at::mm(seen, q.t())).square().sum().item<double>(); }
};

/// The data of the printed table: 8 × 24, 64 tokens, the layer sees them at 4 bits per tensor.
Layer printed_layer() {
  Generator random(11);
  const Tensor w = 0.3 * random.normal(8, 24), a = random.normal(24, 6), z = random.normal(6, 64);
  const Tensor x = (at::mm(a, z) + 0.3 * random.normal(24, 64)).t().contiguous();
  return {w, x, quantize_activation(x, activations("int4:tensor"))};
}

/// The published loop: inside a block w_k ← w_k − e U_jk + w_j P_jk with w_j before rounding; later blocks get W − E U + Q P (`released`)
/// or the values before rounding there, too. Returns Q.
Tensor written_out(const Layer& l, double alpha, const std::string& scheme, int64_t block, const Tensor& order, bool released) {
  const int64_t n = l.w.size(1);
  Tensor h = (2 * at::mm(l.seen.t(), l.seen)).index_select(0, order).index_select(1, order).clone();
  const Tensor d = (2 * at::mm((l.x - l.seen).t(), l.seen)).index_select(0, order).index_select(1, order);
  h.diagonal().add_(0.01 * h.diagonal().mean());
  const Tensor u = at::linalg_cholesky(at::linalg_inv(h), /*upper=*/true);
  const Tensor p = alpha * at::mm(at::mm(d, u.t()).triu(1), u);
  const Grid grid = fit_grid(l.w, weights(scheme));
  Tensor w = l.w.index_select(1, order).clone(), q = at::zeros_like(w), before = at::zeros_like(w), e = at::zeros_like(w);
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = std::min(n, begin + block);
    for (int64_t j = begin; j < end; ++j) {
      const Tensor now = w.select(1, j).clone();
      q.select(1, j).copy_(fake_quantize(now.unsqueeze(1), grid).squeeze(1));
      before.select(1, j).copy_(now);
      e.select(1, j).copy_((now - q.select(1, j)) / u[j][j]);
      const int64_t to_come = end - j;
      w.narrow(1, j, to_come).sub_(at::outer(e.select(1, j), u[j].narrow(0, j, to_come)));
      w.narrow(1, j, to_come).add_(at::outer(now, p[j].narrow(0, j, to_come)));
    }
    const auto part = [&](const Tensor& t) { return t.narrow(1, begin, end - begin); };
    const auto after = [&](const Tensor& t) { return t.narrow(0, begin, end - begin).narrow(1, end, n - end); };
    w.narrow(1, end, n - end).sub_(at::mm(part(e), after(u))).add_(at::mm(part(released ? q : before), after(p)));
  }
  return q.index_select(1, at::argsort(order));
}

}  // namespace

TEST_CASE("GPTAQ's table: the official form depends on blocks, the consistent one does not") {
  const Layer l = printed_layer();
  const auto near = [](double value) { return Approx(value).epsilon(0).margin(5.00001e-5); };
  const auto error = [&](const Gptaq& g) { return l.error(l.solve(g, "int3").linear.weight()); };
  const auto official = [&](double alpha, int64_t block) { return error({.alpha = alpha, .block = block, .as_published = true}); };
  CHECK(official(1, 1) == near(175.3065));
  CHECK(official(1, 4) == near(182.0750));
  CHECK(official(1, 8) == near(180.6292));
  CHECK(official(1, 24) == near(178.4059));
  CHECK(official(0.25, 1) == near(215.0690));
  CHECK(official(0.25, 4) == near(219.8774));
  CHECK(official(0.25, 8) == near(217.7441));
  CHECK(official(0.25, 24) == near(217.7441));
  for (const int64_t block : {1, 4, 8, 24, 128}) {
    CHECK(error({.alpha = 1, .block = block}) == near(178.4059));
    CHECK(error({.block = block}) == near(217.7441));
  }
  CHECK(l.error(fake_quantize(l.w, fit_grid(l.w, weights("int3")))) == near(296.5998));
  CHECK(l.error(l.solve(Gptq{}, "int3").linear.weight()) == near(223.8459));
  CHECK(l.error(l.solve(Awrq{.as_published = true}, "int3").linear.weight()) == near(109.8732));
}

TEST_CASE("GPTAQ is its recursion with U and P, in any order and block") {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    at::manual_seed(seed);
    const Tensor x = at::mm(at::randn({50, 5}, at::kDouble), at::randn({5, 16}, at::kDouble)) + 0.3 * at::randn({50, 16}, at::kDouble);
    const Layer l(0.3 * at::randn({7, 16}, at::kDouble), x, x + 0.1 * at::randn({50, 16}, at::kDouble));
    const Tensor natural = at::arange(16), descending = at::argsort(l.stats.hessian.diagonal(), true, 0, true);
    for (const double alpha : {0.25, 1.0})
      for (const auto order : {ColumnOrder::natural, ColumnOrder::descending})
        for (const int64_t block : {1, 3, 16})
          for (const bool released : {false, true}) {
            INFO("seed " << seed << " alpha " << alpha << " order " << static_cast<int>(order) << " block " << block << " " << released);
            const Tensor expected = written_out(l, alpha, "int3", block, order == ColumnOrder::natural ? natural : descending, released);
            const Solution s = l.solve(Gptaq{.alpha = alpha, .block = block, .order = order, .as_published = released}, "int3");
            CHECK(at::allclose(s.linear.weight(), expected, 1e-9, 1e-12));
          }
  }
}

TEST_CASE("without a difference of streams, or with alpha 0, GPTAQ is GPTQ code for code") {
  const Layer l = printed_layer(), same(l.w, l.x, l.x);
  for (const char* scheme : {"int3", "int4:g8", "int2:sym"})
    for (const auto order : {ColumnOrder::natural, ColumnOrder::descending})
      for (const bool fixed : {false, true}) {
        const Gptq gptq{.order = order, .static_groups = fixed};
        const auto codes = [&](const Layer& on, double alpha) {
          return on.solve(Gptaq{.alpha = alpha, .order = order, .static_groups = fixed}, scheme).linear.codes;
        };
        CHECK(at::equal(codes(l, 0), l.solve(gptq, scheme).linear.codes));
        CHECK(at::equal(codes(same, 1), same.solve(gptq, scheme).linear.codes));
        CHECK(!at::equal(codes(l, 1), l.solve(gptq, scheme).linear.codes));
      }
}

TEST_CASE("as released, static groups follow their columns through every block") {
  const Layer l = printed_layer();
  for (const auto order : {ColumnOrder::natural, ColumnOrder::descending}) {
    // One block has no later block to see rounded columns.
    const Gptaq one{.alpha = 1, .block = 24, .order = order, .static_groups = true};
    Gptaq released = one;
    released.as_published = true;
    CHECK(at::equal(l.solve(one, "int3:g8").linear.codes, l.solve(released, "int3:g8").linear.codes));
    released.block = 5;
    CHECK(!at::equal(l.solve(one, "int3:g8").linear.codes, l.solve(released, "int3:g8").linear.codes));
    CHECK(l.error(l.solve(released, "int3:g8").linear.weight()) < l.error(fake_quantize(l.w, fit_grid(l.w, weights("int3:g8")))));
  }
}

TEST_CASE("GPTAQ goes through the walk: with alpha 0 as true-sequential GPTQ, and else closer to the float model") {
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family, at::kDouble);
    const Tensor tokens = tiny_tokens(8, 24);
    const auto run = [&](const auto& solver) {
      return walk(model, stages(Recipe<Nearest, NoSmoothing, Mse, std::decay_t<decltype(solver)>>{.solver = solver}), formats("int3"),
                  tokens);
    };
    const Kept gptq = run(Gptq{.true_sequential = true}), off = run(Gptaq{.alpha = 0}), on = run(Gptaq{});
    for (size_t b = 0; b < 2; ++b)
      for (size_t i = 0; i < gptq.blocks[b].linears.size(); ++i)
        CHECK(at::equal(gptq.blocks[b].linears[i].codes, off.blocks[b].linears[i].codes));
    CHECK(!at::equal(gptq.blocks[1].linears[0].codes, on.blocks[1].linears[0].codes));
  }
}

TEST_CASE("GPTAQ refuses what it cannot do") {
  CHECK_THAT((Gptaq{.alpha = -0.1}.refuses(weights("int4"))), ContainsSubstring("solver.alpha must lie in [0, 1]"));
  CHECK_THAT((Gptaq{.as_published = true}.refuses(weights("int4:g8"))), ContainsSubstring("static_groups"));
  CHECK((Gptaq{.static_groups = true, .as_published = true}.refuses(weights("int4:g8"))).empty());
}
