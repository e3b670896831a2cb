// Files made byte by byte, and the words of an error. No torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ptq/core/error.hpp>

namespace ptq::test {

/// A growing string of little-endian bytes.
struct Bytes {
  std::string data{};

  template <class Number>
  Bytes& add(Number value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& raw(const std::string& bytes) {
    data += bytes;
    return *this;
  }
  /// u64 length, then the characters: a GGUF string.
  Bytes& text(const std::string& value) { return add<std::uint64_t>(value.size()).raw(value); }
  Bytes& pad(std::size_t alignment) {
    data.resize((data.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
};

[[nodiscard]] inline std::span<const std::byte> as_bytes(const std::string& data) {
  return std::as_bytes(std::span(data.data(), data.size()));
}

inline std::filesystem::path write_file(const std::filesystem::path& path, const std::string& data) {
  std::ofstream(path, std::ios::binary).write(data.data(), static_cast<std::streamsize>(data.size()));
  return path;
}

/// A safetensors file: length, header as given, data.
[[nodiscard]] inline std::string safetensors(const std::string& header, const std::string& data) {
  return Bytes().add<std::uint64_t>(header.size()).raw(header).raw(data).data;
}

/// A GGUF file in the making.
struct Gguf {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;  ///< innermost first
    std::uint32_t type = 0;
    std::string data{};
  };
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::uint64_t pair_count = 0;
  Bytes pairs{};
  std::vector<Tensor> tensors{};

  Gguf& key(const std::string& name, std::uint32_t type) {
    ++pair_count;
    pairs.text(name).add(type);
    return *this;
  }
  Gguf& integer(const std::string& name, std::uint32_t value) {
    key(name, 4).pairs.add(value);
    return *this;
  }
  Gguf& real(const std::string& name, float value) {
    key(name, 6).pairs.add(value);
    return *this;
  }
  Gguf& text(const std::string& name, const std::string& value) {
    key(name, 8).pairs.text(value);
    return *this;
  }
  Gguf& tensor(std::string name, std::vector<std::uint64_t> dims, std::uint32_t type, std::string data) {
    tensors.push_back({std::move(name), std::move(dims), type, std::move(data)});
    return *this;
  }

  /// The whole file; `shift` falsifies the offset of the last tensor.
  [[nodiscard]] std::string bytes(std::int64_t shift = 0) const {
    Bytes file, data;
    file.raw("GGUF").add(version).add<std::uint64_t>(tensors.size()).add(pair_count).raw(pairs.data);
    for (const Tensor& tensor : tensors) {
      file.text(tensor.name).add(static_cast<std::uint32_t>(tensor.dims.size()));
      for (const std::uint64_t size : tensor.dims) file.add(size);
      const bool last = &tensor == &tensors.back();
      file.add(tensor.type).add(static_cast<std::uint64_t>(static_cast<std::int64_t>(data.data.size()) + (last ? shift : 0)));
      data.raw(tensor.data).pad(alignment);
    }
    return file.pad(alignment).raw(data.data).data;
  }
};

/// What an Error says, or "no error".
template <class Work>
[[nodiscard]] std::string error_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace ptq::test
