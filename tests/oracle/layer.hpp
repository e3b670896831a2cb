// One layer of the golden files of column solvers: reading it, and the comparisons that all of them share.
#pragma once

#include <cmath>

#include <ptq/core/columns.hpp>

#include "golden.hpp"

namespace ptq::test {

struct LayerFile {
  io::Hdf5Reader file;
  at::ScalarType dtype;

  [[nodiscard]] Tensor get(const std::string& name) const { return io::get(file, name).to(dtype); }
  [[nodiscard]] Tensor raw(const std::string& name) const { return io::get(file, name); }
  [[nodiscard]] bool has(const std::string& name) const { return file.exists(name); }
  [[nodiscard]] double number(const char* name) const { return file.attribute<double>("/", name); }
  [[nodiscard]] int64_t count(const char* name) const { return file.attribute<int64_t>("/", name); }
};

inline double squared(const Tensor& t) { return t.to(at::kDouble).square().sum().item<double>(); }

/// A statistic (n, n) of which a file holds all, or its diagonal and first eight rows.
inline void check_statistic(const LayerFile& c, const std::string& name, const Tensor& mine, double tolerance) {
  if (c.has("debug/" + name)) CHECK(far(mine, c.get("debug/" + name)) < tolerance);
  if (c.has("debug/" + name + "_diag")) CHECK(far(mine.diagonal(), c.get("debug/" + name + "_diag")) < tolerance);
  if (c.has("debug/" + name + "_head")) CHECK(far(mine.narrow(0, 0, 8), c.get("debug/" + name + "_head")) < tolerance);
}

/// U = R⁻¹, R = M diag(R): the published factor H⁻¹ = Uᵀ U from ours, solver order.
inline void check_factor(const LayerFile& c, const ColumnFactor& f) {
  CHECK(f.damp == Approx(c.number("damp")).epsilon(1e-5));
  const Tensor r = f.loss_weight.sqrt();  // (n)
  if (c.has("debug/U_diag")) CHECK(far(1 / r, c.get("debug/U_diag")) < 1e-4);
  if (!c.has("debug/U")) return;
  const Tensor inverse = at::linalg_solve_triangular(f.unit.to(at::kDouble) * r, at::eye(r.size(0), at::kDouble), /*upper=*/true);
  CHECK(far(inverse, c.get("debug/U")) < 1e-4);
}

/// The same up to a permutation of dead channels among themselves, which tie.
inline void check_order(const LayerFile& c, const Tensor& order, const Tensor& dead) {
  const Tensor expected = c.raw("outputs/perm").to(at::kLong);
  const Tensor mine = order.defined() ? order : at::arange(expected.size(0));
  const Tensor differs = mine.ne(expected);
  CHECK(at::equal(std::get<0>(mine.sort()), at::arange(expected.size(0))));
  CHECK((differs & ~(dead.index_select(0, mine) & dead.index_select(0, expected))).sum().item<int64_t>() == 0);
}

/// Rows whose codes all agree. Others may differ only where a value lay on a tie: first mismatch of the row within 1e-3 of a half-integer.
inline Tensor check_codes(const LayerFile& c, const ColumnResult& r, const Tensor& order) {
  const Tensor expected = c.raw("outputs/codes"), perm = order.defined() ? order : at::arange(expected.size(1));
  const Tensor differs = r.codes.to(at::kInt).ne(expected);  // (rows, n)
  const Tensor good = ~differs.any(1);                       // (rows)
  const int64_t wrong = (~good).sum().item<int64_t>(), rows = expected.size(0);
  CHECK(static_cast<double>(wrong) <= std::max(2.0, 0.02 * static_cast<double>(rows)));
  const Tensor scales = c.raw("outputs/group_scale");
  for (int64_t row = 0; row < rows; ++row) {
    if (good[row].item<bool>()) continue;
    const Tensor steps = differs[row].index_select(0, perm).nonzero();  // solver order
    const int64_t column = perm[steps[0].item<int64_t>()].item<int64_t>();
    const int64_t group = c.has("outputs/g_idx") ? c.raw("outputs/g_idx")[column].item<int64_t>() : 0;
    const double at = c.raw("debug/W_seen")[row][column].item<double>() / scales[row][group].item<double>();
    INFO("row " << row << " column " << column << ": " << at << " steps");
    CHECK(std::abs(std::abs(at - std::floor(at)) - 0.5) < 1e-3);
  }
  return good;
}

/// Scales, zero points and groups; grids fitted on the way (`dynamic`) follow the codes, so only in rows where those agree.
inline void check_grids(const LayerFile& c, const ColumnResult& r, const Tensor& good, bool dynamic) {
  const Tensor rows = dynamic ? good : at::ones_like(good);
  const Tensor scale = c.get("outputs/group_scale").index({rows}), zero = c.raw("outputs/group_zero").to(at::kInt).index({rows});
  CHECK(at::allclose(r.grid.scale.index({rows}), scale, dynamic ? 1e-4 : 1e-6, 0));
  CHECK(at::equal(r.grid.zero.index({rows}), zero));
  if (!c.has("outputs/g_idx")) return;
  const int64_t n = r.codes.size(1), group = c.count("groupsize");
  const Tensor mine = r.grid.group_of.defined() ? r.grid.group_of : (at::arange(n) / group).to(at::kInt);
  CHECK(at::equal(mine, c.raw("outputs/g_idx")));
}

/// Values where codes agree, and what was rounded in rows where all of them do.
inline void check_values(const LayerFile& c, const ColumnResult& r, const Tensor& good) {
  const Tensor q = dequantize(r.codes, r.grid), expected = c.get("outputs/Q");  // (m, n)
  const Tensor agree = r.codes.to(at::kInt).eq(c.raw("outputs/codes")) & good.unsqueeze(1);
  CHECK(largest((q - expected).masked_fill(~agree, 0)) <= 1e-5 * largest(expected));
  if (c.has("debug/W_seen"))
    CHECK(largest((r.seen - c.get("debug/W_seen")).masked_fill(~good.unsqueeze(1), 0)) <= 1e-4 * largest(r.grid.scale));
}

}  // namespace ptq::test
