// Codebooks on disk: codes by width, levels of every column, kept entries by column. The schema is in docs/formats.md.
#pragma once

#include <string>

#include <ptq/core/packing.hpp>
#include <ptq/core/quantized_linear.hpp>
#include <ptq/io/hdf5_tensor.hpp>
#include <ptq/model/layout.hpp>

namespace ptq::detail {

/// Columns whose codes have `bits`, ascending; (k) int64.
inline Tensor columns_of_width(const Tensor& widths, int bits) { return widths.eq(bits).nonzero().squeeze(1); }

inline void put_levels(io::Hdf5Writer& f, const std::string& at, const QuantizedLinear& l) {
  const Codebook& book = l.codebook;
  f.attribute(at, "level_type", std::string(EnumNames<LevelType>::names[static_cast<size_t>(book.type)]));
  io::put(f, at + "/levels", book.levels);
  io::put(f, at + "/column_bits", book.bits);
  for (int bits = 1; bits <= 8; ++bits)
    if (const Tensor columns = columns_of_width(book.bits, bits); columns.numel() > 0)
      io::put(f, at + "/codes" + std::to_string(bits), pack(l.codes.index_select(1, columns), bits));
  if (l.kept.count() == 0) return;
  io::put(f, at + "/kept_begin", l.kept.begin);
  io::put(f, at + "/kept_rows", l.kept.rows);
  io::put(f, at + "/kept_values", l.kept.values);
}

/// Reads and checks: every code has a level, every kept entry a place.
inline void get_levels(const io::Hdf5Reader& f, const std::string& at, const std::string& where, const Site& site, QuantizedLinear& l) {
  Codebook& book = l.codebook;
  const auto type = f.attribute<std::string>(at, "level_type");
  book.type = from_text<LevelType>(type, where + ", level_type");
  book.levels = io::get(f, at + "/levels");
  book.bits = io::get(f, at + "/column_bits").to(at::kInt);
  if (book.bits.dim() != 1 || book.bits.size(0) != site.in || book.bits.lt(1).any().item<bool>() || book.bits.gt(8).any().item<bool>())
    fail(where, "/column_bits ", shape_text(book.bits), " is not one width of 1 to 8 bits for each of ", site.in, " columns");
  const int64_t most = int64_t{1} << book.bits.max().item<int>();
  if (book.levels.dim() != 2 || book.levels.size(0) != site.in || book.levels.size(1) != most)
    fail(where, "/levels ", shape_text(book.levels), " are not ", most, " levels for each of ", site.in, " columns");
  require_finite(book.levels, where + "/levels");
  l.codes = at::zeros({site.out, site.in}, at::kByte);
  for (int bits = 1; bits <= 8; ++bits) {
    const Tensor columns = columns_of_width(book.bits, bits);
    if (columns.numel() == 0) continue;
    const Tensor part = unpack(io::get(f, at + "/codes" + std::to_string(bits)), columns.numel(), bits);
    if (part.size(0) != site.out) fail(where, ": codes of ", part.size(0), " rows, the model has ", site.out);
    l.codes.index_copy_(1, columns, part);
  }
  if (!f.exists(at + "/kept_begin")) return;
  l.kept.begin = io::get(f, at + "/kept_begin").to(at::kInt);
  l.kept.rows = io::get(f, at + "/kept_rows").to(at::kInt);
  l.kept.values = io::get(f, at + "/kept_values");
  const int64_t kept = l.kept.rows.numel();
  const bool ascending = l.kept.begin.numel() == site.in + 1 && l.kept.begin[0].item<int>() == 0 &&
                         l.kept.begin[site.in].item<int>() == kept && l.kept.begin.diff().ge(0).all().item<bool>();
  const bool inside = kept == 0 || (l.kept.rows.ge(0).all().item<bool>() && l.kept.rows.lt(site.out).all().item<bool>());
  if (!ascending || !inside || l.kept.values.numel() != kept) fail(where, ": the kept entries name a place that is not there");
  require_finite(l.kept.values, where + "/kept_values");
}

}  // namespace ptq::detail
