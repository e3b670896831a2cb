// Where streams live: in the memory of the process, or in files that the kernel pages in and out.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include <ptq/io/mapped_tensor.hpp>
#include <ptq/io/scratch_map.hpp>

namespace ptq {

/// Makes the tensors that hold activations of all calibration tokens. What reads or fills them does not know which kind they are: it goes
/// through them a few sequences at a time and calls `io::forget` on those that it is done with.
class StreamMemory {
 public:
  /// The memory of the process.
  StreamMemory() = default;

  /// Maps of nameless files in `folder`, which should lie on a disk: then a run holds a few sequences of a stream, not the stream.
  [[nodiscard]] static StreamMemory mapped(std::filesystem::path folder) {
    StreamMemory memory;
    memory.folder_ = std::move(folder);
    return memory;
  }

  [[nodiscard]] bool mapped() const { return folder_.has_value(); }

  /// A tensor to be filled. Throws, naming the folder, where it may not be written or has no room.
  [[nodiscard]] Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) const {
    if (!folder_) return at::empty(sizes, options);
    const auto type = c10::typeMetaToScalarType(options.dtype());
    const auto count = static_cast<size_t>(c10::multiply_integers(sizes));
    const auto map = std::make_shared<const io::ScratchMap>(*folder_, count * c10::elementSize(type));
    return io::tensor_over(map->bytes(), map, sizes, type);
  }
  [[nodiscard]] Tensor empty_like(const Tensor& x) const { return empty(x.sizes(), x.options()); }

 private:
  std::optional<std::filesystem::path> folder_;
};

}  // namespace ptq
