// Rounding on the device: a given grid, a grid per row or group, a grid for the tensor. All are bound by memory: every kernel reads its
// input once (rows too long for the registers twice, the second time from L2), four floats at a time where alignment allows.

#include <ptq/kernels/cuda.hpp>

#include "device.cuh"
#include "launch.cuh"

namespace ptq::kernels::cuda {
namespace {

// ---- a given grid

/// A block takes 16 x block_threads columns of a row. Four: rows are float4-aligned and groups are multiples of four.
template <bool four>
__global__ void __launch_bounds__(block_threads)
    given_kernel(const float* __restrict__ w, long long rows, long long cols, long long stride, DeviceGrid g, Output out) {
  bool good = true;
  constexpr int step = four ? 4 : 1, run = 4;
  const long long first = (static_cast<long long>(blockIdx.x) * run * block_threads + threadIdx.x) * step;
  for (long long r = blockIdx.y; r < rows; r += gridDim.y) {
    const float* row = w + r * stride;
    const auto grid_at = [&](long long c, float& s, int& z) {
      const long long group = g.g_idx != nullptr ? g.g_idx[c] : g.group == 0 ? 0 : c / g.group;
      const long long at = r * g.row_stride + group * g.group_stride;
      s = g.scale[at], z = g.zero == nullptr ? 0 : g.zero[at];
    };
    if constexpr (four) {
      float4 x[run];
#pragma unroll
      for (int i = 0; i < run; ++i) {
        const long long c = first + static_cast<long long>(i) * block_threads * step;
        if (c < cols) x[i] = __ldcs(reinterpret_cast<const float4*>(row + c));
      }
#pragma unroll
      for (int i = 0; i < run; ++i) {
        const long long c = first + static_cast<long long>(i) * block_threads * step;
        if (c >= cols) break;
        float s;
        int z;
        grid_at(c, s, z);
        good = good && sound(x[i]);
        round_four(out, r, c, x[i], s, z, g.lo, g.hi);
      }
    } else {
      for (int i = 0; i < run; ++i) {
        const long long c = first + static_cast<long long>(i) * block_threads;
        if (c >= cols) break;
        float s;
        int z;
        grid_at(c, s, z);
        const float x = row[c];
        good = good && sound(x);
        write(out, r, c, round_to_grid(x, s, z, g.lo, g.hi));
      }
    }
  }
  if (!good && out.flag != nullptr) *out.flag = 1;
}

// ---- a grid of each row or group from its own range

/// `width` lanes share a group of at most 4 x width x vectors columns, held in registers; they do `batch` groups, whose loads overlap.
template <int width, int vectors, int batch>
__global__ void __launch_bounds__(block_threads)
    group_kernel(const float* __restrict__ x, long long rows, long long cols, long long stride, long long group, long long groups,
                 Convention convention, Output out, float* scale, int* zero) {
  const CodeRange codes = formula::code_range(convention);
  const long long total = rows * groups, lane = threadIdx.x % width, teams = static_cast<long long>(gridDim.x) * (block_threads / width);
  const long long first = (static_cast<long long>(blockIdx.x) * block_threads + threadIdx.x) / width;
  bool good = true;
  float4 v[batch][vectors];
  long long row[batch], begin[batch], n[batch];
#pragma unroll
  for (int k = 0; k < batch; ++k) {
    const long long at = first + k * teams;
    row[k] = at < total ? at / groups : 0;
    begin[k] = at < total ? (at - row[k] * groups) * group : 0;
    n[k] = at >= total ? 0 : begin[k] + group < cols ? group : cols - begin[k];
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      const long long c = (i * width + lane) * 4;
      if (c < n[k]) v[k][i] = __ldcs(reinterpret_cast<const float4*>(x + row[k] * stride + begin[k] + c));
    }
  }
#pragma unroll
  for (int k = 0; k < batch; ++k) {
    const long long at = first + k * teams;
    float lo = INFINITY, hi = -INFINITY, s;
    int z;
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if ((i * width + lane) * 4 < n[k]) widen(v[k][i], lo, hi, good);
    }
    reduce_range<width>(lo, hi);
    formula::grid(convention, lo, hi, s, z);
    if (n[k] > 0 && lane == 0 && scale != nullptr) scale[at] = s;
    if (n[k] > 0 && lane == 0 && zero != nullptr) zero[at] = z;
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      const long long c = (i * width + lane) * 4;
      if (c < n[k]) round_four(out, row[k], begin[k] + c, v[k][i], s, z, codes.lo, codes.hi);
    }
  }
  if (!good && out.flag != nullptr) *out.flag = 1;
}

