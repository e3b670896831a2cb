// The whole product of the axes on small models: every recipe runs and obeys its laws, or is refused with a reason, or is redundant, and
// then gives bit for bit what the simpler recipe gives.
#include <iostream>
#include <set>

#include "catch.hpp"
#include "product/laws.hpp"

using namespace ptq;
using namespace ptq::test;

namespace {

using Tags = std::array<std::string, 6>;

Tags with(Tags tags, size_t axis, const char* tag) { return tags[axis] = tag, tags; }

/// The recipe that a redundant one duplicates, by the reason why it is said to.
Tags simpler(const Tags& tags, const Reason& why) {
  if (why == "a loss where nothing is learned") return with(tags, 2, "mse");
  if (why == "AWRQ without rounded activations is GPTQ") return with(tags, 3, "gptq");
  if (why == "a rounding that the solver, with levels of its own, does not read") return with(tags, 0, "nearest");
  if (why == "a rounding on steps that stay, whose divisors the solver does not read") return with(tags, 0, "nearest");
  FAIL("no simpler recipe is known for the reason: " << why);
  return tags;
}

Setting setting(const char* name, Family family, const char* weight, const char* activation) {
  Setting s{name, tiny_model(family), formats(weight, activation)};
  if (s.precision.activations.active())
    for (const size_t i : {0, 1, 3}) s.precision.attention[i] = s.precision.activations;
  return s;
}

std::string name_of(const Tags& tags) {
  std::string all;
  for (const std::string& t : tags) all += (all.empty() ? "" : " × ") + t;
  return all;
}

/// Runs every recipe of the product that the setting does not refuse, redundant ones too, and holds them against each other.
void check_product(const Product& product, const Setting& s, int64_t size) {
  at::set_num_threads(1);  // matrices are tiny
  std::map<Tags, Outcome> all;
  std::map<Tags, Reason> redundant;
  std::map<Reason, int64_t> dropped;
  std::set<std::string> descriptions, labels;
  for (const Entry& e : product.entries) {
    std::string description;
    for (const auto& [name, text] : e.stages.description) description += name + "=" + text + "\n";
    CHECK(descriptions.insert(description).second);
    if (const Reason why = e.stages.refuses(s.precision); !why.empty()) {
      ++dropped[why];
      require_refusal(e, s, why);
      continue;
    }
    all[e.tags] = run(e, s);
    if (const Reason why = e.stages.redundant(s.precision); !why.empty())
      ++dropped[why], redundant[e.tags] = why;
    else
      CHECK(labels.insert(e.stages.label).second);
  }

  // What a sweep drops is this, and nothing is lost.
  const SweepCount count = product.count(s.precision);
  CHECK(count.total() == size);
  CHECK(count.ill_formed == product.ill_formed);
  CHECK(count.dropped == dropped);
  CHECK(count.run == static_cast<int64_t>(all.size() - redundant.size()));
  std::cout << s.name << ": " << size << " recipes; " << count.run << " run, " << count.ill_formed << " ill-formed";
  for (const auto& [why, n] : count.dropped) std::cout << "\n  dropped " << n << ": " << why;
  std::cout << std::endl;

  for (const auto& [tags, why] : redundant) {
    INFO(s.name << ": " << name_of(tags) << " is redundant: " << why);
    const Outcome &one = all.at(tags), &other = all.at(simpler(tags, why));
    CHECK((one.blocks == other.blocks));
    CHECK((one.adapted == other.adapted));
    CHECK(one.nll == other.nll);
  }
  std::map<std::string, Tags> seen;  // what runs → the recipe that made it
  for (const auto& [tags, one] : all) {
    INFO(s.name << ": " << name_of(tags));
    if (tags[5] != "none") {  // an adaptation comes after everything: what is committed does not know of it
      const Outcome& calibrated = all.at(with(tags, 5, "none"));
      CHECK((one.blocks == calibrated.blocks));
      CHECK((one.state == calibrated.state));
      if (!one.refitted) CHECK(one.nll == calibrated.nll);
    } else if (!redundant.count(tags)) {  // what is not redundant gives something of its own
      const auto [at, fresh] = seen.emplace(one.blocks.front() + one.blocks.back(), tags);
      INFO("as " << name_of(at->second));
      CHECK(fresh);
    }
    if (tags[4] != "none") {  // a correction comes after the codes of its own input group
      const Outcome& plain = all.at(with(tags, 4, "none"));
      for (const char* site : {"0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj"})
        CHECK((one.codes.at(site) == plain.codes.at(site)));
    }
  }
}

}  // namespace

TEST_CASE("the product of the six axes: 324 recipes, each runs by its laws, is refused with a reason, or is redundant and a duplicate") {
  const Product product = whole_product();
  REQUIRE(product.entries.size() + static_cast<size_t>(product.ill_formed) == 324);
  check_product(product, setting("weights alone", Family::llama, "int3:channel", "none"), 324);
  check_product(product, setting("weights and activations", Family::llama, "int4:channel", "int8:token"), 324);
}

TEST_CASE("corrections compose with every solver and rounding, on grids a row, a group, or a shared exponent") {
  const Product product = correction_product();
  CHECK(product.ill_formed == 4);  // learned clipping of codebooks
  check_product(product, setting("corrections, weights alone", Family::llama, "int3:channel", "none"), 80);
  check_product(product, setting("corrections, OPT, weights and activations", Family::opt, "int4:channel", "int8:token"), 80);
  check_product(product, setting("corrections, groups", Family::llama, "int4:g16", "int8:token"), 80);
  check_product(product, setting("corrections, block floating point", Family::llama, "mxint4:b16", "mxint8:b16"), 80);
}
