// What a result says of the machine and the program that made it.
#pragma once

#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <string>

#include <ptq/core/error.hpp>

namespace ptq::results {

/// The processor's own name for itself, or "unknown".
[[nodiscard]] inline std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  return "unknown";
}

/// The largest resident set of this process so far, in bytes.
[[nodiscard]] inline std::int64_t peak_memory_bytes() {
  rusage usage{};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? std::int64_t{usage.ru_maxrss} * 1024 : 0;
}

/// "GCC 12.2.0".
[[nodiscard]] inline std::string compiler() {
#if defined(__clang__)
  return cat("Clang ", __clang_major__, '.', __clang_minor__, '.', __clang_patchlevel__);
#else
  return cat("GCC ", __GNUC__, '.', __GNUC_MINOR__, '.', __GNUC_PATCHLEVEL__);
#endif
}

/// UTC, "2025-01-31T12:00:00Z".
[[nodiscard]] inline std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::array<char, 32> text{};
  if (::gmtime_r(&now, &parts) == nullptr) return "";
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace ptq::results
