// Perplexity of SmolLM2-135M in float32, weights read block by block as every run does.

#include <ptq/evaluate/perplexity.hpp>
#include <ptq/io/checkpoint.hpp>
#include <ptq/io/mapped_file.hpp>
#include <ptq/io/tokenizer/open.hpp>

#include "data.hpp"
#include "paired.hpp"

namespace {

using namespace ptq;
using namespace ptq::bench;

Transformer transformer_of(const std::shared_ptr<const io::Checkpoint>& files, at::ScalarType dtype) {
  const auto has = [files](const std::string& name) { return files->has(name); };
  const auto load = [files, dtype](const std::string& name, at::IntArrayRef shape) { return files->load(name, shape, dtype); };
  return Transformer(files->config(), TensorLookup{has, load}, dtype);
}

/// The first windows of a text, without special tokens: (windows, length) int64.
Tensor first_windows(const std::filesystem::path& model, const std::filesystem::path& text, int64_t windows, int64_t length) {
  const io::MappedFile mapped(text.string());
  const auto ids =
      io::open_tokenizer(model).encode({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, io::Special::none);
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.begin() + windows * length)).view({windows, length});
}

/// Multiply-adds of one window, two operations each: linears, the causal half of attention's two products, the head.
double operations(const Transformer& model, int64_t length) {
  const auto& config = model.config();
  const auto tokens = static_cast<double>(length);
  double weights = 0;
  for (const Site& site : model.layout().sites) weights += static_cast<double>(site.out * site.in);
  const double attention = tokens * static_cast<double>(config.heads * config.head_dim);  // q kᵀ and p v, half of each
  return 2 * (tokens * static_cast<double>(config.layers) * (weights + attention) +
              (tokens - 1) * static_cast<double>(config.vocab * config.hidden));
}

/// `err`: distance of the first window's mean loss from that of the float64 forward; the rate is tokens a second.
void evaluate(benchmark::State& state, int64_t windows, int64_t length) {
  const auto file = test::smollm2();
  if (!file) {
    state.SkipWithError("skipped: SmolLM2 is not here; ./quickstart deps brings it");
    return;
  }
  const auto text = test::text("wikitext2_test.txt");
  if (!text) {
    state.SkipWithError("skipped: wikitext2_test.txt is neither in data/texts nor in PTQ_TEXTS");
    return;
  }
  const auto files = std::make_shared<const io::Checkpoint>(io::Checkpoint::open(file->string()));
  const Tensor ids = first_windows(*file, *text, windows, length);
  const Transformer transformer = transformer_of(files, at::kFloat);
  const Head head = transformer.load_head();
  Perplexity result;
  Case c;
  c.ours = [&] { result = perplexity(transformer, head, {ids}, float_operators(transformer)); };
  c.error = [&] {
    const Transformer wide = transformer_of(files, at::kDouble);
    const Perplexity exact = perplexity(wide, wide.load_head(), {ids.narrow(0, 0, 1)}, float_operators(wide));
    return std::abs(result.nll.at(0) - exact.nll.at(0));
  };
  c.tolerance = 1e-4;
  c.ceiling = Ceiling::multiply, c.work = static_cast<double>(windows) * operations(transformer, length);
  c.items = static_cast<double>(windows * length);
  c.mm_goal = windows > 1 ? 0.8 : 0;
  measure(state, c);
  if (!result.nll.empty()) state.counters["perplexity"] = result.estimate().value;
}

}  // namespace

void register_evaluation() {
  add(
      "evaluation/smollm2/1x2048/multiply/quick", [](benchmark::State& s) { evaluate(s, 1, 2048); }, 3);
  add(
      "evaluation/smollm2/6x2048/multiply", [](benchmark::State& s) { evaluate(s, 6, 2048); }, 3);
}
