// The losses of LRQuant and of the continuation of its code against their released codes, gradients included.
#include <ptq/loss/aug.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>

#include "golden.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

struct Variant {
  std::string name;
  std::function<Tensor(const Targets&, const Tensor&)> loss;
};

template <class L>
Variant variant(std::string name, L loss) {
  return {std::move(name), [loss](const Targets& targets, const Tensor& output) { return loss_value(loss, targets, output); }};
}

std::vector<Variant> variants() {
  using Half = Sum<Mse, Nlc>;
  Half half, half8;
  half.term<Nlc>().loss.form = half8.term<Nlc>().loss.form = NlcForm::half_token;
  half8.term<Nlc>().weight = half8.term<Mse>().weight = 8;
  return {variant("mse", Mse{}),
          variant("nlc_mean_abs", Nlc{}),
          variant("mse_plus_nlc", Sum<Mse, Nlc>{}),
          variant("with_aug", Sum<Mse, Nlc, Aug<>>{}),
          variant("half_token", half),
          variant("half_token_x8", half8),
          variant("mean_of_logs", Nlc{.form = NlcForm::token_log}),
          variant("flattened", Nlc{.form = NlcForm::flattened})};
}

}  // namespace

TEST_CASE("every variant of the loss equals the released code's, and so do its gradients", "[oracle]") {
  const auto files = oracles({"lrquant_loss"});
  if (files.empty()) SKIP_TEST("no lrquant_loss*.h5 in data/oracles or PTQ_ORACLES");
  for (const auto& path : files) {
    const io::Hdf5Reader file(path);
    for (const std::string& name : file.groups())
      for (const Precise& p : golden_precisions)
        for (const Variant& v : variants()) {
          INFO(path.filename().string() << " " << name << " " << p.name << " " << v.name);
          const std::string at = cat(name, "/", p.name, "/");
          if (!file.exists(at + v.name)) continue;
          const auto in = [&](const char* what) { return io::get(file, cat(name, "/", what)).to(p.dtype); };
          const c10::AutoGradMode on(true);
          const Tensor q = in("Q").requires_grad_(true), value = v.loss({in("F"), in("F_aug")}, q);
          const double golden = io::get(file, at + v.name).item<double>(), off = std::abs(value.item<double>() - golden);
          CHECK(off <= (p.dtype == at::kDouble ? 1e-14 + 1e-13 * std::abs(golden) : 3e-7 + 2e-6 * std::abs(golden)));
          if (p.dtype != at::kDouble || name == "zero_token" || !file.exists(at + "grad_" + v.name)) continue;
          value.backward();
          const Tensor gradient = io::get(file, at + "grad_" + v.name);
          CHECK(largest(q.grad() - gradient) <= 1e-11 * largest(gradient) + 1e-16);
        }
  }
}
