// One update of Adam. Least traffic: parameter, mean and square read and written, gradient read, 28 bytes an element.
// One element-wise division with its gradients, FlexRound's and LRQ's. Least traffic: W and T read, Ŵ written; W, T and G read, D written,
// 28 bytes an element.

#include <algorithm>
#include <cmath>
#include <memory>

#include <ptq/core/affine.hpp>
#include <ptq/core/division.hpp>
#include <ptq/core/minimize.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// Kingma and Ba, arXiv 1412.6980, algorithm 1, by the tensor operations of libtorch's own optimizer, torch::optim::Adam.
struct Composite {
  Tensor p, m, v;
  int64_t t = 0;

  explicit Composite(const Tensor& start) : p(start.clone()), m(at::zeros_like(start)), v(at::zeros_like(start)) {}
  void step(const Tensor& g, double rate) {
    ++t;
    m.mul_(0.9).add_(g, 0.1), v.mul_(0.999).addcmul_(g, g, 0.001);
    const double first = 1 - std::pow(0.9, t), second = 1 - std::pow(0.999, t);
    p.addcdiv_(m, v.sqrt().div_(std::sqrt(second)).add_(1e-8), -rate / first);
  }
};

void adam(benchmark::State& state, int64_t n) {
  const Tensor start = at::randn({n, n}), gradient = at::randn({n, n});
  const Tensor p = start.clone();
  Adam ours({{{p}, 1e-3}}, Learning{}, 1e-8);
  const_cast<Tensor&>(p).mutable_grad() = gradient;
  Composite peer(start);
  int64_t steps = 0;
  Case c;
  c.ours = [&] { ours.step(1), ++steps; };
  c.peer = [&] { peer.step(gradient, 1e-3); };
  c.error = [&] {
    Composite exact(start.to(at::kDouble));
    for (int64_t i = 0; i < steps; ++i) exact.step(gradient.to(at::kDouble), 1e-3);
    return ((p.detach() - exact.p).abs().max() / 1e-3).item<double>();  // in steps
  };
  c.tolerance = 1e-2;
  c.ceiling = n >= 4096 ? Ceiling::memory : Ceiling::cache, c.work = 28.0 * static_cast<double>(p.numel());
  measure(state, c);
}

/// Ŵ = s clamp(rne(W / exp(T)), lo − z, hi − z) in tensor operations that autograd follows, as a first version would have it.
Tensor eager_division(const Tensor& w, const Tensor& l1, const Tensor& matrix, const Tensor& row, const Tensor& column, const Tensor& zero,
                      int bits) {
  const Tensor t = column.defined() ? l1 + matrix + row + column : l1 + matrix + row, v = w / t.exp();
  const Tensor k = v + (v.round() - v).detach(), q = at::clamp(k, -zero, ((1 << bits) - 1) - zero);
  return q * l1.exp();
}

struct DivisionCase {
  Tensor w, matrix, row, column, upstream, l1, zero;
  Scheme scheme;
  std::vector<Tensor> leaves;
  Tensor values;
  ptq::detail::Division::Gradients out;

  DivisionCase(int64_t n, bool columns) : w(matrix_of(n)), matrix(at::randn({n, n}) * 0.05), row(at::randn({n, 1}) * 0.05) {
    if (columns) column = at::randn({1, n}) * 0.05;
    upstream = at::randn({n, n});
    scheme.bits = 4, scheme.range = Range::flexround;
    const NamedTensors start = start_division(w, scheme);
    l1 = start.at("l1"), zero = start.at("zero");
    leaves = {l1, matrix, row};
    if (columns) leaves.push_back(column);
    for (Tensor& t : leaves) t.requires_grad_(true);
  }
  static Tensor matrix_of(int64_t n) { return bench::matrix(n, n, 0.02); }