/// A block takes a row (or a wide group); up to 4 x threads x vectors columns stay in registers, longer ones are read again.
template <int threads, int vectors>
__global__ void __launch_bounds__(threads) row_kernel(const float* __restrict__ x, long long cols, long long stride, long long group,
                                                      long long groups, Convention convention, Output out, float* scale, int* zero) {
  const CodeRange codes = formula::code_range(convention);
  const long long r = blockIdx.x / groups, g = blockIdx.x % groups, begin = g * group, n = begin + group < cols ? group : cols - begin;
  const float* row = x + r * stride + begin;
  bool good = true;
  float4 v[vectors];
  float lo = INFINITY, hi = -INFINITY, s;
  int z;
  const auto column = [&](long long i) { return (i * threads + threadIdx.x) * 4; };
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (column(i) < n) v[i] = *reinterpret_cast<const float4*>(row + column(i)), widen(v[i], lo, hi, good);
  }
  for (long long i = vectors; column(i) < n; ++i) widen(*reinterpret_cast<const float4*>(row + column(i)), lo, hi, good);
  reduce_block<threads>(lo, hi);
  formula::grid(convention, lo, hi, s, z);
  if (threadIdx.x == 0 && scale != nullptr) scale[blockIdx.x] = s;
  if (threadIdx.x == 0 && zero != nullptr) zero[blockIdx.x] = z;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (column(i) < n) round_four(out, r, begin + column(i), v[i], s, z, codes.lo, codes.hi);
  }
  for (long long i = vectors; column(i) < n; ++i) {
    round_four(out, r, begin + column(i), *reinterpret_cast<const float4*>(row + column(i)), s, z, codes.lo, codes.hi);
  }
  if (!good && out.flag != nullptr) *out.flag = 1;
}

