// Elementwise rounding and grid fits. `roof` is the fraction of copy bandwidth (8 bytes an element; 4 for fits, which only read).

#include <benchmark/benchmark.h>

#include <limits>
#include <ptq/kernels/quantize.hpp>
#include <ptq/kernels/scan.hpp>
#include <random>

#include "roof.hpp"

using namespace ptq::kernels;

namespace {

struct Problem {
  std::ptrdiff_t rows, cols, group, groups;
  roof::Rotation<float> w, y;
  std::vector<float> scale;
  std::vector<std::int32_t> zero;
  Grid<float> grid;

  Problem(std::ptrdiff_t n, std::ptrdiff_t g, std::size_t copies)
      : rows(n),
        cols(n),
        group(g),
        groups(g == 0 ? 1 : n / g),
        w(static_cast<std::size_t>(n * n), copies),
        y(static_cast<std::size_t>(n * n), copies),
        scale(static_cast<std::size_t>(n * groups)),
        zero(scale.size()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.05f);
    std::vector<float> sample(1 << 16);
    for (float& v : sample) v = normal(random);
    for (auto& b : w.buffers) {
      for (std::size_t i = 0; i < b.size(); ++i) b[i] = sample[(i * 2654435761u >> 7) & 0xffff];
    }
    for (auto& b : y.buffers) std::fill(b.begin(), b.end(), std::numeric_limits<float>::quiet_NaN());
    fit_grid<float>(in(w.buffers[0].data()), group, {}, {}, {scale.data(), zero.data(), groups, 1}, {0, rows});
    grid.scale = scale.data(), grid.zero = zero.data(), grid.row_stride = groups, grid.group_stride = 1, grid.group = group;
  }
  View<const float> in(const float* p) const { return {p, rows, cols, cols}; }
  View<float> out(float* p) const { return {p, rows, cols, cols}; }
};

std::size_t copies(std::ptrdiff_t n) { return n >= 4096 ? 4 : 1; }

void report(benchmark::State& state, double bytes) {
  const double rate = bytes * static_cast<double>(state.iterations());
  state.counters["bytes"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["roof"] = benchmark::Counter(rate / roof::ceilings().copy, benchmark::Counter::kIsRate);
}

void copy(benchmark::State& state, std::ptrdiff_t n) {
  Problem p(n, 0, copies(n));
  for (auto _ : state) {
    const float* w = p.w.next();
    float* y = p.y.next();
    roof::parallel(n, [&](std::ptrdiff_t b, std::ptrdiff_t e) { std::copy(w + b * n, w + e * n, y + b * n); });
  }
  report(state, 8.0 * static_cast<double>(n * n));
}

void given(benchmark::State& state, std::ptrdiff_t n, std::ptrdiff_t group) {
  Problem p(n, group, copies(n));
  for (auto _ : state) {
    const View<const float> w = p.in(p.w.next());
    const View<float> y = p.out(p.y.next());
    roof::parallel(n, [&](std::ptrdiff_t b, std::ptrdiff_t e) {
      if (fake_quantize<float>(w, p.grid, y, {}, {b, e}) != Status::ok) std::abort();
    });
  }
  report(state, 8.0 * static_cast<double>(n * n));
}

void dynamic(benchmark::State& state, std::ptrdiff_t n, std::ptrdiff_t group, Range range) {
  Problem p(n, 0, copies(n));
  for (auto _ : state) {
    const View<const float> w = p.in(p.w.next());
    const View<float> y = p.out(p.y.next());
    roof::parallel(n, [&](std::ptrdiff_t b, std::ptrdiff_t e) {
      if (fake_quantize_dynamic<float>(w, group, {range, 8}, y, {}, nullptr, nullptr, {b, e}) != Status::ok) std::abort();
    });
  }
  report(state, 8.0 * static_cast<double>(n * n));
}

void fit(benchmark::State& state, std::ptrdiff_t n, Search::Kind kind) {
  Problem p(n, 0, copies(n));
  Search search;
  search.kind = kind;
  const Convention c{kind == Search::Kind::width_and_zero ? Range::flexround : Range::gptq, 4};
  for (auto _ : state) {
    const View<const float> w = p.in(p.w.next());
    roof::parallel(n, [&](std::ptrdiff_t b, std::ptrdiff_t e) {
      fit_grid<float>(w, 0, c, search, {p.scale.data(), p.zero.data()}, {b, e});
    });
  }
  report(state, 4.0 * static_cast<double>(n * n));
}

void maxima(benchmark::State& state, std::ptrdiff_t n) {
  Problem p(n, 0, copies(n));
  std::vector<std::vector<float>> top(64, std::vector<float>(static_cast<std::size_t>(n)));
  for (auto _ : state) {
    const View<const float> w = p.in(p.w.next());
    roof::parallel(n, [&](std::ptrdiff_t b, std::ptrdiff_t e) {
      column_absmax<float>(w, {b, e}, top[static_cast<std::size_t>(b * roof::threads() / n)].data());
    });
  }
  report(state, 4.0 * static_cast<double>(n * n));
}

}  // namespace

void register_quantize_benchmarks() {
  const auto add = [](const char* name, auto function, auto... arguments) {
    benchmark::RegisterBenchmark(name, function, arguments...)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.3);
  };
  using Kind = Search::Kind;
  add("copy/4096/dram", copy, 4096);
  add("given/channel/4096/dram", given, 4096, 0);
  add("given/group128/4096/dram", given, 4096, 128);
  add("given/group16/4096/dram", given, 4096, 16);
  add("given/channel/1024/cache", given, 1024, 0);
  add("given/group128/1024/cache", given, 1024, 128);
  add("dynamic/token/4096/dram", dynamic, 4096, 0, Range::awrq_activation);
  add("dynamic/token_absmax/4096/dram", dynamic, 4096, 0, Range::absmax);
  add("dynamic/group128/4096/dram", dynamic, 4096, 128, Range::gptq);
  add("dynamic/token/1024/cache", dynamic, 1024, 0, Range::awrq_activation);
  add("fit/minmax/4096/dram", fit, 4096, Kind::none);
  add("fit/shrink/1024/cache", fit, 1024, Kind::shrink);
  add("fit/width_and_zero/1024/cache", fit, 1024, Kind::width_and_zero);
  add("absmax/columns/4096/dram", maxima, 4096);
}
