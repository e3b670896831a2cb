// Log-likelihoods in tiles, perplexity over windows, its standard error and paired difference.
#include <ptq/evaluate/perplexity.hpp>

#include "catch.hpp"
#include "models.hpp"

using namespace ptq;

namespace {

Transformer tiny() { return test::open_model(test::data() / "models/llama_books"); }

Tensor windows(int64_t n, int64_t length, int64_t first = 0) {
  const io::Hdf5Reader reference(test::data() / "models/llama_books_reference.h5");
  return test::ids(reference, "tokens/books_test/head").narrow(0, first, n * length).view({n, length});
}

/// Mean negative log-likelihoods from whole logits, windows one by one.
std::vector<double> plainly(const Transformer& model, const Head& head, const Tensor& ids) {
  const at::NoGradGuard no_grad;
  std::vector<double> means;
  for (int64_t w = 0; w < ids.size(0); ++w) {
    Tensor x = model.embed(ids.narrow(0, w, 1));
    for (int64_t block = 0; block < model.blocks(); ++block) {
      FloatOperators ops(model.config(), model.load(block));
      x = model.forward(block, x, ops);
    }
    const Tensor log_p = at::log_softmax(model.logits(head, x)[0].to(at::kDouble), 1);  // (tokens, vocab)
    double sum = 0;
    for (int64_t t = 0; t + 1 < ids.size(1); ++t) sum -= log_p[t][ids[w][t + 1]].item<double>();
    means.push_back(sum / static_cast<double>(ids.size(1) - 1));
  }
  return means;
}

}  // namespace

TEST_CASE("tiles of any size give the log-likelihoods of a softmax in float64") {
  at::manual_seed(2);
  const Tensor h = at::randn({23, 8}), w = at::randn({101, 8}), target = at::randint(101, {23}, at::kLong);
  for (const double size : {1.0, 1e4}) {  // the second overflows an exponential that is not kept relative to its peak
    const Tensor z = at::matmul((h * size).to(at::kDouble), w.to(at::kDouble).t());
    const Tensor expected = -at::log_softmax(z, 1).gather(1, target.unsqueeze(1)).squeeze(1);
    for (const LikelihoodTile tile : {LikelihoodTile{}, {7, 13}, {1, 1}, {23, 101}, {5, 100}}) {
      CHECK((negative_log_likelihood(h * size, w, target, tile) - expected).abs().max().item<double>() < 3e-6 * size * 10);
      CHECK(test::greatest_error(negative_log_likelihood((h * size).to(at::kDouble), w.to(at::kDouble), target, tile), expected) < 1e-13);
    }
  }
  CHECK(negative_log_likelihood(h, w, target).scalar_type() == at::kDouble);
}

TEST_CASE("a uniform model has the vocabulary's size as perplexity") {
  const Transformer model = tiny();
  Head head = model.load_head();
  head.weight = at::zeros_like(head.weight);
  const Perplexity p = perplexity(model, head, {windows(2, 64)}, float_operators(model));
  CHECK(p.estimate().value == Approx(4096).epsilon(1e-12));
  CHECK(p.estimate().standard_error == Approx(0).margin(1e-9));
}

TEST_CASE("perplexity is the exponential of the mean over windows, whatever the batch, a shorter tail counting as one window") {
  const Transformer model = tiny();
  const Head head = model.load_head();
  const Tensor ids = windows(5, 100), tail = windows(1, 37, 500);
  std::vector<double> expected = plainly(model, head, ids);
  double sum = 0;
  for (const double l : expected) sum += l;
  for (const int64_t batch : {0, 1, 2, 5, 9}) {
    PerplexityOptions options;
    options.batch = batch;
    const Perplexity p = perplexity(model, head, {ids}, float_operators(model), options);
    REQUIRE(p.nll.size() == 5);
    for (size_t i = 0; i < 5; ++i) CHECK(p.nll[i] == Approx(expected[i]).epsilon(1e-6));
    CHECK(p.tokens == 500);
    CHECK(p.predicted == std::vector<int64_t>(5, 99));
    CHECK(p.estimate().value == Approx(std::exp(sum / 5)).epsilon(1e-6));
  }
  const Perplexity with_tail = perplexity(model, head, {ids, tail}, float_operators(model));
  const double last = plainly(model, head, tail)[0];
  REQUIRE(with_tail.nll.size() == 6);
  CHECK(with_tail.predicted.back() == 36);
  CHECK(with_tail.tokens == 537);
  CHECK(with_tail.estimate().value == Approx(std::exp((sum + last) / 6)).epsilon(1e-6));
}

