#pragma once
// Passes that only look: finiteness, and the largest magnitude of each column (SmoothQuant's statistic).

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

/// ok, or non_finite when NaN or infinity occurs in rows [begin, end).
template <class T>
Status all_finite(View<const T> x, Rows rows);

/// absmax[c] = max(absmax[c], |x[r, c]|) over rows [begin, end): running over calls (start with zeros). NaN counts as infinity.
template <class T>
Status column_absmax(View<const T> x, Rows rows, T* absmax);

}  // namespace ptq::kernels
