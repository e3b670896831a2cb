// Every architecture variant against values that transformers computed: models/zoo and any folder of such models in PTQ_ZOO.
#include <ptq/evaluate/perplexity.hpp>

#include "catch.hpp"
#include "models.hpp"

using namespace ptq;

TEST_CASE("every model of the zoo gives the reference's hidden states, logits and log-likelihoods", "[zoo]") {
  const auto folders = test::zoo();
  if (folders.empty()) SKIP_TEST("no models in data/models/zoo or PTQ_ZOO");
  const auto dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& folder : folders) {
    INFO(folder.string());
    const at::NoGradGuard no_grad;
    const io::Hdf5Reader reference(folder / "reference.h5");
    const Transformer model = test::open_model(folder, dtype);
    const Tensor ids = test::ids(reference, "ids");     // (windows, tokens)
    const Tensor nll = test::values(reference, "nll");  // (windows, tokens − 1)
    const Head head = model.load_head();
    Tensor x = model.embed(ids);
    for (int64_t i = 0; i <= model.blocks(); ++i) {
      INFO("hidden state " << i);
      const Tensor expected =
          test::values(reference, cat("hidden_", i));  // (tokens, hidden) of the first window; the last as the head reads it
      CHECK(test::greatest_error(i == model.blocks() ? model.head_input(head, x[0]) : x[0], expected) < 1e-4);
      if (i == model.blocks()) break;
      FloatOperators ops(model.config(), model.load(i));
      x = model.forward(i, x, ops);
    }
    CHECK(test::greatest_error(model.logits(head, x[0]).narrow(1, 0, 64), test::values(reference, "logits_head64")) < 1e-4);
    CHECK((model.nll(head, x, ids) - nll).abs().max().item<double>() < 1e-4 * nll.max().item<double>());
    const Perplexity found = perplexity(model, head, {ids}, float_operators(model));
    for (int64_t w = 0; w < ids.size(0); ++w)
      CHECK(found.nll.at(static_cast<size_t>(w)) == Approx(nll[w].mean().item<double>()).epsilon(1e-4));
  }
}
