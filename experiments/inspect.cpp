// inspect: what a model file holds, its token ids, its losses on a text, and what it says.
#include <cstdio>
#include <filesystem>
#include <random>

#include <ptq/io/corpus/text_file.hpp>

#include "inputs.hpp"
#include "program.hpp"

namespace ptq::driver {
namespace {

struct Choice {
  std::string model, tokens, nll, generate, window = "512", windows = "8", length = "64", seed, temperature = "0";
  bool special = false;
};

void print_configuration(const io::Checkpoint& files, const std::string& path) {
  const ModelConfig& c = files.config();
  const auto line = [](const char* name, const std::string& value) { std::printf("%-14s %s\n", name, value.c_str()); };
  line("model", path);
  line("family", std::string(name(c.family)));
  line("blocks", std::to_string(c.layers));
  line("hidden", cat(c.hidden, ", feed-forward ", c.ffn));
  line("heads", cat(c.heads, " of ", c.head_dim, ", key/value ", c.kv_heads));
  line("vocabulary", cat(c.vocab, c.tied ? ", head tied to the embedding" : ", own head"));
  line("positions", std::to_string(c.max_positions));
  if (!c.is_opt()) line("rotary", cat("base ", c.rope_theta, ", scaling ", name(c.rope.kind)));
  if (c.window(0) > 0) line("window", std::to_string(c.window(0)));
  line("digest", files.digest());
  double bytes = 0, parameters = 0;
  for (const io::StoredTensor& t : files.tensors()) {
    std::string shape;
    double n = 1;
    for (const int64_t size : t.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(size), n *= static_cast<double>(size);
    std::printf("  %-56s %-8s %-16s %12llu bytes\n", t.name.c_str(), t.dtype.c_str(), shape.c_str(),
                static_cast<unsigned long long>(t.bytes));
    bytes += static_cast<double>(t.bytes), parameters += n;
  }
  line("tensors", std::to_string(files.tensors().size()));
  line("parameters", cat(parameters / 1e6, " million"));
  line("bytes", cat(bytes / 1e6, " MB, ", 8 * bytes / parameters, " bits a parameter"));
}

void print_loss(const std::string& path, const std::string& text, int64_t length, int64_t count, io::Special special) {
  const Model m = open_model(path);
  const std::vector<int32_t> ids = m.tokenizer.encode(io::read_text(text), special);
  const int64_t n = std::min<int64_t>(count, static_cast<int64_t>(ids.size()) / length);
  if (n == 0) fail(text, ": ", ids.size(), " tokens are not one window of ", length);
  const Tensor windows = at::tensor(std::vector<int64_t>(ids.begin(), ids.begin() + n * length), at::kLong).view({n, length});
  const Perplexity p = perplexity(*m.transformer, m.transformer->load_head(), {windows}, float_operators(*m.transformer));
  const Estimate e = p.estimate();
  std::printf("tokens %zu\nwindows %ld of %ld\nmean negative log-likelihood %.6f\nperplexity %.4f", ids.size(), static_cast<long>(n),
              static_cast<long>(length), std::log(e.value), e.value);
  if (n > 1) std::printf(" ± %.4f", e.standard_error);
  std::printf("\n");
}

/// Continues a text: greedily at temperature 0, else by drawing with the seed.
void generate(const std::string& path, const std::string& text, int64_t length, double temperature, uint64_t seed) {
  const c10::NoGradGuard no_gradients;
  const Model m = open_model(path);
  const Transformer& model = *m.transformer;
  std::vector<int32_t> ids = m.tokenizer.encode(text, io::Special::default_);
  if (ids.empty() && m.tokenizer.bos()) ids.push_back(*m.tokenizer.bos());
  if (ids.empty()) refuse("--generate: an empty text, and the tokenizer has no first token; write a word");
  std::vector<std::unique_ptr<Operators>> blocks;
  for (int64_t b = 0; b < model.blocks(); ++b) blocks.push_back(float_operators(model)(b));
  const Head head = model.load_head();
  const Embedding embedding = model.load_embedding();
  std::mt19937_64 random(seed);
  for (int64_t i = 0; i < length && static_cast<int64_t>(ids.size()) < model.config().max_positions; ++i) {
    Tensor x = model.embed(embedding, at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0));  // (1, T, hidden)
    for (int64_t b = 0; b < model.blocks(); ++b) x = model.forward(b, x, *blocks[static_cast<size_t>(b)]);
    const Tensor logits = model.logits(head, x.select(1, x.size(1) - 1)).squeeze(0);  // (vocab)
    int64_t next = logits.argmax().item<int64_t>();
    if (temperature > 0) {
      const Tensor sum = (logits.to(at::kDouble) / temperature).softmax(0).cumsum(0);  // (vocab)
      const double u = std::uniform_real_distribution<double>(0, 1)(random);
      next = std::min<int64_t>(sum.lt(u).sum().item<int64_t>(), logits.numel() - 1);
    }
    const auto& stop = model.config().eos;
    if (std::find(stop.begin(), stop.end(), next) != stop.end()) break;
    ids.push_back(static_cast<int32_t>(next));
  }
  std::printf("%s\n", m.tokenizer.decode(ids, io::Special::none).c_str());
}

int inspect(int argc, char** argv) {
  Choice c;
  CLI::App app("What a model holds, its token ids, its losses, what it says");
  app.add_option("--model", c.model, "a .gguf file or a Hugging Face folder")->required();
  app.add_option("--tokens", c.tokens, "write the ids of a text file to standard output, little-endian int32");
  app.add_flag("--special", c.special, "with the tokenizer's special tokens (BOS)");
  app.add_option("--nll", c.nll, "loss on the first windows of a text file");
  app.add_option("--window", c.window, "tokens a window (512)");
  app.add_option("--windows", c.windows, "how many (8)");
  app.add_option("--generate", c.generate, "continue a text");
  app.add_option("--length", c.length, "tokens to add (64)");
  app.add_option("--temperature", c.temperature, "0: greedily (0; 1 where a seed is given)");
  app.add_option("--seed", c.seed, "of drawing");
  read_arguments(app, argc, argv);
  const auto special = c.special ? io::Special::default_ : io::Special::none;
  if (!c.tokens.empty()) {
    const std::vector<int32_t> ids = io::open_tokenizer(c.model).encode(io::read_text(c.tokens), special);
    if (std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout) != ids.size()) fail("standard output cannot be written");
  } else if (!c.nll.empty()) {
    print_loss(c.model, c.nll, parse_integer<int64_t>(c.window, "--window", 2, 1 << 24),
               parse_integer<int64_t>(c.windows, "--windows", 1, 1 << 24), special);
  } else if (app.count("--generate") > 0) {
    double temperature = parse_number(c.temperature, "--temperature");
    if (temperature < 0) refuse("--temperature: must not be negative");
    if (!c.seed.empty() && app.count("--temperature") == 0) temperature = 1;
    generate(c.model, c.generate, parse_integer<int64_t>(c.length, "--length", 1, 1 << 20), temperature,
             c.seed.empty() ? 0 : parse_integer<uint64_t>(c.seed, "--seed"));
  } else {
    print_configuration(io::Checkpoint::open(c.model), c.model);
  }
  return 0;
}

}  // namespace
}  // namespace ptq::driver

int main(int argc, char** argv) {
  return ptq::driver::guarded([&] { return ptq::driver::inspect(argc, argv); });
}
