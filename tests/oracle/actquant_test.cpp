// Activation quantizers of SmoothQuant, FlexRound and LRQ, LRQuant, AWRQ against the released codes.
#include <ptq/core/activation.hpp>
#include <ptq/core/affine.hpp>

#include "golden.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

Scheme scheme(Granularity granularity, Range range, int bits, bool symmetric = false) {
  Scheme s;
  s.bits = bits, s.granularity = granularity, s.range = range, s.symmetric = symmetric;
  return s;
}

/// One grid for every vector along the last dimension: (vectors, 1).
Grid grid_per_token(const Tensor& x, Scheme s) {
  s.granularity = Granularity::channel;
  return fit_grid(x.reshape({-1, x.size(-1)}), s, /*as_published=*/true);
}

}  // namespace

TEST_CASE("SmoothQuant's symmetric quantizers of activations and weights equal the released code's", "[oracle]") {
  const auto files = oracles({"smoothquant_actquant"});
  if (files.empty()) SKIP_TEST("no smoothquant_actquant*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups()) {
      const int bits = file.attribute<int>(name, "bits");
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        const Tensor x = io::get(file, name + "/x").to(p.dtype), w = io::get(file, name + "/W").to(p.dtype);
        const auto golden = [&](const char* what) { return io::get(file, cat(name, "/", p.name, "/", what)); };
        CHECK(far(quantize_activation(x, scheme(Granularity::token, Range::absmax, bits, true)), golden("act_per_token")) <= p.value);
        CHECK(far(quantize_activation(x, scheme(Granularity::tensor, Range::absmax, bits, true)), golden("act_per_tensor")) <= p.value);
        const Scheme channel = scheme(Granularity::channel, Range::absmax, bits, true),
                     tensor = scheme(Granularity::tensor, Range::absmax, bits, true);
        CHECK(far(fake_quantize(w, fit_grid(w, channel)), golden("weight_per_channel")) <= p.value);
        CHECK(far(fake_quantize(w, fit_grid(w, tensor)), golden("weight_per_tensor")) <= p.value);
      }
    }
  }
}

TEST_CASE("FlexRound's per-token quantizer equals the released code's, one-sided and constant tokens included", "[oracle]") {
  const auto files = oracles({"flexround_lrq_actquant"});
  if (files.empty()) SKIP_TEST("no flexround_lrq_actquant*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups()) {
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        const auto golden = [&](const char* what) { return io::get(file, cat(name, "/", p.name, "/", what)); };
        if (name == "linear") {  // 8 bits; k and v also round their outputs
          const Scheme s = scheme(Granularity::token, Range::flexround_activation, 8);
          const auto in = [&](const char* what) { return io::get(file, cat("linear/in/", what)).to(p.dtype); };
          const Tensor y = affine(quantize_activation(in("x"), s, true), in("W"), in("bias"));
          CHECK(far(y, golden("y")) <= 10 * p.value);
          CHECK(far(quantize_activation(y, s, true), golden("y_kv_output_quantised")) <= 10 * p.value);
          continue;
        }
        const Scheme s = scheme(Granularity::token, Range::flexround_activation, file.attribute<int>(name, "bits"));
        const Tensor x = io::get(file, name + "/x").to(p.dtype), flat = x.reshape({-1, x.size(-1)});
        const Grid grid = grid_per_token(x, s);
        check_step(grid.scale, golden("scale"), p);
        check_equal(grid.zero, golden("zero"));
        const Tensor tie = golden("tie").ne(0).reshape(flat.sizes());
        const Tensor codes = quantize(flat, grid).to(at::kInt) + grid.lowest - grid.zero, expected = golden("q").reshape(flat.sizes());
        CHECK(!(codes.ne(expected) & ~tie).any().item<bool>());
        const Tensor y = golden("y");
        CHECK(largest((quantize_activation(x, s, true) - y).masked_fill(tie.view(x.sizes()), 0)) <= p.value * largest(y));
      }
    }
  }
}

TEST_CASE("LRQuant's per-token and per-head quantizer equals the released code's, and so does its gradient", "[oracle]") {
  const auto files = oracles({"lrquant_quantizer"});
  if (files.empty()) SKIP_TEST("no lrquant_quantizer*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups("act")) {
      const std::string group = "act/" + name;
      const Scheme s =
          scheme(Granularity::token, Range::omni, file.attribute<int>(group, "bits"), file.attribute<int>(group, "symmetric") != 0);
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        const auto golden = [&](const char* what) { return io::get(file, cat(group, "/", p.name, "/", what)); };
        const Tensor x = io::get(file, group + "/in/x").to(p.dtype);  // (…, n)
        const Grid grid = grid_per_token(x, s);
        check_step(grid.scale, golden("scale"), p);
        check_equal(grid.zero, golden("zero"));
        check_equal(quantize(x.reshape({-1, x.size(-1)}), grid), golden("codes"));
        CHECK(far(quantize_activation(x, s), golden("y")) <= p.value);
        if (!file.exists(cat(group, "/", p.name, "/grad_x"))) continue;
        const c10::AutoGradMode on(true);
        const Tensor leaf = x.detach().clone().requires_grad_(true), y = quantize_activation(leaf, s);
        (y * io::get(file, group + "/in/G").to(p.dtype)).sum().backward();
        CHECK(far(y.detach(), golden("y")) <= p.value);
        CHECK(far(leaf.grad(), golden("grad_x")) <= (p.dtype == at::kDouble ? 1e-11 : 1e-5));
      }
    }
  }
}

TEST_CASE("AWRQ's per-tensor quantizer equals the released code's, zero points outside the codes included", "[oracle]") {
  const auto files = oracles({"awrq_actquant"});
  if (files.empty()) SKIP_TEST("no awrq_actquant*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups("outputs")) {
      INFO(path.filename().string() << " " << name);
      const std::string group = "outputs/" + name;
      const Scheme s = scheme(Granularity::tensor, Range::awrq_activation, file.attribute<int>(group, "bits"));
      const Tensor x = io::get(file, "inputs/" + file.attribute<std::string>(group, "input")), y = io::get(file, group + "/y");
      const Grid grid = fit_grid(x.reshape({-1, x.size(-1)}), s);
      CHECK(grid.scale.item<double>() == Approx(file.attribute<double>(group, "scale")).epsilon(1e-6));
      CHECK(grid.zero.item<int>() == static_cast<int>(file.attribute<double>(group, "zero")));
      CHECK(far(quantize_activation(x, s), y) <= 1e-6);
    }
  }
}
