// Runs as a table: for a terminal, Markdown or CSV.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/results/run.hpp>

namespace ptq::results {

enum class Format { text, markdown, csv };

/// "table", "markdown" or "csv"; anything else is refused.
[[nodiscard]] inline Format parse_format(std::string_view name) {
  if (name == "table") return Format::text;
  if (name == "markdown") return Format::markdown;
  if (name == "csv") return Format::csv;
  refuse("--format: '", name, "' is none of table, markdown, csv");
}

namespace detail {

using Row = std::vector<std::string>;

/// Decimal digits independent of the locale; large numbers with an exponent.
[[nodiscard]] inline std::string decimal(double value, int digits) {
  std::array<char, 48> buffer{};
  const bool large = std::abs(value) >= 1e5;
  const auto [end, code] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                         large ? std::chars_format::scientific : std::chars_format::fixed, digits);
  return code == std::errc{} ? std::string(buffer.data(), end) : std::string("?");
}

/// Every digit, for CSV; empty when absent.
[[nodiscard]] inline std::string exact(const std::optional<double>& value) {
  if (!value) return "";
  std::array<char, 32> buffer{};
  const auto [end, code] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), *value);
  return code == std::errc{} ? std::string(buffer.data(), end) : std::string();
}

/// "30.6403 ± 1.2034", with a sign where asked.
[[nodiscard]] inline std::string with_error(const std::optional<double>& value, const std::optional<double>& error, bool sign) {
  if (!value) return "-";
  return (sign && *value >= 0 ? "+" : "") + decimal(*value, 4) + (error ? " ± " + decimal(*error, 4) : "");
}

/// Characters on the screen: bytes that begin a UTF-8 sequence.
[[nodiscard]] inline std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

/// The same windows of the same text: one pair of columns.
[[nodiscard]] inline std::string column_name(const Evaluation& e) {
  return cat(e.text, ':', e.windows, 'x', e.window, e.protocol.empty() || e.protocol == "gptq" ? "" : " (" + e.protocol + ")");
}

[[nodiscard]] inline std::vector<std::string> column_names(std::span<const Run> runs) {
  std::vector<std::string> names;
  for (const Run& run : runs)
    for (const Evaluation& e : run.evaluations)
      if (std::find(names.begin(), names.end(), column_name(e)) == names.end()) names.push_back(column_name(e));
  return names;
}

/// The label, after the model's name where the runs are of several models.
[[nodiscard]] inline std::string row_name(const Run& run, std::span<const Run> runs) {
  const auto same_model = [&](const Run& other) { return find(other.model, "digest") == find(run.model, "digest"); };
  if (std::all_of(runs.begin(), runs.end(), same_model)) return run.label;
  std::string path = find(run.model, "path");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1) + ": " + run.label;
}

/// The runs of one model together, models in the order of their first run.
[[nodiscard]] inline std::vector<const Run*> by_model(std::span<const Run> runs) {
  std::vector<std::string> models;
  const auto rank = [&](const Run* run) { return std::find(models.begin(), models.end(), find(run->model, "digest")) - models.begin(); };
  std::vector<const Run*> sorted;
  for (const Run& run : runs) {
    sorted.push_back(&run);
    if (rank(&run) == static_cast<std::ptrdiff_t>(models.size())) models.push_back(find(run.model, "digest"));
  }
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Run* a, const Run* b) { return rank(a) < rank(b); });
  return sorted;
}

