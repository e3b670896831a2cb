// Writer of one safetensors file: sizes first, then the tensors one by one in any order; the file appears when it is whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>
#include <ptq/io/atomic_file.hpp>
#include <ptq/io/dtype.hpp>
#include <ptq/io/json.hpp>
#include <ptq/io/safetensors.hpp>
#include <ptq/io/stored_tensor.hpp>

namespace ptq::io {

/// One tensor to come.
struct TensorPlan {
  std::string name{};
  DType dtype = DType::f32;
  Shape shape{};
};

/// Streams tensors into a new file without holding them. The widest elements come first, then names in order, and the header is padded
/// to 8 bytes, so every tensor is aligned to its element.
class SafetensorsWriter {
 public:
  /// Fixes the layout. Throws when a name occurs twice, a shape cannot be counted, or the disk has no room for the whole file.
  SafetensorsWriter(const std::string& path, std::vector<TensorPlan> plan,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}})
      : SafetensorsWriter(path, layout(path, std::move(plan), metadata)) {}

  /// Writes the contiguous little-endian bytes of a planned tensor. Errors name the tensor.
  void write(const std::string& name, std::span<const std::byte> bytes) {
    const auto found = slots_.find(name);
    if (found == slots_.end()) fail(path_, ": tensor \"", name, "\" was not announced to the writer");
    Slot& slot = found->second;
    if (slot.written) fail(path_, ": tensor \"", name, "\" is written twice");
    if (bytes.size() != slot.bytes) fail(path_, ": tensor \"", name, "\" takes ", slot.bytes, " bytes, not ", bytes.size());
    file_.write_at(slot.offset, bytes);
    slot.written = true;
  }

  /// Makes the file appear. Throws when a planned tensor was not written; without commit nothing remains.
  void commit() {
    for (const auto& [name, slot] : slots_)
      if (!slot.written) fail(path_, ": tensor \"", name, "\" was announced but never written");
    file_.commit();
  }

 private:
  struct Slot {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    bool written = false;
  };
  struct Layout {
    std::string head{};  ///< length and header
    std::map<std::string, Slot> slots{};
    std::uint64_t size = 0;  ///< of the whole file
  };

  static Layout layout(const std::string& path, std::vector<TensorPlan> plan, const std::map<std::string, std::string>& metadata) {
    std::sort(plan.begin(), plan.end(), [](const TensorPlan& a, const TensorPlan& b) {
      return bits(a.dtype) != bits(b.dtype) ? bits(a.dtype) > bits(b.dtype) : a.name < b.name;
    });
    Layout made;
    nlohmann::ordered_json header = nlohmann::ordered_json::object();  // in the order of the data
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t end = 0;
    for (const TensorPlan& tensor : plan) {
      const auto count = element_count(tensor.shape);
      const auto size = count ? times(*count, bits(tensor.dtype)) : count;
      if (!size || *size % 8 != 0 || *size / 8 > (std::uint64_t{1} << 62) - end)
        fail(path, ": tensor \"", tensor.name, "\": shape ", text(tensor.shape), " of ", name(tensor.dtype), " has no size in bytes");
      if (tensor.name == "__metadata__") fail(path, ": a tensor cannot be called __metadata__");
      if (!made.slots.emplace(tensor.name, Slot{end, *size / 8, *size == 0}).second)
        fail(path, ": tensor \"", tensor.name, "\" is announced twice");
      header[tensor.name] = {{"dtype", name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {end, end + *size / 8}}};
      end += *size / 8;
    }
    std::string body = header.dump();
    body.resize((body.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = body.size();
    if (length > safetensors_header_limit) fail(path, ": the header would take ", length, " bytes; the format allows 100000000");
    made.head.assign(reinterpret_cast<const char*>(&length), sizeof length);
    made.head += body;
    for (auto& [name, slot] : made.slots) slot.offset += made.head.size();
    made.size = made.head.size() + end;
    return made;
  }

  SafetensorsWriter(const std::string& path, Layout made) : path_(path), slots_(std::move(made.slots)), file_(path, made.size) {
    file_.write(made.head);
  }

  std::string path_;
  std::map<std::string, Slot> slots_;
  AtomicFile file_;
};

}  // namespace ptq::io
