// Which pages of a range this process holds in memory.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <vector>

/// The number of pages, of those that `bytes` touches, that are mapped in at this moment; from /proc/self/pagemap, bit 63.
[[nodiscard]] inline long present_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page,
             end = (reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size() + page - 1) / page;
  std::vector<std::uint64_t> entries(end - begin);
  std::ifstream file("/proc/self/pagemap", std::ios::binary);
  file.seekg(static_cast<std::streamoff>(begin * sizeof(std::uint64_t)));
  file.read(reinterpret_cast<char*>(entries.data()), static_cast<std::streamsize>(entries.size() * sizeof(std::uint64_t)));
  long present = 0;
  for (const std::uint64_t entry : entries) present += static_cast<long>(entry >> 63U);
  return present;
}
