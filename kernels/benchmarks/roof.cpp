// Ceilings and threads.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ptq/kernels/isa.hpp>
#include <string>
#include <thread>

#include "roof.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace roof {

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#if defined(__x86_64__)
#define FMA_LOOP(name, vector, target_name, lanes, expression)            \
  __attribute__((target(target_name))) double name(long rounds) {         \
    vector a[10], m, b;                                                   \
    for (int i = 0; i < 10; ++i) a[i] = vector{} + static_cast<float>(i); \
    m = vector{} + 0.999f, b = vector{} + 1e-3f;                          \
    for (long r = 0; r < rounds; ++r) {                                   \
      for (int i = 0; i < 10; ++i) a[i] = expression;                     \
    }                                                                     \
    float sum = 0;                                                        \
    for (int i = 0; i < 10; ++i) sum += a[i][0];                          \
    benchmark::DoNotOptimize(sum);                                        \
    return 10.0 * (lanes)*2 * static_cast<double>(rounds);                \
  }
typedef float Narrow __attribute__((vector_size(16)));
FMA_LOOP(fma_avx512, __m512, "avx512f", 16, _mm512_fmadd_ps(a[i], m, b))
FMA_LOOP(fma_avx2, __m256, "avx2,fma", 8, _mm256_fmadd_ps(a[i], m, b))
FMA_LOOP(fma_portable, Narrow, "sse2", 4, a[i] * m + b)
#undef FMA_LOOP

#define STREAM(name, target_name, lanes, load, stream)                                             \
  __attribute__((target(target_name))) void name(float* to, const float* from, std::ptrdiff_t n) { \
    for (std::ptrdiff_t i = 0; i < n; i += lanes) stream(to + i, load(from + i));                  \
    _mm_sfence();                                                                                  \
  }
STREAM(stream_avx512, "avx512f", 16, _mm512_loadu_ps, _mm512_stream_ps)
STREAM(stream_avx2, "avx2", 8, _mm256_loadu_ps, _mm256_stream_ps)
STREAM(stream_portable, "sse2", 4, _mm_loadu_ps, _mm_stream_ps)
#undef STREAM

double fma_operations(long rounds) {
  switch (ptq::kernels::isa()) {
    case ptq::kernels::Isa::avx512:
      return fma_avx512(rounds);
    case ptq::kernels::Isa::avx2:
      return fma_avx2(rounds);
    case ptq::kernels::Isa::portable:
      break;
  }
  return fma_portable(rounds);
}
#else
double fma_operations(long rounds) {
  float a[16] = {};
  for (long r = 0; r < rounds; ++r) {
    for (float& x : a) x = x * 0.999f + 1e-3f;
  }
  benchmark::DoNotOptimize(a);
  return 32.0 * static_cast<double>(rounds);
}
#endif

Ceilings measure() {
  Ceilings best{0, 0};
  constexpr std::ptrdiff_t rows = 4096, cols = 4096;
  Rotation<float> from(rows * cols, 2), to(rows * cols, 2);
  for (int repeat = 0; repeat < 7; ++repeat) {
    float *a = from.next(), *b = to.next();
    double start = seconds();
    parallel(rows,
             [&](std::ptrdiff_t begin, std::ptrdiff_t end) { copy_past_caches(b + begin * cols, a + begin * cols, (end - begin) * cols); });
    best.copy = std::max(best.copy, 8.0 * rows * cols / (seconds() - start));
    constexpr long rounds = 2'000'000;
    start = seconds();
    parallel(threads(), [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (; begin < end; ++begin) benchmark::DoNotOptimize(fma_operations(rounds));
    });
    const double took = seconds() - start;
    best.fma = std::max(best.fma, threads() * fma_operations(0 + 1) * rounds / took);
  }
  return best;
}

}  // namespace

void copy_past_caches(float* to, const float* from, std::ptrdiff_t n) {
#if defined(__x86_64__)
  switch (ptq::kernels::isa()) {
    case ptq::kernels::Isa::avx512:
      return stream_avx512(to, from, n);
    case ptq::kernels::Isa::avx2:
      return stream_avx2(to, from, n);
    case ptq::kernels::Isa::portable:
      return stream_portable(to, from, n);
  }
#else
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
#endif
}

const Ceilings& ceilings() {
  static const Ceilings measured = measure();
  return measured;
}

int threads() {
  static const int count = [] {
    const char* wanted = std::getenv("PTQ_THREADS");
    return std::max(1, wanted != nullptr ? std::atoi(wanted) : static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

void parallel(std::ptrdiff_t rows, const std::function<void(std::ptrdiff_t, std::ptrdiff_t)>& body) {
  std::vector<std::thread> others;
  for (std::ptrdiff_t t = 1; t < threads(); ++t) others.emplace_back([&, t] { body(rows * t / threads(), rows * (t + 1) / threads()); });
  body(0, rows / threads());
  for (std::thread& t : others) t.join();
}

}  // namespace roof
