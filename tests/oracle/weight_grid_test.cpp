// Weight grids of FlexRound, LRQ, LRQuant and OmniQuant before anything is learned, against the released codes.
#include <cmath>

#include <ptq/core/straight_through.hpp>

#include "golden.hpp"

using namespace ptq;
using namespace ptq::test;

TEST_CASE("FlexRound's and LRQ's grids start where the released code's do, by min-max and by search", "[oracle]") {
  const auto files = oracles({"flexround_quantizer", "lrq_quantizer"});
  if (files.empty()) SKIP_TEST("no flexround_quantizer*.h5 or lrq_quantizer*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups()) {
      const auto flag = [&](const char* what) { return file.attribute<int>(name, what) != 0; };
      if (file.attribute<std::string>(name, "quirk") != "none") continue;  // the released symmetric search multiplies by a placeholder
      Scheme s;
      s.bits = file.attribute<int>(name, "bits"), s.symmetric = flag("symmetric"), s.search = flag("search"), s.range = Range::flexround;
      s.granularity = flag("per_channel") ? Granularity::channel : Granularity::tensor;
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        const auto golden = [&](const std::string& what) { return io::get(file, cat(name, "/", p.name, "/", what)); };
        const Tensor w = io::get(file, name + "/in/W").to(p.dtype);  // (rows, cols)
        const Grid grid = fit_grid(w, s);
        check_step(grid.scale, golden("step"), p);
        check_equal(grid.zero, golden("zero"));
        CHECK(at::allclose(grid.scale.log().reshape({-1}), golden("l1_init").reshape({-1}), p.step, p.step));
        const Tensor codes = quantize(w, grid).to(at::kInt) + grid.lowest - grid.zero;  // signed, as released
        Tensor tie = at::zeros_like(codes, at::kBool);
        if (const std::string mask = cat(name, "/", p.name, "/tie_mask_init"); file.exists(mask)) tie = io::get(file, mask).ne(0);
        CHECK(!(codes.ne(golden("q_init")) & ~tie).any().item<bool>());
        CHECK(tie.sum().item<int64_t>() <= (s.symmetric ? w.size(0) : 0));
      }
    }
  }
}

TEST_CASE("LRQuant's and OmniQuant's grids of a clipped range equal the released code's", "[oracle]") {
  const auto files = oracles({"lrquant_quantizer", "omniquant_quantizer"});
  if (files.empty()) SKIP_TEST("no lrquant_quantizer*.h5 or omniquant_quantizer*.h5 in data/oracles or PTQ_ORACLES");
  int ragged = 0;
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups("weight")) {
      const std::string at = "weight/" + name;
      const auto flag = [&](const char* what) { return file.attribute<int>(at, what) != 0; };
      const auto rows = file.attribute<int64_t>(at, "rows"), cols = file.attribute<int64_t>(at, "cols");
      const int64_t group = flag("group_size") ? file.attribute<int64_t>(at, "group_size") : cols;
      if (cols % group != 0) {
        ++ragged;
        continue;
      }
      Scheme s;
      s.bits = file.attribute<int>(at, "bits"), s.symmetric = flag("symmetric"), s.group = group, s.granularity = Granularity::group;
      s.range = flag("disable_zero_point") ? Range::omni_no_zero_point : Range::omni;
      for (const Precise& p : golden_precisions) {
        INFO(path.filename().string() << " " << name << " " << p.name);
        const auto golden = [&](const char* what) { return io::get(file, cat(at, "/", p.name, "/init/", what)); };
        const Tensor w = io::get(file, at + "/in/W").to(p.dtype);  // (rows, cols)
        Grid grid = fit_grid(w, s);                                // shapes, and the whole of it where nothing is clipped
        if (flag("lwc")) {                                         // both ends times sigmoid(4), as at the start of learning
          const Tensor parts = w.reshape({-1, group});             // (rows · groups, group)
          const Tensor share = at::sigmoid(at::full({1}, 4.0, w.options()));
          const Tensor low = parts.amin(1) * share, high = parts.amax(1) * share;
          ptq::detail::by_scalar(w, "grids", [&]<class T>(T) {
            for (int64_t i = 0; i < low.numel(); ++i)
              kernels::grid_from_range<T>(convention(s), low[i].item<T>(), high[i].item<T>(), grid.scale.data_ptr<T>()[i],
                                          grid.zero.data_ptr<int32_t>()[i]);
          });
        }
        check_step(grid.scale, golden("scale"), p);
        if (!flag("disable_zero_point")) check_equal(grid.zero, golden("zero"));
        const Tensor codes = quantize(w, grid).to(at::kInt) + grid.lowest;
        if (file.exists(cat(at, "/", p.name, "/init/codes"))) check_equal(codes, golden("codes"));
        if (file.exists(cat(at, "/", p.name, "/init/y"))) CHECK(far(fake_quantize(w, grid), golden("y")) <= p.value);
        CHECK(grid.scale.size(0) == rows);
        if (flag("lwc") || !file.exists(cat(at, "/", p.name, "/init/grad_W"))) continue;
        const c10::AutoGradMode on(true);
        const Tensor leaf = w.detach().clone().requires_grad_(true), y = fake_quantize_through(leaf, s);
        (y * io::get(file, at + "/in/G").to(p.dtype)).sum().backward();
        CHECK(far(y.detach(), golden("y")) <= p.value);
        CHECK(far(leaf.grad(), golden("grad_W")) <= (p.dtype == at::kDouble ? 1e-11 : 1e-5));
      }
    }
  }
  if (ragged > 0) WARN(ragged << " cases have a group size that does not divide the columns; formats refuse that");
}
