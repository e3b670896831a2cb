// Laws of roundings, on every member.
#include <ptq/quantize.hpp>

#include "catch.hpp"
#include "lists.hpp"
#include "tiny.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

/// Ordinary rows, an outlier, rows of one sign, of zeros, of one value, tiny and huge ones.
Tensor hostile_rows(at::ScalarType dtype) {
  at::manual_seed(5);
  Tensor w = at::randn({12, 24}, dtype);  // (rows, cols)
  w[1][4] = 60, w[2] = w[2].abs(), w[3] = -w[3].abs();
  w[4].zero_(), w[5].fill_(0.37), w[6] *= 1e-6, w[7] *= 1e6, w[8].fill_(-2), w[9].narrow(0, 1, 23).zero_();
  return w;
}

const char* const schemes[] = {"int2",
                               "int3:sym",
                               "int4",
                               "int4:g8",
                               "int4:tensor",
                               "int5:g4:sym",
                               "int8",
                               "int4:search",
                               "int3:range=flexround:search",
                               "int4:g8:sym:range=flexround",
                               "int6:range=flexround",
                               "int7:g6:range=omni",
                               "int3:sym:range=omni",
                               "int4:sym:range=omni_no_zero_point",
                               "int8:sym:range=absmax",
                               "mxint4:b8",
                               "mxint3:b7",
                               "mxint4:b2x8",
                               "fixed8:f4"};

template <class P, class Law>
void on_all(const Law& law) {
  for (const P& p : Variants<P>::all())
    for (const char* text : schemes)
      for (const auto dtype : {at::kFloat, at::kDouble}) {
        const Scheme scheme = weights(text);
        if (!p.refuses(scheme).empty()) continue;
        INFO(label(p) << " " << text << " " << c10::toString(dtype));
        const Tensor w = hostile_rows(dtype);
        law(p, w, scheme, p.start(w, scheme));
      }
}

/// What a solver without feedback commits.
template <class P>
QuantizedLinear committed(const P& p, const Tensor& w, const Scheme& scheme, const NamedTensors& state) {
  Problem problem;
  problem.place = "layer", problem.weight = w, problem.scheme = scheme, problem.coordinates = p.coordinates(state, w, scheme);
  return Direct{}.solve(problem).linear;
}

/// Parameters somewhere else than at their start, as learning would leave them.
template <class P>
NamedTensors moved(const P& p, NamedTensors state) {
  at::manual_seed(6);
  for (const Learnable& l : p.learnable())
    for (const std::string& name : l.names)
      if (const auto found = state.find(name); found != state.end()) found->second = found->second + 0.1 * at::randn_like(found->second);
  return state;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("the committed weight is bit for bit what learning saw", "[laws]", Roundings) {
  on_all<TestType>([](const TestType& p, const Tensor& w, const Scheme& scheme, const NamedTensors& state) {
    for (const NamedTensors& s : {state, moved(p, state)}) CHECK(at::equal(committed(p, w, scheme, s).weight(), p.weight(s, w, scheme)));
  });
}

TEMPLATE_LIST_TEST_CASE("codes of a rounding stay within the bits of its format", "[laws]", Roundings) {
  on_all<TestType>([](const TestType& p, const Tensor& w, const Scheme& scheme, const NamedTensors& state) {
    const Tensor codes = committed(p, w, scheme, moved(p, state)).codes;
    CHECK(codes.scalar_type() == at::kByte);
    CHECK(codes.max().item<int>() < (1 << scheme.bits));
  });
}

TEMPLATE_LIST_TEST_CASE("at its start a learned rounding is plain rounding", "[laws]", Roundings) {
  on_all<TestType>([](TestType p, const Tensor& w, const Scheme& scheme, NamedTensors state) {
    if constexpr (requires { p.start_logit; }) p.start_logit = 40, state = p.start(w, scheme);  // a clip that keeps all of the range
    const Grid plain = fit_grid(w, scheme);
    const Tensor expected = fake_quantize(w, plain), mine = p.weight(state, w, scheme);
    const int64_t each = scheme.granularity == Granularity::group ? scheme.group : 1;  // columns of a scale; 1: broadcast
    const Tensor scale = plain.scale.repeat_interleave(each, 1).narrow(1, 0, each > 1 ? w.size(1) : plain.groups());
    const Tensor steps = w / scale;  // a step may differ in its last bit
    const Tensor tie = ((steps - steps.floor()) - 0.5).abs().lt(1e-4);
    CHECK(at::allclose(mine.masked_fill(tie, 0), expected.masked_fill(tie, 0), 1e-5, 0));
  });
}

TEMPLATE_LIST_TEST_CASE("a rounded weight rounds to itself on the same grid", "[laws]", Roundings) {
  on_all<TestType>([](const TestType& p, const Tensor& w, const Scheme& scheme, const NamedTensors& state) {
    const QuantizedLinear q = committed(p, w, scheme, state);
    CHECK(at::equal(quantize(q.weight(), q.grid), q.codes));
    CHECK(at::equal(fake_quantize(q.weight(), q.grid), q.weight()));
  });
}

TEMPLATE_LIST_TEST_CASE("gradients reach the weight and every learned parameter", "[laws]", Roundings) {
  on_all<TestType>([](const TestType& p, const Tensor& w, const Scheme& scheme, NamedTensors state) {
    const c10::AutoGradMode on(true);
    state = moved(p, state);  // LRQ's right factor has no gradient at its start, where the left one is zero
    const Tensor leaf = w.clone().requires_grad_(true);
    std::vector<Tensor> all{leaf};
    for (const Learnable& l : p.learnable()) {
      CHECK(l.rate > 0);
      for (const std::string& name : l.names)
        if (state.count(name) > 0) all.push_back(state.at(name).requires_grad_(true));
    }
    p.weight(state, leaf, scheme).square().sum().backward();
    for (const Tensor& t : all) {
      CHECK(t.grad().defined());
      if (t.grad().defined()) CHECK(at::isfinite(t.grad()).all().item<bool>());
      if (t.grad().defined()) CHECK(t.grad().abs().sum().item<double>() > 0);
    }
  });
}
