// One update of Adam. Least traffic: parameter, mean and square read and written, gradient read, 28 bytes an element.

#include <cmath>

#include <ptq/core/minimize.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

/// Kingma and Ba, arXiv 1412.6980, algorithm 1, in tensor operations.
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

}  // namespace

void register_learning() {
  add("learning/adam/1024x1024/cache/quick", [](benchmark::State& s) { adam(s, 1024); });
  add("learning/adam/4096x4096/dram", [](benchmark::State& s) { adam(s, 4096); });
}
