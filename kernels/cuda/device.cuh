#pragma once
// What the rounding kernels share: grids and outputs as they travel to the device, one value onto its grid, ranges over lanes and blocks.

#include <ptq/kernels/cuda.hpp>

#include "../src/grid_formula.hpp"

namespace ptq::kernels::cuda {

inline constexpr int block_threads = 256;
inline constexpr int groups_at_once = 2;  // groups a team of lanes works on at once
inline constexpr unsigned whole_warp = 0xffffffffu;

/// Where results go; values and codes may be null.
struct Output {
  float* values;
  long long values_stride;
  void* codes;
  long long codes_stride;
  int code_bytes;
  int* flag;
};

struct DeviceGrid {
  const float* scale;
  const int* zero;
  long long row_stride, group_stride, group;
  const int* g_idx;
  int lo, hi;
};

__device__ inline bool sound(float x) { return fabsf(x) <= 3.402823466e38f; }

__device__ inline bool sound(float4 x) { return sound(x.x) && sound(x.y) && sound(x.z) && sound(x.w); }

/// s clamp(rne(x / s), lo - z, hi - z); NaN goes to the lower bound, as on the CPU.
struct Point {
  float value;
  int code;
};

__device__ inline Point round_to_grid(float x, float s, int z, int lo, int hi) {
  const float r =
      fminf(fmaxf(rintf(__fdiv_rn(x, s)), static_cast<float>(lo) - static_cast<float>(z)), static_cast<float>(hi) - static_cast<float>(z));
  return {r * s, static_cast<int>(r + static_cast<float>(z))};
}

__device__ inline void write(const Output& out, long long r, long long c, Point p) {
  if (out.values != nullptr) out.values[r * out.values_stride + c] = p.value;
  if (out.codes == nullptr) return;
  if (out.code_bytes == 1) {
    static_cast<unsigned char*>(out.codes)[r * out.codes_stride + c] = static_cast<unsigned char>(p.code);
  } else {
    static_cast<int*>(out.codes)[r * out.codes_stride + c] = p.code;
  }
}

__device__ inline void write(const Output& out, long long r, long long c, Point a, Point b, Point d, Point e) {
  if (out.values != nullptr)
    __stcs(reinterpret_cast<float4*>(out.values + r * out.values_stride + c), make_float4(a.value, b.value, d.value, e.value));
  if (out.codes == nullptr) return;
  if (out.code_bytes == 1) {
    *reinterpret_cast<uchar4*>(static_cast<unsigned char*>(out.codes) + r * out.codes_stride + c) =
        make_uchar4(static_cast<unsigned char>(a.code), static_cast<unsigned char>(b.code), static_cast<unsigned char>(d.code),
                    static_cast<unsigned char>(e.code));
  } else {
    *reinterpret_cast<int4*>(static_cast<int*>(out.codes) + r * out.codes_stride + c) = make_int4(a.code, b.code, d.code, e.code);
  }
}

__device__ inline void round_four(const Output& out, long long r, long long c, float4 x, float s, int z, int lo, int hi) {
  write(out, r, c, round_to_grid(x.x, s, z, lo, hi), round_to_grid(x.y, s, z, lo, hi), round_to_grid(x.z, s, z, lo, hi),
        round_to_grid(x.w, s, z, lo, hi));
}

/// Largest (or smallest) over the `width` lanes of a group of lanes.
template <int width>
__device__ inline void reduce_range(float& lo, float& hi) {
#pragma unroll
  for (int step = width / 2; step > 0; step /= 2) {
    lo = fminf(lo, __shfl_xor_sync(whole_warp, lo, step, width));
    hi = fmaxf(hi, __shfl_xor_sync(whole_warp, hi, step, width));
  }
}

/// The range of a whole block, known to every thread. Infinite ends mean: none finite, or an infinity among the values.
template <int threads>
__device__ inline void reduce_block(float& lo, float& hi) {
  __shared__ float least[threads / 32], most[threads / 32];
  reduce_range<32>(lo, hi);
  __syncthreads();
  if (threadIdx.x % 32 == 0) least[threadIdx.x / 32] = lo, most[threadIdx.x / 32] = hi;
  __syncthreads();
  for (int w = 0; w < threads / 32; ++w) lo = fminf(lo, least[w]), hi = fmaxf(hi, most[w]);
}

__device__ inline void widen(float x, float& lo, float& hi, bool& good) { good = good && sound(x), lo = fminf(lo, x), hi = fmaxf(hi, x); }

__device__ inline void widen(float4 x, float& lo, float& hi, bool& good) {
  widen(x.x, lo, hi, good), widen(x.y, lo, hi, good), widen(x.z, lo, hi, good), widen(x.w, lo, hi, good);
}

}  // namespace ptq::kernels::cuda