  void forget() {
    for (Tensor& t : leaves) t.mutable_grad().reset();
  }
  /// Forward and backward into tensors that exist.
  void given() {
    const c10::NoGradGuard off;
    if (!values.defined()) {
      values = at::empty_like(w);
      out = {{}, at::zeros_like(l1), at::empty_like(matrix), at::empty_like(row), column.defined() ? at::zeros_like(column) : Tensor()};
    }
    const ptq::detail::Division d = ptq::detail::division(w, l1, zero, scheme, {matrix, row, column});
    d.forward(values, {});
    out.l1.zero_();
    if (column.defined()) out.column.zero_();
    d.backward(upstream, out);
    const Tensor gradients[] = {out.l1, out.matrix, out.row, out.column};
    for (size_t i = 0; i < leaves.size(); ++i) leaves[i].mutable_grad() = gradients[i];
  }
  void ours() {
    const c10::AutoGradMode on(true);
    forget();
    divide_through(w, {{"l1", l1}, {"zero", zero}}, scheme, {matrix, row, column}).backward(upstream);
  }
  void peer() {
    const c10::AutoGradMode on(true);
    forget();
    eager_division(w, l1, matrix, row, column, zero, scheme.bits).backward(upstream);
  }
  /// Largest error of the gradients of all parts, relative to their largest entries, against the formulas in float64; entries within 1e-4
  /// of a tie or an end of the clamp are left out, and rows and columns are compared with that many entries of slack.
  [[nodiscard]] double error() const {
    const c10::NoGradGuard off;
    const auto wide = [](const Tensor& t) { return t.to(at::kDouble); };
    const Tensor l = wide(l1), t = column.defined() ? l + wide(matrix) + wide(row) + wide(column) : l + wide(matrix) + wide(row);
    const Tensor v = wide(w) / t.exp(), k = v.round(), lo = -wide(zero), hi = 15 - wide(zero);
    const Tensor m = k.ge(lo).logical_and(k.le(hi)).to(at::kDouble), g = wide(upstream) * l.exp(), d = -g * m * v;
    const Tensor sure = ((v - v.floor()) - 0.5).abs().gt(1e-4).to(at::kDouble);
    const auto off_by = [](const Tensor& a, const Tensor& b, const Tensor& mask) {
      return ((a.to(at::kDouble) - b) * mask).abs().max().item<double>() / b.abs().max().item<double>();
    };
    const double entries = off_by(matrix.grad(), d, sure), rows = off_by(row.grad(), d.sum(1, true), at::ones({1}, at::kDouble));
    return std::max(entries, rows / 1e2);
  }
};

void division(benchmark::State& state, int64_t n, bool columns, bool given) {
  const auto problem = std::make_shared<DivisionCase>(n, columns);
  Case c;
  c.ours = [=] { given ? problem->given() : problem->ours(); };
  c.peer = [=] { problem->peer(); };
  c.error = [=] { return problem->error(); };
  c.tolerance = 1e-5;
  c.ceiling = n >= 4096 ? Ceiling::memory : Ceiling::cache, c.work = 28.0 * static_cast<double>(n * n);
  c.goal = 5, c.roof_goal = given && n >= 4096 ? 0.6 : 0;
  measure(state, c);
}

/// LRQ's three products: L U, and from the gradient G of that, G Uᵀ and Lᵀ G.
void factor_products(benchmark::State& state, int64_t n, int64_t rank) {
  struct Factors {
    Tensor l, u, upstream;
  };
  const auto f = std::make_shared<Factors>(Factors{at::randn({n, rank}), at::randn({rank, n}), at::randn({n, n})});
  f->l.requires_grad_(true), f->u.requires_grad_(true);
  const auto run = [=](const auto& multiply) {
    const c10::AutoGradMode on(true);
    f->l.mutable_grad().reset(), f->u.mutable_grad().reset();
    multiply().backward(f->upstream);
  };
  Case c;
  c.ours = [=] { run([&] { return affine(f->l, f->u.t()); }); };
  c.peer = [=] { run([&] { return at::mm(f->l, f->u); }); };
  c.error = [=] {
    const c10::NoGradGuard off;
    const auto wide = [](const Tensor& t) { return t.to(at::kDouble); };
    const Tensor l = at::mm(wide(f->upstream).narrow(0, 0, 64), wide(f->u).t()),
                 u = at::mm(wide(f->l).t().narrow(0, 0, 64), wide(f->upstream));
    const auto off_by = [](const Tensor& a, const Tensor& b) { return ((a.narrow(0, 0, 64) - b).norm() / b.norm()).item<double>(); };
    return std::max(off_by(f->l.grad(), l), off_by(f->u.grad(), u));
  };
  c.tolerance = 1e-5;
  c.ceiling = Ceiling::multiply, c.work = 6.0 * static_cast<double>(n * n * rank), c.roof_goal = 0.8;
  measure(state, c);
}

}  // namespace

void register_learning() {
  add("learning/flexround_given/4096x4096/dram", [](benchmark::State& s) { division(s, 4096, false, true); });
  add("learning/flexround_fresh/4096x4096/dram", [](benchmark::State& s) { division(s, 4096, false, false); });
  add("learning/flexround_fresh/1024x1024/cache/quick", [](benchmark::State& s) { division(s, 1024, false, false); });
  add("learning/lrq_elements_given/4096x4096/dram", [](benchmark::State& s) { division(s, 4096, true, true); });
  add(
      "learning/lrq_products/4096x4096_1024/multiply", [](benchmark::State& s) { factor_products(s, 4096, 1024); }, 3);
  add("learning/adam/1024x1024/cache/quick", [](benchmark::State& s) { adam(s, 1024); });
  add("learning/adam/4096x4096/dram", [](benchmark::State& s) { adam(s, 4096); });
}
