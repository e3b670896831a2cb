// Committed blocks with corrections on disk: what is read back is what was written, and runs the same.
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/qera.hpp>
#include <ptq/run/block_file.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/solver/gptq.hpp>

#include "catch.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || (a.scalar_type() == b.scalar_type() && at::equal(a, b)));
}

Precision everything() {
  Precision p = formats("mxint3:b5", "mxint8:b16");  // blocks that leave a short one
  p.factors = weights("mxint6:b16"), p.branch = activations("mxint8:b8:ceil"), p.bias = activations("mxint8:token");
  return p;
}

}  // namespace

TEST_CASE("blocks with factors and block floating point reload bit for bit and compute the same") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("block_file");
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family);
    const Recipe<Nearest, SmoothQuant, Mse, Gptq, Qera> recipe{.correction = {.rank = 3, .stream = Stream::quantized}};
    const Kept kept = walk(model, stages(recipe), everything(), tiny_tokens());
    for (size_t b = 0; b < kept.blocks.size(); ++b) {
      const QuantizedBlock& written = kept.blocks[b];
      const auto path = folder / cat(name(family), b, ".h5");
      save_block(path, written, model.layout());
      const QuantizedBlock read = load_block_file(path, model.layout());
      for (size_t i = 0; i < written.linears.size(); ++i) {
        const QuantizedLinear &w = written.linears[i], &r = read.linears[i];
        CHECK(w.correction.a.size(1) == 3);
        CHECK(same(w.correction.a, r.correction.a));
        CHECK(same(w.correction.b, r.correction.b));
        CHECK(w.correction.bits == r.correction.bits);
        CHECK(same(w.codes, r.codes));
        CHECK(same(w.grid.scale, r.grid.scale));
        CHECK(w.grid.scheme == r.grid.scheme);
        CHECK(same(w.weight(), r.weight()));
        CHECK(same(w.bias, r.bias));
        CHECK(w.bits().total() == r.bits().total());
        if (w.bias.defined()) CHECK(same(w.bias, quantize_activation(w.bias.unsqueeze(0), activations("mxint8:token")).squeeze(0)));
      }
      CHECK(read.formats.branch == written.formats.branch);
      CHECK(read.formats.branch.text() == "mxint8:b8:ceil");
      const Tensor x = b == 0 ? model.embed(tiny_tokens()) : kept.streams[b - 1];
      QuantizedOperators first(model.config(), written), second(model.config(), read);
      const Tensor y = model.forward(static_cast<int64_t>(b), x, second);
      CHECK(at::equal(y, model.forward(static_cast<int64_t>(b), x, first)));
      CHECK(at::equal(y, kept.streams[b]));
    }
  }
}

TEST_CASE("a block without a branch format has no word of it, and factors that do not fit are an error") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("block_file");
  const Transformer model = tiny_model(Family::llama);
  const Recipe<Nearest, NoSmoothing, Mse, Direct, L2qer> recipe{.correction = {.rank = 2}};
  QuantizedBlock block = walk(model, stages(recipe), formats("int4"), tiny_tokens()).blocks.front();
  save_block(folder / "a.h5", block, model.layout());
  CHECK(!load_block_file(folder / "a.h5", model.layout()).formats.branch.active());
  block.linears[2].correction.b = block.linears[2].correction.b.narrow(1, 0, 7).contiguous();
  save_block(folder / "b.h5", block, model.layout());
  CHECK_THROWS_WITH(load_block_file(folder / "b.h5", model.layout()),
                    Catch::Contains("factors") && Catch::Contains(model.layout().sites[2].name));
}