TEST_CASE("standard error and paired difference follow their formulas") {
  const Perplexity fp{{1.0, 2.0, 3.0}, {9, 9, 9}, 30}, q{{1.5, 2.25, 3.0}, {9, 9, 9}, 30};
  const double ppl_fp = std::exp(2.0), ppl_q = std::exp(2.25);
  CHECK(fp.estimate().standard_error == Approx(ppl_fp * 1.0 / std::sqrt(3.0)));  // sample deviation of 1, 2, 3 is 1
  const double a = ppl_q * 1.5 - ppl_fp * 1.0, b = ppl_q * 2.25 - ppl_fp * 2.0, c = ppl_q * 3.0 - ppl_fp * 3.0, m = (a + b + c) / 3;
  const double sd = std::sqrt(((a - m) * (a - m) + (b - m) * (b - m) + (c - m) * (c - m)) / 2);
  CHECK(difference(q, fp).value == Approx(ppl_q - ppl_fp));
  CHECK(difference(q, fp).standard_error == Approx(sd / std::sqrt(3.0)));
  CHECK(difference(fp, fp).standard_error == 0);
  CHECK(std::isnan(Perplexity{{1.0}, {9}, 10}.estimate().standard_error));
  CHECK_THROWS_WITH(difference(q, Perplexity{{1.0}, {9}, 10}), Catch::Matchers::ContainsSubstring("same windows"));
  CHECK_THROWS(difference(q, Perplexity{{1.0, 2.0, 3.0}, {9, 9, 8}, 29}));
}

TEST_CASE("operators are asked for block by block, one block alive at a time") {
  const Transformer model = tiny();
  struct Counted : FloatOperators {
    Counted(const Transformer& m, int64_t block, int& count) : FloatOperators(m.config(), m.load(block)), alive(&count) { ++*alive; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() override { --*alive; }
    Tensor linear(int site, const Tensor& x) override { return FloatOperators::linear(site, x) * 1.01; }
    int* alive;
  };
  std::vector<int64_t> asked, done;
  int alive = 0;
  PerplexityOptions options;
  options.on_block = [&](int64_t block) { done.push_back(block); };
  const auto changed = [&](int64_t block) {
    CHECK(alive == 0);
    asked.push_back(block);
    return std::make_unique<Counted>(model, block, alive);
  };
  const Perplexity q = perplexity(model, model.load_head(), {windows(3, 50)}, changed, options);
  CHECK(asked == std::vector<int64_t>{0, 1, 2, 3});
  CHECK(done == asked);
  const Perplexity fp = perplexity(model, model.load_head(), {windows(3, 50)}, float_operators(model));
  CHECK(std::abs(difference(q, fp).value) > 1e-3);
}

TEST_CASE("the head's weight can be replaced and its input rounded") {
  const Transformer model = tiny();
  Head head = model.load_head();
  const double before = perplexity(model, head, {windows(2, 50)}, float_operators(model)).estimate().value;
  Head doubled = head;
  doubled.input = [](const Tensor& h) { return h * 2; };
  Head doubled_weight = head;
  doubled_weight.weight = head.weight * 2;
  const double a = perplexity(model, doubled, {windows(2, 50)}, float_operators(model)).estimate().value;
  const double b = perplexity(model, doubled_weight, {windows(2, 50)}, float_operators(model)).estimate().value;
  CHECK(a == Approx(b).epsilon(1e-6));
  CHECK(std::abs(a - before) > 0.1);
}

TEST_CASE("activations that stop being finite are an error that names the block") {
  using Catch::Matchers::ContainsSubstring;
  const Transformer model = tiny();
  const auto broken = [&](int64_t block) {
    BlockParameters p = model.load(block);
    if (block == 2) p.norms[0].weight[5] = std::numeric_limits<float>::infinity();
    return std::make_unique<FloatOperators>(model.config(), p);
  };
  CHECK_THROWS_WITH(perplexity(model, model.load_head(), {windows(2, 50)}, broken), ContainsSubstring("block 2"));
}

TEST_CASE("texts that predict nothing are refused") {
  using Catch::Matchers::ContainsSubstring;
  const Transformer model = tiny();
  const Head head = model.load_head();
  CHECK_THROWS_WITH(perplexity(model, head, {}, float_operators(model)), ContainsSubstring("shorter than one window"));
  CHECK_THROWS_WITH(perplexity(model, head, {at::zeros({0, 50}, at::kLong)}, float_operators(model)),
                    ContainsSubstring("shorter than one window"));
  CHECK_THROWS_WITH(perplexity(model, head, {at::zeros({2, 1}, at::kLong)}, float_operators(model)), ContainsSubstring("predicts nothing"));
}
