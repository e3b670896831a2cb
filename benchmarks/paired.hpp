// A case against its peer in this process: rounds of ours, peer and ceilings, so that a busy machine slows all of them alike.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <ptq/core/tensor.hpp>

namespace ptq::bench {

/// The resource that no implementation can do without.
enum class Ceiling {
  none,
  memory,    ///< bytes a second of a copy past the caches
  cache,     ///< bytes a second of a copy of the same size, again and again
  multiply,  ///< float32 operations a second of the faster of at::mm and oneDNN at 2048³
};

/// What is timed, against whom, and how far off its result may be.
struct Case {
  std::function<void()> ours;
  std::function<void()> peer{};     ///< none: only the ceiling is compared
  std::function<double()> error{};  ///< of what `ours` has just left in poisoned outputs, against float64; NaN is an error
  double tolerance = 0;
  Ceiling ceiling = Ceiling::none;
  double work = 0;       ///< least bytes or operations of one call
  double items = 0;      ///< tokens or elements of one call, for a rate; 0: none
  double goal = 0;       ///< wanted ratio to the peer, 0: none
  double roof_goal = 0;  ///< wanted fraction of the ceiling, 0: none
  double mm_goal = 0;    ///< wanted fraction of at::mm's own rate, 0: none
};

/// Rates of this machine, in bytes or operations a second.
struct Rates {
  double copy = 0, cached_copy = 0, mm = 0, onednn = 0;
};

/// Measures all rates several times and keeps the best; the program begins with it.
[[nodiscard]] Rates calibrate();

/// Checks the result, then fills in time, `roof`, `of_mm` (the fraction of at::mm's own rate), `peer_ratio` (median of the rounds; `_min`,
/// `_max`), `peer_threads`, `err` and goals. A wrong result ends the case with an error and no time. The peer runs with 1 or with all
/// threads, whichever is faster.
void measure(benchmark::State& state, const Case& c);

/// Adds a case: `make` prepares it when it is run. Names are family/what/shape/regime[/quick]; regimes are dram (buffers in rotation, about
/// 1 GB), cache (the same buffers again) and multiply.
void add(const std::string& name, std::function<void(benchmark::State&)> make, int rounds = 7);

/// Tensors in rotation, so that none is in a cache when its turn comes.
class Rotation {
 public:
  Rotation(const Tensor& first, size_t count) : tensors_{first} {
    while (tensors_.size() < count) tensors_.push_back(first.clone());
  }
  [[nodiscard]] Tensor& next() { return tensors_[turn_++ % tensors_.size()]; }
  void poison() {
    for (Tensor& t : tensors_) t.fill_(std::numeric_limits<double>::quiet_NaN());
  }

 private:
  std::vector<Tensor> tensors_;
  size_t turn_ = 0;
};

/// Normal weights, one column in 64 ten times as large: what makes ranges and Hessians uneven in real layers.
[[nodiscard]] Tensor matrix(int64_t rows, int64_t cols, double deviation);

}  // namespace ptq::bench

void register_rounding();
void register_linear_algebra();
void register_columns();
void register_search();
void register_learning();
void register_codebooks();
void register_learning_step();
void register_learning_memory();
void register_evaluation();
void register_low_rank();
void register_solvers();