[[nodiscard]] inline std::vector<Row> rows(std::span<const Run> runs, bool every_digit) {
  const std::vector<std::string> texts = column_names(runs);
  std::vector<Row> all(1, {every_digit ? "label" : "recipe", every_digit ? "bits_per_weight" : "bits/weight"});
  const bool nominal = std::any_of(runs.begin(), runs.end(), [](const Run& run) { return nominal_bits(run).has_value(); });
  if (nominal) all[0].push_back(every_digit ? "nominal_bits_per_weight" : "nominal");
  for (const std::string& text : texts) {
    if (every_digit) {
      for (const char* column : {" perplexity", " standard_error", " difference", " difference_standard_error"})
        all[0].push_back(text + column);
    } else {
      all[0].push_back(text);
      all[0].push_back("difference");
    }
  }
  all[0].push_back("seconds");
  for (const Run* pointer : by_model(runs)) {
    const Run& run = *pointer;
    Row row{row_name(run, runs), every_digit ? exact(run.bits_per_weight) : run.bits_per_weight ? decimal(*run.bits_per_weight, 3) : "-"};
    const std::optional<double> counted = nominal_bits(run);
    if (nominal) row.push_back(every_digit ? exact(counted) : counted ? decimal(*counted, 3) : "-");
    for (const std::string& text : texts) {
      Evaluation none;
      const Evaluation* e = &none;
      for (const Evaluation& candidate : run.evaluations)
        if (column_name(candidate) == text) e = &candidate;
      const std::optional<double> perplexity = e == &none ? std::nullopt : std::optional(e->perplexity);
      if (every_digit) {
        for (const auto& value : {perplexity, e->standard_error, e->difference, e->difference_standard_error}) row.push_back(exact(value));
      } else {
        row.push_back(with_error(perplexity, e->standard_error, false));
        row.push_back(with_error(e->difference, e->difference_standard_error, true));
      }
    }
    row.push_back(every_digit ? exact(run.seconds) : decimal(run.seconds, 1));
    all.push_back(std::move(row));
  }
  return all;
}

/// RFC 4180: quoted where a comma, a quote or a line break is inside.
[[nodiscard]] inline std::string csv(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

/// Keeps a cell in its cell: control characters become spaces, and in Markdown a bar is escaped.
[[nodiscard]] inline std::string cell(const std::string& text, bool markdown) {
  std::string clean;
  for (const char c : text) {
    if (markdown && c == '|') clean += '\\';
    clean += static_cast<unsigned char>(c) < 0x20U || c == '\x7f' ? ' ' : c;
  }
  return clean;
}

/// Lines of cells, the first the head; aligned for a terminal, or as Markdown or CSV.
[[nodiscard]] inline std::string lay_out(std::vector<Row> rows, Format format) {
  std::string out;
  if (format == Format::csv) {
    for (const Row& row : rows)
      for (std::size_t i = 0; i < row.size(); ++i) out += csv(row[i]) + (i + 1 == row.size() ? "\n" : ",");
    return out;
  }
  const bool markdown = format == Format::markdown;
  std::vector<std::size_t> widths(rows[0].size(), markdown ? 2 : 0);
  for (Row& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i] = cell(row[i], markdown);
      widths[i] = std::max(widths[i], width(row[i]));
    }
  const auto line = [&](const Row& row) {
    std::string text = markdown ? "| " : "";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - width(row[i]), ' ');
      text += (i == 0 ? row[i] + padding : padding + row[i]) + (i + 1 < row.size() ? (markdown ? " | " : "  ") : "");
    }
    return text + (markdown ? " |\n" : "\n");
  };
  out += line(rows[0]);
  Row rule;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    std::string dashes;
    for (std::size_t j = markdown && i > 0 ? 1 : 0; j < widths[i]; ++j) dashes += markdown ? "-" : "─";
    rule.push_back(dashes + (markdown && i > 0 ? ":" : ""));
  }
  out += line(rule);
  for (std::size_t i = 1; i < rows.size(); ++i) out += line(rows[i]);
  return out;
}

}  // namespace detail

/// Columns: label, bits per weight, these as the method's paper counts them where a run has that, perplexity and difference to full
/// precision, each ± its standard error, for every text, seconds. CSV has every digit and standard errors in columns of their own; an
/// absent value is "-", in CSV nothing.
[[nodiscard]] inline std::string table(std::span<const Run> runs, Format format = Format::text) {
  return detail::lay_out(detail::rows(runs, format == Format::csv), format);
}

}  // namespace ptq::results
