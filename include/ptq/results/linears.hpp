// The linears of runs as a table: errors, seconds, and whatever their solvers report.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ptq/results/table.hpp>

namespace ptq::results {

/// A line a linear: run, block, name, relative error, the same over plain rounding's, seconds, then the numbers of solvers in the order
/// they first appear (loss, damp, bits_per_weight, …).
[[nodiscard]] inline std::string linear_table(std::span<const Run> runs, Format format = Format::text) {
  std::vector<std::string> names;
  for (const Run& run : runs)
    for (const Block& block : run.blocks)
      for (const Linear& linear : block.linears)
        for (const auto& [name, value] : linear.numbers)
          if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  const auto figure = [&](const std::optional<double>& value) {
    return format == Format::csv ? detail::exact(value) : value ? detail::decimal(*value, 5) : std::string("-");
  };
  std::vector<detail::Row> rows{{"recipe", "block", "linear", "relative_error", "relative_to_rtn", "seconds"}};
  rows[0].insert(rows[0].end(), names.begin(), names.end());
  for (const Run& run : runs)
    for (const Block& block : run.blocks)
      for (const Linear& linear : block.linears) {
        detail::Row row{detail::row_name(run, runs),   std::to_string(block.index),    linear.name,
                        figure(linear.relative_error), figure(linear.relative_to_rtn), figure(linear.seconds)};
        for (const std::string& wanted : names) {
          std::optional<double> found;
          for (const auto& [name, value] : linear.numbers)
            if (name == wanted) found = value;
          row.push_back(figure(found));
        }
        rows.push_back(std::move(row));
      }
  return detail::lay_out(std::move(rows), format);
}

}  // namespace ptq::results
