// Rounds, ceilings, and the program.

#include "paired.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include <ptq/core/affine.hpp>
#include <ptq/kernels/isa.hpp>
#include <ptq/results/environment.hpp>

#include "roof.hpp"

namespace ptq::bench {

namespace {

constexpr int64_t probe_width = 2048;

double seconds_of(const std::function<void()>& work, int repeats = 1) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / repeats;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const size_t n = x.size();
  return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/// Calls that make up about 10 ms, at least one.
int repeats_for(double seconds, int least = 1) { return std::max(least, static_cast<int>(0.01 / std::max(seconds, 1e-7))); }

/// Copies in a row that give one rate of memory. What is held against it is called as often in a row: the first call after other work meets
/// threads and pages that are not ready.
constexpr int copies = 3;

double copy_rate() {
  static Rotation from(at::ones({4096, 4096}), 4), to(at::ones({4096, 4096}), 4);
  const int64_t n = 4096 * 4096, vectors = n / 16;
  const auto copy = [&] {
    const float* a = from.next().const_data_ptr<float>();
    float* b = to.next().mutable_data_ptr<float>();
    at::parallel_for(0, vectors, 1,
                     [&](int64_t begin, int64_t end) { roof::copy_past_caches(b + 16 * begin, a + 16 * begin, 16 * (end - begin)); });
  };
  return 8.0 * static_cast<double>(n) / seconds_of(copy, copies);
}

double cached_copy_rate(double bytes) {
  const Tensor a = at::ones({std::max<int64_t>(1, static_cast<int64_t>(bytes / 8))}), b = at::ones_like(a);
  const auto copy = [&] { b.copy_(a); };
  copy();
  return 8.0 * static_cast<double>(a.numel()) / seconds_of(copy, repeats_for(bytes / 50e9));
}

struct Operands {
  Tensor a = at::randn({probe_width, probe_width}), b = at::randn({probe_width, probe_width});
  double operations = 2.0 * probe_width * probe_width * probe_width;
};

const Operands& operands() {
  static const Operands o;
  return o;
}

double mm_rate() {
  const Operands& o = operands();
  return o.operations / seconds_of([&] { benchmark::DoNotOptimize(at::mm(o.a, o.b)); });
}

double onednn_rate() {
  const Operands& o = operands();
  return o.operations / seconds_of([&] { benchmark::DoNotOptimize(affine(o.a, o.b)); });
}

/// Rates of one round for what binds; `mm` is NaN where that is not multiplication.
struct Probe {
  double ceiling = std::numeric_limits<double>::quiet_NaN(), mm = std::numeric_limits<double>::quiet_NaN();
};

Probe probe(const Case& c) {
  switch (c.ceiling) {
    case Ceiling::memory:
      return {std::max(copy_rate(), copy_rate()), {}};
    case Ceiling::cache:
      return {std::max(cached_copy_rate(c.work), cached_copy_rate(c.work)), {}};
    case Ceiling::multiply: {
      const double mm = mm_rate();
      return {std::max(mm, onednn_rate()), mm};
    }
    case Ceiling::none:
      break;
  }
  return {};
}

/// All threads, or one where that is faster, and the seconds of a call; a call warms up first.
std::pair<int, double> fastest_threads(const std::function<void()>& work, int all) {
  at::set_num_threads(1);
  const double first = seconds_of(work), one = std::min(first, first < 2 ? seconds_of(work) : first);
  at::set_num_threads(all);
  const double many = seconds_of(work);
  return one < many ? std::pair{1, one} : std::pair{all, many};
}

}  // namespace

Rates calibrate() {
  Rates best;
  const auto keep = [](double& rate, double seen) { rate = std::max(rate, seen); };
  for (int i = 0; i < 7; ++i) {
    keep(best.copy, copy_rate()), keep(best.cached_copy, cached_copy_rate(1 << 23));
    keep(best.mm, mm_rate()), keep(best.onednn, onednn_rate());
  }
  return best;
}

void measure(benchmark::State& state, const Case& c) {
  const at::NoGradGuard no_grad;
  const int all = at::get_num_threads();
  const double first = seconds_of(c.ours);
  const double error = c.error ? c.error() : std::numeric_limits<double>::quiet_NaN();
  if (!(error <= c.tolerance)) {
    state.SkipWithError(cat("wrong result: error ", error, " against float64, at most ", c.tolerance, " is right").c_str());
    return;
  }
  const int least = c.ceiling == Ceiling::memory ? copies : 1;
  const int repeats = repeats_for(first < 1 ? seconds_of(c.ours) : first, least);
  const auto [peer_threads, peer_seconds] = c.peer ? fastest_threads(c.peer, all) : std::pair{0, 0.0};
  std::vector<double> ours, ratios, roofs, of_mm;
  for (auto _ : state) {
    ours.push_back(seconds_of(c.ours, repeats));
    state.SetIterationTime(ours.back());
    if (c.peer) {
      at::set_num_threads(peer_threads);
      ratios.push_back(seconds_of(c.peer, repeats_for(peer_seconds, least)) / ours.back());
      at::set_num_threads(all);
    }
    const Probe p = probe(c);
    roofs.push_back(c.work / ours.back() / p.ceiling), of_mm.push_back(c.work / ours.back() / p.mm);
  }
  if (ours.empty()) return;
  auto& counters = state.counters;
  counters["err"] = error;
  if (c.ceiling != Ceiling::none) counters["roof"] = median(roofs);
  if (c.ceiling == Ceiling::multiply) counters["of_mm"] = median(of_mm);
  if (c.items > 0) counters["items_per_second"] = c.items / median(ours);
  if (c.roof_goal > 0) counters["roof_goal"] = c.roof_goal;
  if (c.mm_goal > 0) counters["mm_goal"] = c.mm_goal;
  if (!c.peer) return;
  counters["peer_ratio"] = median(ratios);
  counters["peer_ratio_min"] = *std::min_element(ratios.begin(), ratios.end());
  counters["peer_ratio_max"] = *std::max_element(ratios.begin(), ratios.end());
  counters["peer_threads"] = peer_threads;
  if (c.goal > 0) counters["goal"] = c.goal;
}

void add(const std::string& name, std::function<void(benchmark::State&)> make, int rounds) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(make))->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(rounds);
}

Tensor matrix(int64_t rows, int64_t cols, double deviation) {
  Tensor m = at::randn({rows, cols}) * deviation;
  m.slice(1, 0, cols, 64).mul_(10);
  return m;
}

}  // namespace ptq::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  at::manual_seed(1);
  const ptq::bench::Rates rates = ptq::bench::calibrate();
  const auto context = [](const char* key, double rate) {
    benchmark::AddCustomContext(key, std::to_string(static_cast<int64_t>(rate * 1e-9)));
  };
  context("copy_GB_s", rates.copy), context("cached_copy_GB_s", rates.cached_copy);
  context("mm_GFLOP_s", rates.mm), context("onednn_GFLOP_s", rates.onednn);
  benchmark::AddCustomContext("cpu", ptq::results::cpu_model());
  benchmark::AddCustomContext("isa", ptq::kernels::text(ptq::kernels::isa()));
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::AddCustomContext("libtorch", ptq::torch_version);
  register_rounding();
  register_linear_algebra();
  register_columns();
  register_search();
  register_learning();
  register_learning_step();
  register_learning_memory();
  register_codebooks();
  register_evaluation();
  register_low_rank();
  register_solvers();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
