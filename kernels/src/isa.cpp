#include <ptq/kernels/isa.hpp>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace ptq::kernels {

Isa machine_isa() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::portable;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  return wide ? Isa::avx512 : Isa::avx2;
#else
  return Isa::portable;
#endif
}

namespace {

Isa capped_by_environment() {
  const Isa best = machine_isa();
  const char* cap = std::getenv("PTQ_ISA");
  if (cap == nullptr) return best;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (std::strcmp(cap, text(isa)) == 0) return isa < best ? isa : best;
  }
  return best;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> value{capped_by_environment()};
  return value;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_relaxed); }

bool multiplies_bfloat16() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  return isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool use_isa(Isa isa) {
  if (isa > machine_isa() || isa < Isa::portable) return false;
  current().store(isa, std::memory_order_relaxed);
  return true;
}

}  // namespace ptq::kernels
