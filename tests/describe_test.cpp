// Reflection of policies: fields by path, strict parsing, texts that read back, labels.
#include <ptq/core/describe.hpp>
#include <ptq/core/learning.hpp>

#include <array>
#include <memory>

#include "catch.hpp"

using namespace ptq;
using Catch::Matchers::ContainsSubstring;

namespace {

enum class Colour { red, green };

/// A type with a text form of its own.
struct Ratio {
  int64_t above = 1, below = 2;
  static Ratio parse(const std::string& text, const std::string& what) {
    const auto parts = split(text, '/');
    if (parts.size() != 2) refuse(what, ": '", text, "' is no ratio");
    return {parse_integer<int64_t>(parts[0], what), parse_integer<int64_t>(parts[1], what)};
  }
  [[nodiscard]] std::string text() const { return cat(above, "/", below); }
};

struct Part {
  static constexpr std::string_view tag = "part";
  double weight = 0.5;
  Ratio ratio{};
};

struct Everything {
  static constexpr std::string_view tag = "everything";
  bool flag = false;
  int64_t count = 3;
  int small = 1;
  double rate = 1e-3;
  float single = 0.25f;
  Colour colour = Colour::green;
  std::optional<double> maybe{};
  std::optional<int64_t> perhaps = 7;
  Part part{};
};

/// A combinator that lists its parts itself.
struct Pair {
  static constexpr std::string_view tag = "pair";
  Part first{}, second{};
  template <class Visit>
  void each(const Visit& visit) {
    visit("first", first), visit("second", second);
  }
  template <class Visit>
  void each(const Visit& visit) const {
    visit("first", first), visit("second", second);
  }
};

struct Empty {
  static constexpr std::string_view tag = "empty";
};

}  // namespace

template <>
struct ptq::EnumNames<Colour> {
  static constexpr std::array<std::string_view, 2> names{"red", "green"};
};
BOOST_HANA_ADAPT_STRUCT(Part, weight, ratio);
BOOST_HANA_ADAPT_STRUCT(Everything, flag, count, small, rate, single, colour, maybe, perhaps, part);
BOOST_HANA_ADAPT_STRUCT(Empty);

namespace {

Field& field(std::vector<Field>& fields, const std::string& path) {
  for (Field& f : fields)
    if (f.path == path) return f;
  FAIL("no field " << path);
  return fields.front();
}

}  // namespace

TEST_CASE("every field has a path, a text and what it expects, nested parts included") {
  Everything e;
  const std::vector<Field> fields = describe(e, "solver");
  const std::vector<std::array<std::string, 3>> expected{
      {"solver.flag", "false", "true or false"},  {"solver.count", "3", "whole number"},
      {"solver.small", "1", "whole number"},      {"solver.rate", "0.001", "number"},
      {"solver.single", "0.25", "number"},        {"solver.colour", "green", "red|green"},
      {"solver.maybe", "none", "none or number"}, {"solver.perhaps", "7", "none or whole number"},
      {"solver.part.weight", "0.5", "number"},    {"solver.part.ratio", "1/2", "text"}};
  REQUIRE(fields.size() == expected.size());
  for (size_t i = 0; i < fields.size(); ++i) {
    CHECK(fields[i].path == expected[i][0]);
    CHECK(fields[i].text == expected[i][1]);
    CHECK(fields[i].expects == expected[i][2]);
  }
  CHECK(describe(e)[0].path == "flag");
}

TEST_CASE("a field sets its member, and its text reads back as the same value") {
  Everything e;
  auto fields = describe(e);
  field(fields, "flag").set("true"), field(fields, "count").set("-12"), field(fields, "rate").set("3.0000000000000004e-05");
  field(fields, "colour").set("red"), field(fields, "maybe").set("0.1"), field(fields, "perhaps").set("none"),
      field(fields, "part.ratio").set("3/7");
  CHECK(e.flag);
  CHECK(e.count == -12);
  CHECK(e.rate == 3.0000000000000004e-05);
  CHECK(e.colour == Colour::red);
  CHECK(e.maybe == 0.1);
  CHECK(!e.perhaps);
  CHECK(e.part.ratio.below == 7);
  Everything copy;
  auto targets = describe(copy);
  const auto now = describe(e);
  for (size_t i = 0; i < now.size(); ++i) targets[i].set(now[i].text);
  const auto again = describe(copy);
  for (size_t i = 0; i < now.size(); ++i) CHECK(again[i].text == now[i].text);
  CHECK(copy.rate == e.rate);
}

TEST_CASE("texts that are not wholly a value of the field are refused with its path, and change nothing") {
  const std::vector<std::pair<const char*, std::vector<const char*>>> bad{
      {"flag", {"1", "0", "TRUE", "yes", "", "true ", "none"}},
      {"count", {"1.0", "1e3", "", " 1", "1 ", "0x10", "99999999999999999999", "none", "+1"}},
      {"small", {"3000000000"}},
      {"rate", {"nan", "inf", "-inf", "1e400", "", "1,5", "0.1x", "abc", "none", " 1"}},
      {"colour", {"0", "1", "Red", "", "blue", "red|green"}},
      {"maybe", {"None", "nan", ""}},
      {"part.ratio", {"1", "1/x"}}};
  for (const auto& [path, texts] : bad)
    for (const char* text : texts) {
      INFO(path << " '" << text << "'");
      Everything e;
      auto fields = describe(e, "solver");
      CHECK_THROWS_WITH(field(fields, std::string("solver.") + path).set(text), ContainsSubstring(std::string("solver.") + path));
      CHECK(label(e) == "everything");
      try {
        field(fields, std::string("solver.") + path).set(text);
      } catch (const Error& error) {
        CHECK(error.blame() == Blame::arguments);
      }
    }
}

TEST_CASE("a label names what differs from the defaults, and nothing else") {
  Everything e;
  CHECK(label(e) == "everything");
  e.rate = 0.5, e.part.weight = 2, e.perhaps.reset();
  CHECK(label(e) == "everything(rate=0.5, perhaps=none, part.weight=2)");
  CHECK(label(Empty{}) == "empty");
  Pair p;
  p.second.weight = 1;
  CHECK(label(p) == "pair(second.weight=1)");
  CHECK(label(Learning{.steps = 5}) == "learning(steps=5)");
}

TEST_CASE("what is neither adapted nor lists its parts is not described") {
  struct Plain {
    int x = 0;
  };
  static_assert(!Described<Plain>);
  static_assert(Described<Pair> && Described<const Everything> && Described<Empty>);
  CHECK(describe(*std::make_unique<Empty>()).empty());
}
