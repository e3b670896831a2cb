#include <ptq/adaptation.hpp>
#include <ptq/core/activation.hpp>
#include <ptq/core/packing.hpp>
#include <ptq/core/precision.hpp>
#include <ptq/core/quantized_linear.hpp>
#include <ptq/correction.hpp>
#include <ptq/loss.hpp>
#include <ptq/rounding.hpp>
#include <ptq/smoothing.hpp>
#include <ptq/solver.hpp>

#include "catch.hpp"

using namespace ptq;

TEST_CASE("worked grids of GPTQ's convention") {  // rounds half to even; a range always contains zero
  const Tensor w = at::tensor({-1.0f, 0.625f, 2.75f}).view({1, 3});
  const Grid g = fit_grid(w, Scheme::parse("int4", "weights", Role::weight));
  CHECK(g.scale.item<float>() == Approx(0.25));
  CHECK(g.zero.item<int>() == 4);
  CHECK(at::equal(fake_quantize(w, g), at::tensor({-1.0f, 0.5f, 2.75f}).view({1, 3})));
  CHECK(at::equal(dequantize(quantize(w, g), g), fake_quantize(w, g)));
}

TEST_CASE("packed codes unpack to themselves at every width") {
  for (int bits = 1; bits <= 8; ++bits)
    for (const int64_t cols : {1, 3, 8, 37}) {
      const Tensor codes = at::randint(0, 1 << bits, {5, cols}, at::kByte);
      CHECK(at::equal(unpack(pack(codes, bits), cols, bits), codes));
      CHECK(pack(codes, bits).size(1) == (cols * bits + 7) / 8);
    }
  CHECK_THROWS_AS(pack(at::full({1, 2}, 9, at::kByte), 3), Error);
}

TEST_CASE("formats read back as written, and nonsense is refused by name") {
  for (const char* text : {"none", "int4", "int3:g64", "int8:tensor:sym", "int2:channel:sym:range=flexround:search"}) {
    const Scheme s = Scheme::parse(text, "weights", Role::weight);
    CHECK(Scheme::parse(s.text(), "weights", Role::weight) == s);
  }
  for (const char* text :
       {"int9", "int1", "int4:g0", "int4:g", "int4:token", "fp4", "int4:gptq", "int4:g64x", "", "int", "int4:range=x", "int4:range=absmax"})
    CHECK_THROWS_AS(Scheme::parse(text, "weights", Role::weight), Error);
  CHECK(Scheme::parse("int8:static", "activations", Role::activation).calibrated);
}
