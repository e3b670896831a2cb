// What every experiment shares: one command line, one table. A driver names its recipes; the rest is in driver.cpp, compiled once.
//
//   int main(int argc, char** argv) {
//     return ptq::driver::run(argc, argv, {.about = "GPTQ", .rows = {ptq::driver::row(ptq::methods::gptq)}});
//   }
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/precision.hpp>
#include <ptq/stages.hpp>
#include <ptq/sweep.hpp>

namespace ptq::driver {

/// Number formats as on the command line; what is not given follows the driver's, then the command line's.
struct FormatTexts {
  std::optional<std::string> weights{};      ///< "int4:g64"
  std::optional<std::string> activations{};  ///< "int8:token:sym"
};

/// One row of the table: a recipe, kept alive with its options bound, and formats of its own.
struct Row {
  std::string name;  ///< empty: the recipe's label
  FormatTexts formats{};
  bool exported = false;  ///< whether --export writes this one when there are several
  bool swept = false;     ///< an entry of a sweep: left out, counted and said where it cannot run; else that is an error
  std::function<std::vector<Field>()> fields;  ///< hyperparameters that options set
  std::function<Stages()> stages;              ///< the recipe as it is now
  std::function<Reason(const Precision&)> refuses;
  std::function<Reason(const Precision&)> redundant;
  std::function<void()> shorten;  ///< --quick: the schedule scaled down
};

namespace detail {

/// Schedules of minutes instead of hours.
inline void shorten(Learning& learning) {
  if (learning.steps > 0) learning.steps = std::max<int64_t>(1, learning.steps / 20);
  learning.epochs = std::min<int64_t>(learning.epochs, 2);
}

}  // namespace detail

/// A row of a recipe value.
template <class R>
[[nodiscard]] Row row(const R& recipe, FormatTexts formats = {}, std::string name = {}, bool exported = false) {
  const auto kept = std::make_shared<R>(recipe);
  Row r;
  r.name = std::move(name);
  r.formats = std::move(formats);
  r.exported = exported;
  r.fields = [kept] { return describe(*kept); };
  r.stages = [kept] { return ptq::stages(*kept); };
  r.refuses = [kept](const Precision& p) { return ptq::refuses(*kept, p); };
  r.redundant = [kept](const Precision& p) { return ptq::redundant(*kept, p); };
  r.shorten = [kept] { detail::shorten(kept->learning); };
  return r;
}

/// A row for every entry of a sweep that composes; what is refused or redundant at the chosen formats is left out, counted and said.
template <class... Axes>
[[nodiscard]] std::vector<Row> rows(const Sweep<Axes...>& sweep) {
  std::vector<Row> all;
  sweep.for_each_composable([&](const auto& recipe) {
    all.push_back(row(recipe));
    all.back().swept = true;
  });
  return all;
}

/// What a driver is, and its defaults: those of its paper.
struct Experiment {
  std::string about;
  std::vector<Row> rows;
  std::string weights = "int4:g128";
  std::string activations = "none";
  std::string attention{};  ///< "q=int8,k=activations": formats of what attention multiplies; `activations` is that of --activations
  std::string bias = "none", factors = "none", branch = "none";
  std::string calibrate = "wikitext2:128x2048";  ///< the paper's calibration; --quick scales it down
  std::string evaluate = "wikitext2";
};

/// Parses the command line, runs every row, prints the table. Returns the exit status: 0 done, 2 wrong arguments, 1 contents of files and
/// later failures, 130 interrupted.
int run(int argc, char** argv, const Experiment& experiment);

}  // namespace ptq::driver