/// Any alignment: a warp a group, one float at a time.
__global__ void __launch_bounds__(block_threads)
    any_kernel(const float* __restrict__ x, long long rows, long long cols, long long stride, long long group, long long groups,
               Convention convention, Output out, float* scale, int* zero) {
  const CodeRange codes = formula::code_range(convention);
  const long long at = (static_cast<long long>(blockIdx.x) * block_threads + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (at >= rows * groups) return;
  const long long r = at / groups, begin = at % groups * group, n = begin + group < cols ? group : cols - begin;
  const float* row = x + r * stride + begin;
  bool good = true;
  float lo = INFINITY, hi = -INFINITY, s;
  int z;
  for (long long c = lane; c < n; c += 32) widen(row[c], lo, hi, good);
  reduce_range<32>(lo, hi);
  formula::grid(convention, lo, hi, s, z);
  if (lane == 0 && scale != nullptr) scale[at] = s;
  if (lane == 0 && zero != nullptr) zero[at] = z;
  for (long long c = lane; c < n; c += 32) write(out, r, begin + c, round_to_grid(row[c], s, z, codes.lo, codes.hi));
  if (!good && out.flag != nullptr) *out.flag = 1;
}

// ---- one grid for the tensor: partial ranges, their union, then the given grid

constexpr int partial_blocks = 1024;

struct Scratch {
  float lo[partial_blocks], hi[partial_blocks];
  float scale;
  int zero;
};

template <bool four>
__global__ void __launch_bounds__(block_threads)
    range_kernel(const float* __restrict__ x, long long rows, long long cols, long long stride, Scratch* scratch, int* flag) {
  float lo = INFINITY, hi = -INFINITY;
  bool good = true;
  constexpr int step = four ? 4 : 1;
  const long long across = (cols + step - 1) / step, total = rows * across, jump = static_cast<long long>(gridDim.x) * block_threads;
#pragma unroll 4
  for (long long i = static_cast<long long>(blockIdx.x) * block_threads + threadIdx.x; i < total; i += jump) {
    const float* p = x + (rows == 1 ? i * step : i / across * stride + i % across * step);
    if constexpr (four) {
      widen(*reinterpret_cast<const float4*>(p), lo, hi, good);
    } else {
      widen(*p, lo, hi, good);
    }
  }
  reduce_block<block_threads>(lo, hi);
  if (threadIdx.x == 0) scratch->lo[blockIdx.x] = lo, scratch->hi[blockIdx.x] = hi;
  if (!good && flag != nullptr) *flag = 1;
}

__global__ void __launch_bounds__(block_threads) union_kernel(int parts, Convention convention, Scratch* scratch, float* scale, int* zero) {
  float lo = INFINITY, hi = -INFINITY;
  for (int i = static_cast<int>(threadIdx.x); i < parts; i += block_threads) lo = fminf(lo, scratch->lo[i]), hi = fmaxf(hi, scratch->hi[i]);
  reduce_block<block_threads>(lo, hi);
  if (threadIdx.x != 0) return;
  formula::grid(convention, lo, hi, scratch->scale, scratch->zero);
  if (scale != nullptr) *scale = scratch->scale;
  if (zero != nullptr) *zero = scratch->zero;
}

// ---- the host's side

bool aligned(const void* p, long long stride, int bytes, int element) {
  return p == nullptr || (reinterpret_cast<std::uintptr_t>(p) % static_cast<std::uintptr_t>(bytes) == 0 && stride * element % bytes == 0);
}

bool fours(const float* x, long long stride, const Output& out) {
  return aligned(x, stride, 16, 4) && aligned(out.values, out.values_stride, 16, 4) &&
         aligned(out.codes, out.codes_stride, 4 * out.code_bytes, out.code_bytes);
}

bool shaped(const float* x, long long rows, long long cols, long long stride, const Output& out) {
  if (rows < 0 || cols < 0 || (rows > 0 && cols > 0 && (x == nullptr || stride < cols))) return false;
  if (out.values != nullptr && out.values_stride < cols) return false;
  return out.codes == nullptr || (out.codes_stride >= cols && (out.code_bytes == 1 || out.code_bytes == 4));
}

bool valid(const Convention& c) {
  if (c.bits < 2 || c.bits > 16 || c.range < Range::gptq || c.range > Range::mx_ceil) return false;
  return !(c.symmetric && (c.range == Range::awrq_activation || c.range == Range::flexround_activation));
}

bool codes_fit(const Output& out, int lo, int hi) { return out.codes == nullptr || out.code_bytes == 4 || (lo >= 0 && hi <= 255); }

unsigned blocks(long long threads) { return static_cast<unsigned>((threads + block_threads - 1) / block_threads); }

Status given(const float* w, long long rows, long long cols, long long stride, const DeviceGrid& g, const Output& out, void* stream) {
  if (rows == 0 || cols == 0) return Status::ok;
  const bool four = fours(w, stride, out) && cols % 4 == 0 && g.group % 4 == 0 && g.g_idx == nullptr;
  const dim3 shape(blocks((cols + (four ? 15 : 3)) / (four ? 16 : 4)), static_cast<unsigned>(rows < 65535 ? rows : 65535));
  return launch(four ? given_kernel<true> : given_kernel<false>, shape, dim3(block_threads), 0, stream, w, rows, cols, stride, g, out);
}

Status dynamic(const float* x, long long rows, long long cols, long long stride, long long group, const Convention& c, const Output& out,
               float* scale, int* zero, void* stream) {
  const long long groups = (cols + group - 1) / group, total = rows * groups;
  const dim3 block(block_threads);
  if (total > (1LL << 31) * (block_threads / 32) - block_threads) return Status::bad_argument;  // more blocks than a launch holds
  if (!fours(x, stride, out) || group % 4 != 0 || cols % 4 != 0) {
    return launch(any_kernel, dim3(blocks(total * 32)), block, 0, stream, x, rows, cols, stride, group, groups, c, out, scale, zero);
  }
  const auto narrow = [&](auto kernel, int width, int at_once) {
    const unsigned teams = blocks((total + at_once - 1) / at_once * width);
    return launch(kernel, dim3(teams), block, 0, stream, x, rows, cols, stride, group, groups, c, out, scale, zero);
  };
  if (group <= 16) return narrow(group_kernel<4, 1, groups_at_once>, 4, groups_at_once);
  if (group <= 32) return narrow(group_kernel<8, 1, groups_at_once>, 8, groups_at_once);
  if (group <= 64) return narrow(group_kernel<16, 1, groups_at_once>, 16, groups_at_once);
  if (group <= 128) return narrow(group_kernel<32, 1, groups_at_once>, 32, groups_at_once);
  if (group <= 512) return narrow(group_kernel<32, 4, 1>, 32, 1);
  if (total > (1LL << 31) - 1) return Status::bad_argument;
  const auto wide = [&](auto kernel, int threads) {
    return launch(kernel, dim3(static_cast<unsigned>(total)), dim3(static_cast<unsigned>(threads)), 0, stream, x, cols, stride, group,
                  groups, c, out, scale, zero);
  };
  if (group <= 4 * block_threads) return wide(row_kernel<block_threads, 1>, block_threads);
  if (group <= 8 * block_threads) return wide(row_kernel<block_threads, 2>, block_threads);
  if (group <= 16 * block_threads) return wide(row_kernel<block_threads, 4>, block_threads);
  return wide(row_kernel<block_threads, 8>, block_threads);
}

}  // namespace
}  // namespace ptq::kernels::cuda

