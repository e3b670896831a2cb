// Which pages of a range this process holds in memory.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// The number of pages, of those that `bytes` touches, that are mapped in at this moment; from /proc/self/pagemap, bit 63; −1 if it cannot
/// be read.
[[nodiscard]] inline long present_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page,
             end = (reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size() + page - 1) / page;
  std::vector<std::uint64_t> entries(end - begin);
  const int file = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  const ssize_t read =
      ::pread(file, entries.data(), entries.size() * sizeof(std::uint64_t), static_cast<off_t>(begin * sizeof(std::uint64_t)));
  ::close(file);
  if (read != static_cast<ssize_t>(entries.size() * sizeof(std::uint64_t))) return -1;
  long present = 0;
  for (const std::uint64_t entry : entries) present += static_cast<long>(entry >> 63U);
  return present;
}
