// Rounding onto grids. Least traffic: 8 bytes an element. `given` writes into a buffer that exists, `fresh` into a new tensor, as peers do.

#include <ptq/core/activation.hpp>

#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

size_t buffers(int64_t n) { return n >= 4096 ? 8 : 1; }

Scheme scheme_of(const char* text, Role role) { return Scheme::parse(text, "benchmark", role); }

/// max | |w − ours| − |w − nearest| | in steps; a tie that falls to the other side costs nothing. scale, zero (rows, groups).
double excess_distance(const Tensor& w, const Tensor& ours, const Grid& grid, int64_t group) {
  double worst = 0;
  for (int64_t row = 0; row < w.size(0); row += 256) {
    const int64_t rows = std::min<int64_t>(256, w.size(0) - row);
    const auto part = [&](const Tensor& t, int64_t width) { return t.narrow(0, row, rows).to(at::kDouble).reshape({rows, -1, width}); };
    const Tensor x = part(w, group), y = part(ours, group), s = part(grid.scale, 1), z = part(grid.zero, 1);  // (rows, groups, group or 1)
    const Tensor nearest = s * (at::clamp(at::round(x / s) + z, grid.lowest, grid.highest) - z);
    const double here = (((x - y).abs() - (x - nearest).abs()).abs() / s).max().item<double>();
    if (!(here <= worst)) worst = here;  // NaN stays
  }
  return worst;
}

/// A fixed grid, per channel or per group, against libtorch's operator (groups: on a view with one group a row).
void fixed_grid(benchmark::State& state, int64_t n, int64_t group, bool fresh) {
  const Scheme scheme = scheme_of(group > 0 ? "int4:g128" : "int4:channel", Role::weight);
  Rotation in(matrix(n, n, 0.02), buffers(n)), out(at::empty({n, n}), fresh ? 1 : buffers(n));
  out.poison();
  const Tensor w = in.next();
  const Grid grid = fit_grid(w, scheme);
  const int64_t width = group > 0 ? group : n;
  const Tensor scale = grid.scale.reshape({-1}), zero = grid.zero.reshape({-1});
  Tensor latest;
  Case c;
  c.ours = [&] {
    const Tensor& x = in.next();
    if (fresh) {
      latest = Tensor();
      latest = fake_quantize(x, grid);
    } else {
      latest = out.next();
      ptq::detail::round_onto(x, grid, {}, &latest, nullptr);
    }
  };
  c.peer = [&] {
    const Tensor y = at::fake_quantize_per_channel_affine(in.next().view({-1, width}), scale, zero, 0, grid.lowest, grid.highest);
    benchmark::DoNotOptimize(y);
  };
  c.error = [&] { return excess_distance(w, latest, grid, width); };
  c.tolerance = 1e-4;
  c.ceiling = n >= 4096 ? Ceiling::memory : Ceiling::cache, c.work = 8.0 * static_cast<double>(w.numel());
  if (n >= 4096 && group == 0 && !fresh) c.goal = 8, c.roof_goal = 0.7;
  measure(state, c);
}

/// The same written with tensor operations: range, step and zero point of every token, then rounding.
Tensor per_token(const Tensor& x, Tensor* scale = nullptr, Tensor* zero = nullptr) {
  const auto [low, high] = at::aminmax(x, -1, true);  // (tokens, 1)
  const Tensor s = (high - low) / 255, z = at::round(-low / s);
  if (scale) *scale = s;
  if (zero) *zero = z;
  return at::div(x, s).round_().add_(z).clamp_(0, 255).sub_(z).mul_(s);
}

void token(benchmark::State& state, int64_t n) {
  Scheme scheme = scheme_of("int8:token", Role::activation);
  scheme.range = Range::awrq_activation;
  Rotation in(matrix(n, n, 1), buffers(n));
  const Tensor x = in.next();
  Tensor latest;
  Case c;
  c.ours = [&] { latest = Tensor(), latest = quantize_activation(in.next(), scheme); };
  c.peer = [&] { benchmark::DoNotOptimize(per_token(in.next())); };
  c.error = [&] {
    Grid grid;
    (void)per_token(x.to(at::kDouble), &grid.scale, &grid.zero);
    grid.lowest = 0, grid.highest = 255;
    return excess_distance(x, latest, grid, n);
  };
  c.tolerance = 1e-3;
  c.ceiling = n >= 4096 ? Ceiling::memory : Ceiling::cache, c.work = 8.0 * static_cast<double>(x.numel());
  measure(state, c);
}

