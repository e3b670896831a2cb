// Formats of the released LQER code: block floating point, fixed point, minifloat; bit for bit in float32, but for ties in float64.
#include <ptq/core/affine.hpp>
#include <ptq/core/block_float.hpp>
#include <ptq/core/minifloat.hpp>

#include "layer.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// The block of one quantizer call, (rows, columns) of the last two dimensions, 0 the whole of one: sizes are aligned to the right, what is
/// missing or -1 is whole; with skip_first_dim the first dimension is one a block.
std::pair<int64_t, int64_t> block_of(const std::vector<int64_t>& sizes, int64_t dims, bool skip_first) {
  const auto at = [&](size_t from_right) {
    return from_right < sizes.size() ? std::max<int64_t>(0, sizes[sizes.size() - 1 - from_right]) : 0;
  };
  if (dims == 1) return {1, at(0)};
  return {dims == 2 && skip_first ? 1 : at(1), at(0)};
}

bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

/// As `check_rounded` of the layers: equal in float32; in float64 values half way between two may fall to the other side.
void check_equal_but_ties(const Tensor& mine, const Tensor& golden, const Tensor& x, at::ScalarType dtype) {
  if (dtype == at::kFloat) {
    CHECK(at::equal(mine, golden));
    return;
  }
  const Tensor differs = mine.ne(golden);
  CHECK(largest(((mine + golden) / 2 - x).abs().masked_fill(~differs, 0)) <= 2e-9);
}

Tensor rounded(const LayerFile& c, const std::string& at, const Tensor& x) {
  const auto number = [&](const char* name) { return c.file.attribute<int64_t>(at, name); };
  kernels::BlockFloat format{static_cast<int>(number("width")), true};
  format.exponent_bits = static_cast<int>(number("exponent_width"));
  const int64_t bias = number("exponent_bias");
  format.bias = bias == -1000 ? usual_bias(format.exponent_bits) : static_cast<int>(bias);
  const auto [rows, cols] = block_of(c.file.attribute<std::vector<int64_t>>(at, "block"), x.dim(), number("skip_first_dim") != 0);
  const auto once = [&](const Tensor& t) { return x.dim() == 1 ? block_float(t, cols, format) : block_float(t, rows, cols, format); };
  return c.file.attribute_or<int64_t>(at, "passes", 1) == 2 ? once(once(x)) : once(x);
}

}  // namespace

TEST_CASE("block floating point replays the released quantizer on every shape, block and width", "[oracle]") {
  const auto files = oracles({"lqer_mxint"});
  if (files.empty()) SKIP_TEST("no lqer_mxint*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) {
    const LayerFile c{io::Hdf5Reader(path), dtype};
    for (const std::string& name : c.file.groups("outputs")) {
      const std::string at = "outputs/" + name, input = c.file.attribute<std::string>(at, "input");
      if (dtype == at::kDouble && (starts(input, "above_pow2") || c.file.attribute_or<int64_t>(at, "passes", 1) == 2)) continue;
      INFO(path.filename().string() << " " << name << " in " << c10::toString(dtype));
      const Tensor x = c.get("inputs/" + input);
      check_equal_but_ties(rounded(c, at, x), c.get(at + "/y"), x, dtype);
    }
  }
}

TEST_CASE("shared exponents on and beside powers of two are those of the released quantizer", "[oracle]") {
  for (const auto& path : oracles({"lqer_mxint"})) {
    const LayerFile c{io::Hdf5Reader(path), at::kFloat};
    INFO(path.filename().string());
    int seen = 0;
    // Alone in its block at 4 bits, M rounds to at most 7/8 of 2^E, which tells E. Up to 1e-8 nothing is rounded.
    for (const char* table : {"pow2", "near_pow2"}) {
      const Tensor m = c.get(cat("tables/", table)).reshape({-1}), e = c.get(cat("tables/", table, "_exponent")).reshape({-1});
      for (int64_t i = 0; i < m.numel(); ++i) {
        const float value = m[i].item<float>(), power = std::ldexp(1.0f, static_cast<int>(e[i].item<float>()) - 1);
        if (value <= 1e-8f || value > 0x1p126f) continue;
        const float code = std::min(7.0f, std::nearbyint((value + 1e-9f) / power * 4)),
                    y = block_float(m.narrow(0, i, 1), 0, {4, true}).item<float>();
        INFO(table << " " << value);
        CHECK(y == code * power / 4);
        ++seen;
      }
    }
    CHECK(seen > 400);
    const Tensor mine = block_float(c.get("tables/overflow_in"), 16, {4, true}), golden = c.get("tables/overflow_y");
    CHECK(at::isfinite(mine).all().item<bool>());  // where 2^128 makes the released code return NaN
    CHECK(at::equal(at::where(at::isfinite(golden), mine, golden).nan_to_num(0), golden.nan_to_num(0)));
    const auto eight = [&](const char* name) { return block_float(c.get(name), 16, {8, true}); };
    CHECK(far(at::bmm(eight("inputs/mm_x"), eight("inputs/mm_y")), c.get("tables/mm_out")) < 1e-6);
  }
}

TEST_CASE("fixed point and minifloat replay the released quantizers", "[oracle]") {
  const auto files = oracles({"lqer_integer"});
  if (files.empty()) SKIP_TEST("no lqer_integer*.h5 in data/oracles or PTQ_ORACLES");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& path : files) {
    const LayerFile c{io::Hdf5Reader(path), dtype};
    int fixed = 0, floats = 0;
    for (const std::string& name : c.file.groups("outputs")) {
      INFO(path.filename().string() << " " << name << " in " << c10::toString(dtype));
      const std::string at = "outputs/" + name;
      const auto number = [&](const char* key) { return static_cast<int>(c.file.attribute<int64_t>(at, key)); };
      const Tensor x = c.get("inputs/" + c.file.attribute<std::string>(at, "input"));
      Tensor y;
      if (c.file.attribute<std::string>(at, "kind") == "minifloat") {
        const int exponent = number("exponent_width"), bias = number("exponent_bias");
        y = minifloat(x, number("width"), exponent, bias == -1000 ? usual_bias(exponent) : bias);
        ++floats;
      } else {
        y = fixed_point(x, number("width"), number("frac_width"), number("is_signed") != 0);
        ++fixed;
      }
      CHECK(at::equal(y, c.get(at + "/y")));
    }
    CHECK(fixed > 0);
    CHECK(floats > 0);
  }
}
