#pragma once
// Transposes out of place. Float and double.

#include <ptq/kernels/status.hpp>

namespace ptq::kernels {

/// to[c, r] = from[r, c] for the given rows of `to`, which is as wide as `from` is high.
template <class T>
Status transpose(View<const T> from, View<T> to, Rows rows);

}  // namespace ptq::kernels