/// Block floating point in tensor operations: exponent, step, mantissa of every block of 16.
Tensor block_of_16(const Tensor& x, int bits) {
  const Tensor blocks = x.view({-1, 16});
  const Tensor step = at::exp2(at::floor(at::log2(blocks.abs().amax(-1, true))) + (2 - bits));  // (blocks, 1)
  const double top = std::ldexp(1.0, bits - 1) - 1;
  return at::div(blocks, step).round_().clamp_(-top, top).mul_(step).view(x.sizes());
}

/// Weights have 4 bits, activations (8192 tokens) 8.
void mxint(benchmark::State& state, int64_t rows, int64_t cols, bool fresh, bool ceil) {
  const int bits = rows == cols ? 4 : 8;
  const bool far = rows >= 4096;
  const kernels::BlockFloat format{bits, ceil};
  Rotation in(matrix(rows, cols, 0.02), buffers(rows)), out(at::empty({rows, cols}), fresh ? 1 : buffers(rows));
  out.poison();
  const Tensor w = in.next();
  Tensor latest;
  Case c;
  c.ours = [&] {
    if (fresh) {
      latest = Tensor();
      latest = block_float(in.next(), 16, format);
    } else {
      latest = out.next();
      ptq::detail::block_float_into(in.next(), 16, format, latest);
    }
  };
  c.peer = [&] { benchmark::DoNotOptimize(block_of_16(in.next(), bits)); };
  c.error = [&] {  // in steps, against float64; the ceil form saturates where a maximum counts as a power of two, which is its own affair
    const Tensor x = w.to(at::kDouble), nearest = block_of_16(x, bits), most = x.view({-1, 16}).abs().amax(-1, true);
    const Tensor power = at::exp2(at::floor(at::log2(most))), step = power * std::ldexp(1.0, 2 - bits);  // (blocks, 1)
    const Tensor apart = ((x - latest.to(at::kDouble)).abs() - (x - nearest).abs()).abs().view({-1, 16}) / step;
    return (ceil ? apart * most.gt(power * (1 + 1e-3)) : apart).max().item<double>();
  };
  c.tolerance = 1e-4 * std::ldexp(1.0, bits - 4);
  c.ceiling = far ? Ceiling::memory : Ceiling::cache, c.work = 8.0 * static_cast<double>(w.numel());
  if (far && !fresh) c.goal = 10, c.roof_goal = 0.7;
  measure(state, c);
}

}  // namespace

void register_rounding() {
  for (const int64_t n : {int64_t{1024}, int64_t{4096}}) {
    const std::string shape = cat("/", n, "x", n), regime = n >= 4096 ? "/dram" : "/cache/quick";
    add("rounding/channel_given" + shape + regime, [=](benchmark::State& s) { fixed_grid(s, n, 0, false); });
    add("rounding/channel_fresh" + shape + regime, [=](benchmark::State& s) { fixed_grid(s, n, 0, true); });
    add("rounding/group128_given" + shape + regime, [=](benchmark::State& s) { fixed_grid(s, n, 128, false); });
    add("rounding/mxint16_given" + shape + regime, [=](benchmark::State& s) { mxint(s, n, n, false, false); });
    add("rounding/mxint16_ceil_given" + shape + regime, [=](benchmark::State& s) { mxint(s, n, n, false, true); });
    add("rounding/mxint16_fresh" + shape + regime, [=](benchmark::State& s) { mxint(s, n, n, true, false); });
    add("rounding/token_fresh" + shape + regime, [=](benchmark::State& s) { token(s, n); });
  }
  add("rounding/mxint16_inputs_given/8192x2048/dram", [](benchmark::State& s) { mxint(s, 8192, 2048, false, false); });
  add("rounding/mxint16_ceil_inputs_given/8192x2048/dram", [](benchmark::State& s) { mxint(s, 8192, 2048, false, true); });
}
