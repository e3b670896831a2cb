#include "catch.hpp"
#include "pipeline.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

MemorySink run(const Loaded& m, const Stages& s, const Precision& p, const Tensor& calibration) {
  ComputedReference reference(*m.model, calibration, 4096);
  MemorySink sink;
  Walk walk;
  walk.precision = p;
  CHECK(quantize(s, *m.model, calibration, reference, sink, walk) == m.model->blocks());
  return sink;
}

}  // namespace

TEST_CASE("plain rounding gives the perplexities that were computed independently") {
  struct Row {
    const char* format;
    double llama, opt;
  };
  const std::vector<std::pair<std::string, std::vector<std::pair<const char*, double>>>> expected{
      {"llama_books", {{"int4:channel", 70.3879}, {"int3:channel", 75.3199}, {"int3:g64", 73.5580}, {"int2:g64", 107.2691}}},
      {"opt_books", {{"int4:channel", 91.7440}, {"int3:channel", 98.1797}, {"int3:g64", 95.0590}, {"int2:g64", 131.6218}}}};
  for (const auto& [name, rows] : expected) {
    const auto path = data() / "models" / name;
    const Loaded m(path);
    const Tensor ids = windows(path, "books_test.txt", 64, 256);
    const Tensor calibration = windows(path, "books_valid.txt", 2, 64);
    for (const auto& [format, ppl] : rows) {
      INFO(name << " " << format);
      const double got = evaluate(*m.model, run(m, stages(methods::rtn), precision(format), calibration), ids).estimate().value;
      CHECK(got == Approx(ppl).epsilon(3e-3));
    }
  }
}

TEST_CASE("GPTQ is better than plain rounding on every linear and on held-out text") {
  const auto path = data() / "models" / "llama_books";
  const Loaded m(path);
  const Tensor ids = windows(path, "books_test.txt", 64, 256), calibration = windows(path, "books_valid.txt", 32, 256);
  const MemorySink plain = run(m, stages(methods::rtn), precision("int3:g64"), calibration);
  const MemorySink gptq = run(m, stages(methods::gptq), precision("int3:g64"), calibration);
  const Perplexity a = evaluate(*m.model, plain, ids), b = evaluate(*m.model, gptq, ids);
  CHECK(b.estimate().value < a.estimate().value);
  CHECK(b.estimate().value > 69.0492);
  for (const BlockReport& r : gptq.reports)
    for (const LinearReport& l : r.linears) CHECK(l.relative_to_rtn < 1);
  for (const BlockReport& r : plain.reports)
    for (const LinearReport& l : r.linears) CHECK(l.relative_to_rtn == Approx(1));
  WARN("int3:g64 plain " << a.estimate().value << ", GPTQ " << b.estimate().value);
}

TEST_CASE("CLAQ orders by bits on held-out text, and is below plain rounding and GPTQ without groups at 3 and 2 bits") {
  const auto path = data() / "models" / "llama_books";
  const Loaded m(path);
  const Tensor ids = windows(path, "books_test.txt", 16, 256), calibration = windows(path, "books_valid.txt", 32, 256);
  const auto perplexity_of = [&](const auto& recipe, const char* format) {
    return evaluate(*m.model, run(m, stages(recipe), precision(format), calibration), ids).estimate().value;
  };
  const double full = perplexity_of(methods::rtn, "none");
  const double four = perplexity_of(methods::claq, "int4"), three = perplexity_of(methods::claq, "int3"),
               fused = perplexity_of(methods::claq_fused, "int2"), two = perplexity_of(methods::claq, "int2");
  WARN("full " << full << ", CLAQ 4 " << four << ", 3 " << three << ", 2.12 " << fused << ", 2 " << two);
  CHECK(full < four);
  CHECK(four < three);
  CHECK(three < fused);
  CHECK(fused < two);
  for (const auto& [format, claq] : {std::pair{"int3", three}, std::pair{"int2", two}}) {
    INFO(format);
    CHECK(claq < perplexity_of(methods::rtn, format));
    CHECK(claq < perplexity_of(methods::gptq_act_order, format));
  }
}
