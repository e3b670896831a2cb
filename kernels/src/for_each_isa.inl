// Compiles the file PTQ_BODY once an instruction set, into the namespaces portable, avx2 and avx512 of ptq::kernels. The body marks every
// function PTQ_TARGET, which is the function attribute of that set, so no file needs a compiler flag. Standard headers come before this
// one.

#define PTQ_LEVEL 0
#define PTQ_TARGET
#define PTQ_VECTOR_BYTES 16
#define PTQ_SET portable
#include "simd.inl"
#include PTQ_BODY
#undef PTQ_LEVEL
#undef PTQ_TARGET
#undef PTQ_VECTOR_BYTES
#undef PTQ_SET

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define PTQ_LEVEL 1
#define PTQ_TARGET __attribute__((target("avx2,fma")))
#define PTQ_VECTOR_BYTES 32
#define PTQ_SET avx2
#include "simd.inl"
#include PTQ_BODY
#undef PTQ_LEVEL
#undef PTQ_TARGET
#undef PTQ_VECTOR_BYTES
#undef PTQ_SET

#define PTQ_LEVEL 2
#define PTQ_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define PTQ_VECTOR_BYTES 64
#define PTQ_SET avx512
#include "simd.inl"
#include PTQ_BODY
#undef PTQ_LEVEL
#undef PTQ_TARGET
#undef PTQ_VECTOR_BYTES
#undef PTQ_SET

#define PTQ_DISPATCH(call)         \
  switch (::ptq::kernels::isa()) { \
    case Isa::avx512:              \
      return avx512::call;         \
    case Isa::avx2:                \
      return avx2::call;           \
    case Isa::portable:            \
      break;                       \
  }                                \
  return portable::call
#else
#define PTQ_DISPATCH(call) return portable::call
#endif
