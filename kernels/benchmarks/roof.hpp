#pragma once
// The ceilings of this machine, measured in this process: `roof` in a result is the fraction of the one that binds.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace roof {

struct Ceilings {
  double copy;  ///< bytes read + written a second, stores past the caches, all threads
  double fma;   ///< float operations a second, all threads, in the instruction set in use
};

/// Measured once, on first use.
const Ceilings& ceilings();

/// Copies n floats, a multiple of 16, 64-byte aligned, past the caches, on this thread.
void copy_past_caches(float* to, const float* from, std::ptrdiff_t n);

/// Threads that kernels run on: PTQ_THREADS, else all cores.
int threads();

/// body(begin, end) over rows, shared among threads().
void parallel(std::ptrdiff_t rows, const std::function<void(std::ptrdiff_t, std::ptrdiff_t)>& body);

/// Buffers large enough together that none is found in a cache when its turn comes.
template <class T>
struct Rotation {
  std::vector<std::vector<T>> buffers;
  std::size_t turn = 0;

  Rotation(std::size_t size, std::size_t count) : buffers(count, std::vector<T>(size + 64 / sizeof(T))) {}
  T* next() {
    std::vector<T>& b = buffers[turn++ % buffers.size()];
    return b.data() + (64 - reinterpret_cast<std::uintptr_t>(b.data()) % 64) % 64 / sizeof(T);
  }
};

}  // namespace roof

void register_quantize_benchmarks();
void register_columns_benchmarks();