using namespace ptq::kernels;

extern "C" {

int ptq_cuda_devices(void) {
  int count = 0;
  return cuda::status_of(cudaGetDeviceCount(&count)) == Status::ok ? count : 0;
}

const char* ptq_cuda_error_text(void) { return cuda::last_error(); }

unsigned long long ptq_cuda_tensor_scratch(void) { return sizeof(cuda::Scratch); }

int ptq_cuda_fake_quantize(const float* w, long long rows, long long cols, long long stride, const float* scale, const int* zero,
                           long long row_stride, long long group_stride, long long group, const int* g_idx, int code_lo, int code_hi,
                           float* values, long long values_stride, void* codes, long long codes_stride, int code_bytes, int* flag,
                           void* stream) {
  const cuda::Output out{values, values_stride, codes, codes_stride, code_bytes, flag};
  if (!cuda::shaped(w, rows, cols, stride, out) || scale == nullptr || group < 0 || code_lo > code_hi ||
      !cuda::codes_fit(out, code_lo, code_hi)) {
    return static_cast<int>(Status::bad_argument);
  }
  return static_cast<int>(
      cuda::given(w, rows, cols, stride, {scale, zero, row_stride, group_stride, group, g_idx, code_lo, code_hi}, out, stream));
}

int ptq_cuda_fake_quantize_dynamic(const float* x, long long rows, long long cols, long long stride, long long group, int range, int bits,
                                   int symmetric, int as_published, float* values, long long values_stride, void* codes,
                                   long long codes_stride, int code_bytes, float* scale, int* zero, int* flag, void* stream) {
  const cuda::Output out{values, values_stride, codes, codes_stride, code_bytes, flag};
  const Convention c{static_cast<Range>(range), bits, symmetric != 0, as_published != 0};
  if (!cuda::shaped(x, rows, cols, stride, out) || group < 0 || !cuda::valid(c)) return static_cast<int>(Status::bad_argument);
  const CodeRange code_range = formula::code_range(c);
  if (!cuda::codes_fit(out, code_range.lo, code_range.hi)) return static_cast<int>(Status::bad_argument);
  if (rows == 0 || cols == 0) return static_cast<int>(Status::ok);
  return static_cast<int>(cuda::dynamic(x, rows, cols, stride, group == 0 || group > cols ? cols : group, c, out, scale, zero, stream));
}

int ptq_cuda_fake_quantize_tensor(const float* x, long long rows, long long cols, long long stride, int range, int bits, int symmetric,
                                  int as_published, float* values, long long values_stride, void* codes, long long codes_stride,
                                  int code_bytes, float* scale, int* zero, int* flag, void* scratch, void* stream) {
  cuda::Output out{values, values_stride, codes, codes_stride, code_bytes, flag};
  const Convention c{static_cast<Range>(range), bits, symmetric != 0, as_published != 0};
  if (!cuda::shaped(x, rows, cols, stride, out) || !cuda::valid(c) || scratch == nullptr) return static_cast<int>(Status::bad_argument);
  const CodeRange code_range = formula::code_range(c);
  if (!cuda::codes_fit(out, code_range.lo, code_range.hi)) return static_cast<int>(Status::bad_argument);
  if (rows == 0 || cols == 0) return static_cast<int>(Status::ok);
  if (stride == cols && (values == nullptr || values_stride == cols) && (codes == nullptr || codes_stride == cols)) {  // one long row
    cols *= rows, rows = 1, stride = out.values_stride = out.codes_stride = cols;
  }
  auto* work = static_cast<cuda::Scratch*>(scratch);
  const bool four = cuda::aligned(x, stride, 16, 4) && cols % 4 == 0;
  const long long wanted = cuda::blocks((rows * cols + 15) / 16);
  const int parts = static_cast<int>(wanted < cuda::partial_blocks ? wanted : cuda::partial_blocks);
  const dim3 block(cuda::block_threads);
  const auto find = four ? cuda::range_kernel<true> : cuda::range_kernel<false>;
  Status status = cuda::launch(find, dim3(static_cast<unsigned>(parts)), block, 0, stream, x, rows, cols, stride, work, flag);
  if (status == Status::ok) status = cuda::launch(cuda::union_kernel, dim3(1), block, 0, stream, parts, c, work, scale, zero);
  if (status != Status::ok) return static_cast<int>(status);
  const cuda::DeviceGrid g{&work->scale, &work->zero, 0, 0, 0, nullptr, code_range.lo, code_range.hi};
  return static_cast<int>(cuda::given(x, rows, cols, stride, g, out, stream));
}
}
