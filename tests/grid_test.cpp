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

#include <algorithm>
#include <cmath>
#include <limits>

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

TEST_CASE("a search errs less than min-max on every row, and over many by the factors measured elsewhere") {
  at::manual_seed(3);
  const auto student = [](int64_t rows) {  // five degrees of freedom
    return at::randn({rows, 4096}, at::kDouble) / (at::randn({5, rows, 4096}, at::kDouble).square().sum(0) / 5).sqrt();
  };
  const auto errors = [](const Tensor& w, const Grid& g, double power) {  // (rows)
    return (fake_quantize(w, g) - w).abs().pow(power).mean(1);
  };
  struct Measured {
    Tensor w;
    int bits;
    double power_error, square_error, step;
  };
  for (const Measured& m :
       {Measured{at::randn({8, 4096}, at::kDouble), 4, 0.60, 0.61, 0.74}, Measured{at::randn({8, 4096}, at::kDouble), 3, 0.42, 0.45, 0.61},
        Measured{student(48), 4, 0.496, 0.480, 0.638}, Measured{student(48), 3, 0.288, 0.293, 0.444}}) {
    INFO(m.bits << " bits, square error " << m.square_error);
    Scheme scheme = Scheme::parse("int4:range=flexround", "weights", Role::weight);
    scheme.bits = m.bits;
    const Grid plain = fit_grid(m.w, scheme);
    scheme.search = true;
    const Grid found = fit_grid(m.w, scheme);
    CHECK((errors(m.w, found, 2.4) <= errors(m.w, plain, 2.4)).all().item<bool>());
    const auto ratio = [&](double power) { return (errors(m.w, found, power) / errors(m.w, plain, power)).mean().item<double>(); };
    CHECK(ratio(2.4) == Approx(m.power_error).margin(0.03));
    CHECK(ratio(2) == Approx(m.square_error).margin(0.03));
    CHECK((found.scale / plain.scale).mean().item<double>() == Approx(m.step).margin(0.03));
  }
  Tensor odd = at::randn({6, 96}, at::kDouble);  // rows of one sign, of zeros, with an outlier, of one value
  odd[0] = odd[0].abs(), odd[1] = -odd[1].abs(), odd[2].zero_(), odd[3][7] = 50, odd[4].fill_(0.37);
  for (const char* text : {"int2:range=flexround", "int3:range=flexround", "int4:range=flexround", "int4"}) {
    INFO(text);
    const Tensor plain = errors(odd, fit_grid(odd, Scheme::parse(text, "weights", Role::weight)), 2.4),
                 found = errors(odd, fit_grid(odd, Scheme::parse(std::string(text) + ":search", "weights", Role::weight)), 2.4);
    CHECK((found <= plain * (1 + 1e-9) + 1e-30).all().item<bool>());
    CHECK(found[2].item<double>() == 0);
    if (std::string(text) == "int4") continue;  // its search shrinks the range; the others try every width with every zero point
    const int most = (1 << Scheme::parse(text, "weights", Role::weight).bits) - 1;
    for (int64_t r = 0; r < odd.size(0); ++r) {
      const double *w = odd[r].const_data_ptr<double>(), low = std::min(*std::min_element(w, w + 96), 0.0),
                   high = std::max(*std::max_element(w, w + 96), 0.0);
      double best = std::numeric_limits<double>::infinity();
      for (int i = 1; i <= 100; ++i)
        for (int c = 0; c <= most; ++c) {
          const double s = std::max((high - low) * i / 100 / most, 1e-8);
          double sum = 0;
          for (int j = 0; j < 96; ++j)
            sum += std::pow(std::abs(w[j] - s * (std::clamp(std::nearbyint(w[j] / s) + c, 0.0, 1.0 * most) - c)), 2.4);
          best = std::min(best, sum / 96);
        }
      INFO("row " << r);
      CHECK(found[r].item<double>() <= best * (1 + 1e-6) + 1e-12);
      CHECK(found[r].item<double>() >= best * (1 - 1e-6) - 1e-12);
    }
  }
}
