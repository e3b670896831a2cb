// Streams in mapped files: tensors like any other, and runs that give the same bytes wherever their streams live.
#include <ptq/calibration/cache.hpp>
#include <ptq/methods.hpp>
#include <ptq/run/store.hpp>

#include "catch.hpp"
#include "pages.hpp"
#include "temporary_folder.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// One run in `folder`, its blocks as bytes. The walk stops after the first block where `stop`; a second call goes on.
struct Run {
  const Transformer& model;
  Stages stages;
  Precision precision;
  Tensor tokens;

  std::vector<std::string> operator()(const std::filesystem::path& folder, bool cached, const StreamMemory& memory,
                                      bool stop = false) const {
    const CacheKey key{"model", "tokenizer", "sampling", "f32", "here"};
    std::unique_ptr<ReferenceStream> reference;
    if (cached)
      reference = std::make_unique<CachedReference>(folder / "cache", key, model, tokens, 48, std::function<void(int64_t)>(), memory);
    else
      reference = std::make_unique<ComputedReference>(model, tokens, 48, memory);
    RunStore store(folder / "run", model.layout(), model.blocks(), RunStore::Access::write, memory);
    Walk walk;
    walk.precision = precision, walk.batch_tokens = 48, walk.streams = memory;
    walk.interrupted = [=] { return stop; };
    CHECK(quantize(stages, model, tokens, *reference, store, walk) == (stop ? 1 : model.blocks()));
    std::vector<std::string> blocks;
    for (int64_t b = 0; b < store.committed(); ++b) blocks.push_back(contents(store.block_path(b)));
    return blocks;
  }
};

template <class R>
Stages shortened(R recipe) {
  recipe.learning.steps = 6;
  return stages(recipe);
}

}  // namespace

TEST_CASE("a mapped tensor holds its values while its pages come and go, and its file goes with the last view") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("streams");
  const StreamMemory memory = StreamMemory::mapped(folder.path);
  Tensor view;
  {
    const Tensor x = memory.empty({64, 100, 128}, at::kFloat);  // 3.3 MB
    CHECK(folder.names().empty());
    x.copy_(at::arange(x.numel()).view(x.sizes()));
    const auto present = [&] { return present_pages(io::bytes_of(x)); };
    const long all = present();
    io::forget(x.narrow(0, 0, 32));
    const long half = present();
    io::forget(x);
    if (all < 0)
      skipped("the pages of a process cannot be counted here");
    else
      CHECK((half < all && half > 0 && present() == 0));
    CHECK(at::equal(x, at::arange(x.numel()).view(x.sizes())));
    view = x[63];
  }
  CHECK(view.sum(at::kDouble).item<double>() == at::arange(63 * 12800, 64 * 12800).sum(at::kDouble).item<double>());
  CHECK(memory.empty({0, 3}, at::kFloat).numel() == 0);
  CHECK(memory.empty_like(at::ones({2, 3}, at::kDouble)).scalar_type() == at::kDouble);
  CHECK_THROWS_WITH(StreamMemory::mapped(folder / "absent").empty({1}, at::kFloat), ContainsSubstring("absent: no temporary file"));
  if (std::filesystem::space(folder.path).available < std::uintmax_t{1} << 52U)
    CHECK_THROWS_WITH(memory.empty({1 << 30, 1 << 20}, at::kFloat),
                      ContainsSubstring("no room for a temporary file: 4503599627370496 bytes"));
}

TEST_CASE("other tensors forget nothing") {
  const Tensor x = at::ones({1 << 20});
  io::forget(x), io::forget(Tensor()), io::forget(at::empty({0}));
  CHECK(x.sum().item<double>() == 1 << 20);
}

TEST_CASE("rows of a file are mapped where they begin as tensors do, and nowhere else") {
  const TemporaryFolder folder("streams");
  const Tensor x = at::randn({3, 4, 256}), odd = at::randn({4, 1025});  // each begins at a page
  io::Hdf5Bulk bulk(folder / "a.h5", {{"x", io::DType::f32, {3, 4, 256}}, {"odd", io::DType::f32, {4, 1025}}});
  for (int64_t i = 0; i < 3; ++i) write_stream(bulk, 0, i, x[i]);
  write_stream(bulk, 1, {}, odd);
  CHECK_THROWS_WITH(bulk.write_part(1, 0, 16, io::bytes_of(odd[0])), ContainsSubstring("a.h5: odd: 4100 bytes from 16 are no part"));
  bulk.commit();
  const io::Hdf5Reader file(folder / "a.h5", io::Hdf5Origin::ours);
  const Tensor row = io::map_rows(file, "x", 1, 1), all = io::map_rows(file, "x");
  REQUIRE((row.defined() && all.defined()));
  CHECK(at::equal(row, x.narrow(0, 1, 1)));
  CHECK(at::equal(all, x));
  CHECK_FALSE(io::map_rows(file, "odd", 1, 1).defined());
  const StreamMemory memory = StreamMemory::mapped(folder.path);
  CHECK(at::equal(read_stream(file, "odd", 1, memory), odd[1]));
  CHECK(at::equal(read_stream(file, "x", 2, memory), x[2]));
  CHECK(stream_digest(x).hex() == Sha256().update(io::bytes_of(x)).hex());
  std::filesystem::remove(folder / "a.h5");  // the bytes live as long as the tensor
  CHECK(at::equal(all, x));
}

