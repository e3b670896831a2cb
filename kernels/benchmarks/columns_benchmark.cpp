// The recursion inside a block of columns. `roof` is the fraction of the multiply-add ceiling; the work counted is B (B - 1)/2 of them a
// row.

#include <benchmark/benchmark.h>

#include <cmath>
#include <limits>
#include <ptq/kernels/columns.hpp>
#include <random>

#include "roof.hpp"

using namespace ptq::kernels;

namespace {

template <class T>
void block(benchmark::State& state, std::ptrdiff_t rows, std::ptrdiff_t cols, bool everything) {
  const auto size = static_cast<std::size_t>(rows * cols);
  std::mt19937 random(1);
  std::normal_distribution<double> normal(0, 0.05);
  std::vector<T> w(size), x(size), m(static_cast<std::size_t>(cols * cols)), q(size), e(size), seen(size),
      scale(static_cast<std::size_t>(rows));
  std::vector<std::int32_t> zero(scale.size()), codes(size);
  for (std::size_t i = 0; i < size; ++i) w[i] = static_cast<T>(normal(random)), x[i] = w[i] + static_cast<T>(0.1 * normal(random));
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = static_cast<T>(normal(random) / std::sqrt(static_cast<double>(cols)));
  ColumnBlock<T> b;
  b.w = {w.data(), rows, cols, cols}, b.x = {x.data(), rows, cols, cols}, b.m = {m.data(), cols, cols, cols};
  b.q = {q.data(), rows, cols, cols}, b.e = {e.data(), rows, cols, cols};
  if (everything) b.seen = {seen.data(), rows, cols, cols};
  b.codes = Codes{codes.data(), cols};
  fit_grid<T>(b.w, 0, {}, {}, {scale.data(), zero.data()}, {0, rows});
  b.grid.scale = scale.data(), b.grid.zero = zero.data(), b.grid.row_stride = 1;
  std::vector<std::vector<char>> scratch(64, std::vector<char>(column_block_workspace<T>(cols)));
  std::vector<std::vector<double>> loss(64, std::vector<double>(static_cast<std::size_t>(cols)));
  for (auto _ : state) {
    roof::parallel(rows, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      const auto t = static_cast<std::size_t>(begin * roof::threads() / rows);
      ColumnBlock<T> mine = b;
      mine.loss = loss[t].data();
      if (column_block<T>(mine, {begin, end}, scratch[t].data(), scratch[t].size()) != Status::ok) std::abort();
    });
  }
  const double operations = static_cast<double>(rows) * static_cast<double>(cols * (cols - 1)) * static_cast<double>(state.iterations());
  state.counters["flops"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  state.counters["roof"] = benchmark::Counter(operations / roof::ceilings().fma * (sizeof(T) / 4.0), benchmark::Counter::kIsRate);
}

template <class T>
void product(benchmark::State& state, std::ptrdiff_t rows, std::ptrdiff_t k, std::ptrdiff_t cols) {
  std::vector<T> e(static_cast<std::size_t>(rows * k), T(0.5)), m(static_cast<std::size_t>(k * cols), T(0.25)),
      x(static_cast<std::size_t>(rows * cols), T(1));
  for (auto _ : state) {
    roof::parallel(rows, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      compensate<T>({e.data(), rows, k, k}, {m.data(), k, cols, cols}, {x.data(), rows, cols, cols}, {begin, end});
    });
  }
  const double operations = 2.0 * static_cast<double>(rows * k * cols) * static_cast<double>(state.iterations());
  state.counters["flops"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  state.counters["roof"] = benchmark::Counter(operations / roof::ceilings().fma * (sizeof(T) / 4.0), benchmark::Counter::kIsRate);
}

}  // namespace

void register_columns_benchmarks() {
  const auto add = [](const char* name, auto function, auto... arguments) {
    benchmark::RegisterBenchmark(name, function, arguments...)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.3);
  };
  add("columns/float/2048x128/cache", block<float>, 2048, 128, false);
  add("columns/float_seen/2048x128/cache", block<float>, 2048, 128, true);
  add("columns/float/2048x32/cache", block<float>, 2048, 32, false);
  add("columns/float/2048x512/cache", block<float>, 2048, 512, false);
  add("columns/double/2048x128/cache", block<double>, 2048, 128, false);
  add("compensate/float/2048x96x32/cache", product<float>, 2048, 96, 32);
  add("compensate/float/2048x128x128/cache", product<float>, 2048, 128, 128);
}
