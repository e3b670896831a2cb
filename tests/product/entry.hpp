// Recipes of a product of axes with their types erased, so that what runs them is compiled once.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include <ptq/stages.hpp>
#include <ptq/sweep.hpp>

namespace ptq::test {

inline constexpr std::array<const char*, 6> axis_names{"rounding", "smoothing", "loss", "solver", "correction", "adaptation"};
inline constexpr int64_t updates = 2;  ///< of learning, a block

struct Entry {
  std::array<std::string, 6> tags;  ///< of its policies, by axis
  Stages stages;
};

struct Product {
  std::vector<Entry> entries;  ///< those whose types compose
  int64_t ill_formed = 0;
  std::function<SweepCount(const Precision&)> count;  ///< what a sweep says of the same product
};

inline Entry entry_of(Stages stages) {
  Entry entry{{}, std::move(stages)};
  for (const auto& [name, text] : entry.stages.description)
    if (const auto found = std::find(axis_names.begin(), axis_names.end(), name); found != axis_names.end())
      entry.tags[static_cast<size_t>(found - axis_names.begin())] = text;
  return entry;
}

template <class Grid>
Product product_of(const Grid& grid) {
  Product all;
  all.ill_formed = grid.for_each_composable([&](auto recipe) {
    recipe.learning.steps = updates, recipe.learning.tracked = 0;
    all.entries.push_back(entry_of(stages(recipe)));
  });
  all.count = [grid](const Precision& p) { return grid.for_each(p, [](const auto&) {}); };
  return all;
}

Product whole_product();       ///< 3 roundings × 3 smoothings × 2 losses × 3 solvers × 3 corrections × 2 adaptations
Product correction_product();  ///< 4 roundings × 5 solvers × 4 corrections

}  // namespace ptq::test
