// CUDA kernels against their CPU twins, bit for bit, where a device exists.

#include <ptq/kernels/cuda.hpp>

#include "check.hpp"
#include "data.hpp"

#if defined(PTQ_CUDA)
#include <cuda_runtime.h>

using namespace ptq::kernels;

namespace {

/// Device copy of host data, read back on demand; starts poisoned when built from a size.
template <class T>
struct Device {
  T* p = nullptr;
  std::size_t n = 0;

  explicit Device(std::size_t count) : n(count) {
    CHECK(cudaMalloc(reinterpret_cast<void**>(&p), (n + 16) * sizeof(T)) == cudaSuccess);
    CHECK(cudaMemset(p, 0xa5, (n + 16) * sizeof(T)) == cudaSuccess);
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    CHECK(cudaMemcpy(p, host.data(), n * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(p); }
  std::vector<T> host() const {
    std::vector<T> y(n);
    CHECK(cudaMemcpy(y.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return y;
  }
};

template <class T>
bool same(const std::vector<T>& a, const Matrix<T>& b) {
  for (std::ptrdiff_t r = 0; r < b.rows; ++r) {
    for (std::ptrdiff_t c = 0; c < b.cols; ++c) {
      if (!(a[static_cast<std::size_t>(r * b.stride + c)] == b(r, c))) return false;
    }
  }
  return true;
}

constexpr Range ranges[] = {Range::gptq, Range::awrq_activation,    Range::flexround, Range::flexround_activation,
                            Range::omni, Range::omni_no_zero_point, Range::absmax};

struct Shape {
  std::ptrdiff_t rows, cols, padding;
};
constexpr Shape shapes[] = {{1, 1, 0},    {3, 5, 2},     {25, 64, 0},  {24, 96, 4},  {13, 128, 0},  {7, 130, 6},   {12, 512, 0},
                            {5, 1000, 0}, {12, 2048, 0}, {5, 4096, 0}, {3, 9000, 0}, {2, 40000, 0}, {1, 100001, 3}};

void compare_given() {
  for (const Shape& shape : shapes) {
    const Matrix<float> w = hostile<float>(shape.rows, shape.cols, 5, shape.padding);
    const std::size_t size = w.data.size();
    for (const std::ptrdiff_t group : {0, 16, 32, 7}) {
      for (const bool mapped : {false, true}) {
        const std::ptrdiff_t groups = group == 0 ? 1 : (shape.cols + group - 1) / group;
        check::context() =
            std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " group " + std::to_string(group) + (mapped ? " mapped" : "");
        Generator g{3};
        std::vector<float> scale(static_cast<std::size_t>(shape.rows * groups));
        std::vector<std::int32_t> zero(scale.size()), map(static_cast<std::size_t>(shape.cols));
        for (std::size_t i = 0; i < scale.size(); ++i)
          scale[i] = static_cast<float>(0.01 + 0.05 * g.uniform()), zero[i] = static_cast<std::int32_t>(40 * g.uniform()) - 12;
        for (auto& m : map) m = static_cast<std::int32_t>(g.uniform() * static_cast<double>(groups));
        Grid<float> grid;
        grid.scale = scale.data(), grid.zero = zero.data(), grid.row_stride = groups, grid.group_stride = 1, grid.group = group;
        if (mapped) grid.g_idx = map.data();
        Matrix<float> y(shape.rows, shape.cols, shape.padding);
        Matrix<std::int32_t> codes(shape.rows, shape.cols, shape.padding);
        Matrix<std::uint8_t> small(shape.rows, shape.cols, shape.padding);
        CHECK(fake_quantize<float>(w.view(), grid, y.view(), Codes{codes.data.data(), codes.stride}, all(w.view())) == Status::ok);
        CHECK(fake_quantize<float>(w.view(), grid, {}, Codes{small.data.data(), small.stride}, all(w.view())) == Status::ok);
        const Device<float> dw(w.data), ds(scale);
        const Device<std::int32_t> dz(zero), dm(map), dflag(std::vector<std::int32_t>{0});
        Device<float> dy(size);
        Device<std::int32_t> dc(size);
        Device<std::uint8_t> db(size);
        Grid<float> device = grid;
        device.scale = ds.p, device.zero = dz.p;
        if (mapped) device.g_idx = dm.p;
        const View<const float> from{dw.p, w.rows, w.cols, w.stride};
        CHECK(cuda::fake_quantize(from, device, {dy.p, w.rows, w.cols, w.stride}, Codes{dc.p, w.stride}, dflag.p, nullptr) == Status::ok);
        CHECK(cuda::fake_quantize(from, device, {}, Codes{db.p, w.stride}, nullptr, nullptr) == Status::ok);
        CHECK(same(dy.host(), y));
        CHECK(same(dc.host(), codes));
        CHECK(same(db.host(), small));
        CHECK(dflag.host()[0] == 0);
        CHECK(cuda::fake_quantize(from, device, {dy.p, w.rows, w.cols, w.stride}, {}, nullptr, nullptr) == Status::ok);
        CHECK(same(dy.host(), y));
      }
    }
  }
}

void compare_dynamic() {
  for (const Shape& shape : shapes) {
    const Matrix<float> x = hostile<float>(shape.rows, shape.cols, 7, shape.padding);
    const std::size_t size = x.data.size();
    const Device<float> dx(x.data);
    for (const Range range : ranges) {
      for (const std::ptrdiff_t group : {0, 16, 48, 128, 300, 1024, 7}) {
        const Convention c{range, 8, false, true};
        const std::ptrdiff_t width = group == 0 || group > shape.cols ? shape.cols : group, groups = (shape.cols + width - 1) / width;
        check::context() = std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " group " + std::to_string(group) + " range " +
                           std::to_string(static_cast<int>(range));
        Matrix<float> y(shape.rows, shape.cols, shape.padding), scale(shape.rows, groups);
        Matrix<std::int32_t> codes(shape.rows, shape.cols, shape.padding), zero(shape.rows, groups);
        CHECK(fake_quantize_dynamic<float>(x.view(), group, c, y.view(), Codes{codes.data.data(), codes.stride}, scale.data.data(),
                                           zero.data.data(), all(x.view())) == Status::ok);
        Device<float> dy(size), ds(scale.data.size());
        Device<std::int32_t> dc(size), dz(zero.data.size()), dflag(std::vector<std::int32_t>{0});
        const View<const float> from{dx.p, x.rows, x.cols, x.stride};
        CHECK(cuda::fake_quantize_dynamic(from, group, c, {dy.p, x.rows, x.cols, x.stride}, Codes{dc.p, x.stride}, ds.p, dz.p, dflag.p,
                                          nullptr) == Status::ok);
        CHECK(same(ds.host(), scale));
        CHECK(same(dz.host(), zero));
        CHECK(same(dy.host(), y));
        CHECK(same(dc.host(), codes));
        CHECK(dflag.host()[0] == 0);
        if (group != 0) continue;
        float s = 0;
        std::int32_t z = 0;
        Device<char> scratch(ptq_cuda_tensor_scratch());
        CHECK(fake_quantize_tensor<float>(x.view(), c, y.view(), {}, &s, &z) == Status::ok);
        CHECK(cuda::fake_quantize_tensor(from, c, {dy.p, x.rows, x.cols, x.stride}, {}, ds.p, dz.p, dflag.p, scratch.p, nullptr) ==
              Status::ok);
        CHECK(ds.host()[0] == s && dz.host()[0] == z);
        CHECK(same(dy.host(), y));
      }
    }
  }
}

}  // namespace

TEST("a given grid on the device equals the CPU, bit for bit") { compare_given(); }
TEST("dynamic grids of rows, groups and tensors on the device equal the CPU, bit for bit") { compare_dynamic(); }

TEST("NaN and infinity raise the flag, wherever they stand") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const std::ptrdiff_t at : {0, 5, 1023, 4095}) {
      Matrix<float> w(3, 4096, 0, 0.25f);
      w(1, at) = bad;
      const Device<float> dw(w.data), ds(std::vector<float>{0.125f});
      Device<float> dy(w.data.size());
      Grid<float> grid;
      grid.scale = ds.p;
      const View<const float> from{dw.p, 3, 4096, 4096};
      Device<char> scratch(ptq_cuda_tensor_scratch());
      for (const int kind : {0, 1, 2, 3}) {
        const Device<std::int32_t> flag(std::vector<std::int32_t>{0});
        const View<float> to{dy.p, 3, 4096, 4096};
        if (kind == 0) CHECK(cuda::fake_quantize(from, grid, to, {}, flag.p, nullptr) == Status::ok);
        if (kind == 1) CHECK(cuda::fake_quantize_dynamic(from, 0, {}, to, {}, nullptr, nullptr, flag.p, nullptr) == Status::ok);
        if (kind == 2) CHECK(cuda::fake_quantize_dynamic(from, 64, {}, to, {}, nullptr, nullptr, flag.p, nullptr) == Status::ok);
        if (kind == 3) CHECK(cuda::fake_quantize_tensor(from, {}, to, {}, nullptr, nullptr, flag.p, scratch.p, nullptr) == Status::ok);
        CHECK(flag.host()[0] == 1);
      }
    }
  }
}

TEST("arguments that make no sense are refused") {
  Device<float> x(64);
  const View<const float> from{x.p, 4, 16, 16};
  CHECK(cuda::fake_quantize(from, {}, {}, {}, nullptr, nullptr) == Status::bad_argument);
  CHECK(cuda::fake_quantize_dynamic({x.p, 4, 16, 15}, 0, {}, {}, {}, nullptr, nullptr, nullptr, nullptr) == Status::bad_argument);
  CHECK(cuda::fake_quantize_dynamic(from, 0, {Range::gptq, 1}, {}, {}, nullptr, nullptr, nullptr, nullptr) == Status::bad_argument);
  CHECK(cuda::fake_quantize_tensor(from, {}, {}, {}, nullptr, nullptr, nullptr, nullptr, nullptr) == Status::bad_argument);
}

#endif

int main() {
  if (ptq::kernels::cuda::devices() == 0) {
    std::printf("skipped: no device (%s)\n", ptq::kernels::cuda::error_text());
    return 77;
  }
  return check::run();
}
