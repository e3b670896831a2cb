// Large buffers that every step of a loop asks for again stay with the process.
#pragma once

#include <atomic>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace ptq {

/// While one lives, freed memory is kept and given out again. Otherwise the C library returns every large buffer to the system and gets a
/// new one, whose pages it has to clear: eight times what a pass over them costs. Memory in use does not grow; what is kept is at most the
/// highest use, and goes back at the end. Elsewhere than with glibc it does nothing.
class KeptMemory {
 public:
  KeptMemory() {
#if defined(__GLIBC__)
    if (living()++ == 0) mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1);
#endif
  }
  ~KeptMemory() {
#if defined(__GLIBC__)
    if (--living() > 0) return;
    // As they are by default once a program has freed buffers of 32 MiB; an option that was set no longer follows use by itself.
    mallopt(M_MMAP_MAX, 65536), mallopt(M_MMAP_THRESHOLD, 32 << 20), mallopt(M_TRIM_THRESHOLD, 64 << 20);
    malloc_trim(0);
#endif
  }
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

 private:
  static std::atomic<int>& living() {
    static std::atomic<int> n{0};
    return n;
  }
};

}  // namespace ptq
