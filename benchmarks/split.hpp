// Where the time of a piece of work goes, by libtorch's operators, in the run itself.
#pragma once

#include <functional>
#include <map>
#include <string>

namespace ptq::bench {

/// Seconds by operator without those it calls; "" is what no operator accounts for: our own kernels, and the time between operators.
[[nodiscard]] std::map<std::string, double> split(const std::function<void()>& work);

/// The operators that multiply matrices, oneDNN's included.
[[nodiscard]] bool multiplies(const std::string& name);

}  // namespace ptq::bench
