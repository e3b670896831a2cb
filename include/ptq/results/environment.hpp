// What a result says of the machine and the program that made it.
#pragma once

#include <sys/resource.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
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

/// What this process holds in memory, in bytes: its own pages, pages of files, and the most of both together since the start or since
/// forget_peak_memory. All zero where there is no /proc.
struct ResidentMemory {
  std::int64_t anonymous = 0, file = 0, peak = 0;
  [[nodiscard]] std::int64_t all() const { return anonymous + file; }
};

[[nodiscard]] inline ResidentMemory resident_memory() {
  ResidentMemory found;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    const auto bytes = [&line](std::size_t from) { return std::int64_t{1024} * std::strtoll(line.c_str() + from, nullptr, 10); };
    if (line.starts_with("RssAnon:")) found.anonymous = bytes(8);
    if (line.starts_with("RssFile:")) found.file += bytes(8);
    if (line.starts_with("RssShmem:")) found.file += bytes(9);
    if (line.starts_with("VmHWM:")) found.peak = bytes(6);
  }
  return found;
}

/// Lets the peak begin again at what is held now; false where the system cannot.
inline bool forget_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
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
