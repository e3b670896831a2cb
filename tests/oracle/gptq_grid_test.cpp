// The released GPTQ's weight grids on special rows: ties, one-sided, constant, zero, tiny and huge rows.
#include <ptq/core/grid.hpp>
#include <ptq/io/hdf5_tensor.hpp>

#include "catch.hpp"
#include "data.hpp"

using namespace ptq;

namespace {

Scheme scheme_of(const io::Hdf5Reader& file, const std::string& group) {
  Scheme s;
  s.bits = file.attribute<int>(group, "bits");
  s.symmetric = file.attribute<int>(group, "sym") != 0;
  s.search = file.attribute<int>(group, "mse") != 0;
  s.granularity = file.attribute<int>(group, "perchannel") != 0 ? Granularity::channel : Granularity::tensor;
  return s;
}

/// Where a number of steps lies within 1e-4 of a half-integer: float32 decides by its own rounding there, float64 need not follow.
Tensor on_tie(const Tensor& steps) { return ((steps - steps.floor()) - 0.5).abs().lt(1e-4); }

/// The files are of float32, which must agree to the last code; float64 may differ on ties alone.
void replay(const io::Hdf5Reader& file, const std::string& group, at::ScalarType dtype) {
  INFO(file.path().string() << " " << group << " " << c10::toString(dtype));
  const Tensor x = io::get(file, "inputs/x").to(dtype);  // (rows, cols)
  const Grid grid = fit_grid(x, scheme_of(file, group), /*as_published=*/true);
  const Tensor scale = io::get(file, group + "/scale").to(dtype), zero = io::get(file, group + "/zero").to(at::kInt);  // (rows)
  const Tensor my_scale = grid.scale.expand({x.size(0), 1}), my_zero = grid.zero.expand({x.size(0), 1}).squeeze(1);
  CHECK(at::allclose(my_scale.squeeze(1), scale, 1e-6, 0));
  Tensor other_zero = my_zero.ne(zero), tie = at::zeros_like(x, at::kBool);
  if (dtype == at::kDouble) {
    Tensor low = grid.scale.size(0) == 1 ? x.min().repeat({x.size(0)}) : x.amin(1);  // (rows)
    low.masked_fill_(x.eq(0).all(1), -1);                                            // the range of a row of zeros
    tie = on_tie(x / my_scale);
    CHECK(!(other_zero & ~on_tie(-low / scale)).any().item<bool>());
    tie = tie | other_zero.unsqueeze(1);
    CHECK(tie.sum().item<int64_t>() < x.numel() / 4);
  } else {
    CHECK(!other_zero.any().item<bool>());
  }
  CHECK(!(quantize(x, grid).to(at::kInt).ne(io::get(file, group + "/codes")) & ~tie).any().item<bool>());
  const Tensor y = io::get(file, group + "/y").to(dtype), most = y.abs().amax(1, true);
  CHECK(((fake_quantize(x, grid) - y).abs() <= 1e-6 * most | tie).all().item<bool>());
  CHECK(at::equal(dequantize(quantize(x, grid), grid), fake_quantize(x, grid)));
}

}  // namespace

TEST_CASE("grids, codes and values of GPTQ's convention equal the released code's", "[oracle]") {
  const auto files = test::oracles({"gptq_grid"});
  if (files.empty()) SKIP_TEST("no gptq_grid*.h5 in data/oracles or PTQ_ORACLES");
  int ternary = 0;
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups("outputs")) {
      if (name.starts_with("trits")) {
        ++ternary;
        continue;
      }
      for (const auto dtype : {at::kFloat, at::kDouble}) replay(file, "outputs/" + name, dtype);
    }
  }
  WARN(ternary << " ternary cases of these files are not replayed: a ternary format does not exist");
}