TEST_CASE("large datasets of bulk files begin at pages") {
  const TemporaryFolder folder("streams");
  const Tensor x = at::randn({3, 2000});
  io::Hdf5Bulk bulk(folder / "a.h5", {{"small", io::DType::f32, {3}}, {"x", io::DType::f32, {3, 2000}}, {"y", io::DType::f32, {3, 2000}}});
  write_stream(bulk, 0, {}, at::ones({3})), write_stream(bulk, 1, {}, x), write_stream(bulk, 2, {}, x);
  bulk.commit();
  const io::Hdf5Reader file(folder / "a.h5", io::Hdf5Origin::ours);
  CHECK(file.offset("x", io::DType::f32).value() % 4096 == 0);
  CHECK(file.offset("y", io::DType::f32).value() % 4096 == 0);
  CHECK_FALSE(file.offset("x", io::DType::i32).has_value());
}

TEST_CASE("blocks are the same to the last byte whether streams are mapped or in memory, cached or computed, resumed or not") {
  const c10::NoGradGuard off;
  struct Row {
    const char* name;
    Stages stages;
    Precision precision;
  };
  const std::vector<Row> rows{{"GPTQ", stages(methods::gptq), formats("int4")},
                              {"GPTAQ, paired and sequential", stages(methods::gptaq), formats("int4")},
                              {"AWRQ, static ranges", stages(methods::awrq), formats("int4", "int8:static")},
                              {"FlexRound", shortened(methods::flexround), formats("int4:channel:range=flexround")},
                              {"OmniQuant, own target", shortened(methods::omniquant), formats("int4:channel:range=omni", "int8:token")},
                              {"QERA", stages(methods::qera), formats("mxint4:b16")}};
  for (const Family family : {Family::llama, Family::opt}) {
    const Transformer model = tiny_model(family);
    for (const Row& row : rows)
      for (const bool cached : {false, true}) {
        INFO(name(family) << ", " << row.name << (cached ? ", cached" : ", computed"));
        const TemporaryFolder a("streams_a"), b("streams_b"), c("streams_c"), scratch("streams_scratch");
        const StreamMemory mapped = StreamMemory::mapped(scratch.path);
        const Run run{model, row.stages, row.precision, tiny_tokens(5, 24)};
        const auto whole = run(a.path, cached, {});
        REQUIRE(whole.size() == 2);
        CHECK(run(b.path, cached, mapped) == whole);
        CHECK(run(c.path, cached, mapped, true).size() == 1);
        const auto resumed = run(c.path, cached, row.name[0] == 'G' ? StreamMemory() : mapped);
        CHECK(resumed == whole);
        CHECK(scratch.names().empty());
        if (cached)
          for (const auto& entry : std::filesystem::directory_iterator(a / "cache"))
            CHECK(contents(entry.path()) == contents(b / "cache" / entry.path().filename()));
      }
  }
}

TEST_CASE("a damaged row of a cache is noticed when it is mapped") {
  const c10::NoGradGuard off;
  const TemporaryFolder folder("streams");
  const Transformer model = tiny_model(Family::llama);
  const CacheKey key{"model", "tokenizer", "sampling", "f32", "here"};
  const StreamMemory memory = StreamMemory::mapped(folder.path);
  std::filesystem::path path;
  {
    CachedReference made(folder.path, key, model, tiny_tokens(), 4096, {}, memory);
    path = made.path();
  }
  const auto at = io::Hdf5Reader(path).offset("stream", io::DType::f32).value();
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto place = static_cast<std::streamoff>(at + 2 * 4 * 24 * 32 * 4 + 5);
    file.seekg(place);
    const int was = file.get();
    file.seekp(place);
    file.put(static_cast<char>(was ^ 1));
  }
  CachedReference found(folder.path, key, model, tiny_tokens(), 4096, {}, memory);
  CHECK(found.found());
  CHECK(found.input(1).defined());
  CHECK_THROWS_WITH(found.input(2), ContainsSubstring("is damaged: block 2 is not what was written; delete that file"));
}
