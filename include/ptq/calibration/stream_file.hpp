// Streams in and out of files, a sequence at a time.
#pragma once

#include <optional>
#include <string>

#include <ptq/calibration/stream_memory.hpp>
#include <ptq/core/digest.hpp>
#include <ptq/io/hdf5_tensor.hpp>

namespace ptq {

/// SHA-256 of the elements. x (N, T, hidden), contiguous.
[[nodiscard]] inline Sha256 stream_digest(const Tensor& x) {
  Sha256 digest;
  for (int64_t n = 0; n < x.size(0); ++n) {
    const Tensor sequence = x[n];  // (T, hidden)
    digest.update(io::bytes_of(sequence));
    io::forget(sequence);
  }
  return digest;
}

/// Writes x (N, T, hidden), contiguous, as a row of a dataset, or as all of it.
inline void write_stream(io::Hdf5Bulk& file, size_t dataset, std::optional<int64_t> row, const Tensor& x) {
  for (int64_t n = 0; n < x.size(0); ++n) {
    const Tensor sequence = x[n];  // (T, hidden)
    if (row)
      file.write_part(dataset, *row, static_cast<uint64_t>(n) * sequence.nbytes(), io::bytes_of(sequence));
    else
      file.write(dataset, n, io::bytes_of(sequence));
    io::forget(sequence);
  }
}

/// A row of a dataset, or all of it, (N, T, hidden): over the file itself where memory is mapped and the elements lie well, else read.
[[nodiscard]] inline Tensor read_stream(const io::Hdf5Reader& file, const std::string& dataset, std::optional<int64_t> row,
                                        const StreamMemory& memory) {
  Tensor x = memory.mapped() ? io::map_rows(file, dataset, row, 1) : Tensor();
  if (!x.defined())
    x = io::get(file, dataset, row, 1, [&](at::IntArrayRef sizes, at::ScalarType type) { return memory.empty(sizes, at::dtype(type)); });
  return row ? x.squeeze(0) : x;
}

}  // namespace ptq
