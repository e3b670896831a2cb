// Models and reference values of the tests, as tensors.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <ptq/io/checkpoint.hpp>
#include <ptq/io/hdf5.hpp>
#include <ptq/model/transformer.hpp>

#include "data.hpp"

namespace ptq::test {

/// A checkpoint as the look-up that models take.
inline TensorLookup lookup(const std::shared_ptr<const io::Checkpoint>& file, at::ScalarType dtype = at::kFloat) {
  return {[file](const std::string& name) { return file->has(name); },
          [file, dtype](const std::string& name, at::IntArrayRef shape) { return file->load(name, shape, dtype); }};
}

/// A model in a file or folder.
inline Transformer open_model(const fs::path& path, at::ScalarType dtype = at::kFloat) {
  const auto file = std::make_shared<const io::Checkpoint>(io::Checkpoint::open(path.string()));
  return Transformer(file->config(), lookup(file, dtype), dtype);
}

/// A dataset of numbers in its shape: float32, or float64 where it is stored so.
inline Tensor values(const io::Hdf5Reader& file, const std::string& dataset) {
  const auto v = file.read<double>(dataset);
  return at::tensor(v, at::kDouble).view(file.info(dataset).shape);
}

/// A dataset of token ids in its shape.
inline Tensor ids(const io::Hdf5Reader& file, const std::string& dataset) {
  const auto v = file.read<int64_t>(dataset);
  return at::tensor(v, at::kLong).view(file.info(dataset).shape);
}

/// ‖a − b‖ / ‖b‖.
inline double relative_error(const Tensor& a, const Tensor& b) {
  const Tensor wide = b.to(at::kDouble);
  return ((a.to(at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

/// max |a − b| / max |b|.
inline double greatest_error(const Tensor& a, const Tensor& b) {
  const Tensor wide = b.to(at::kDouble);
  return ((a.to(at::kDouble) - wide).abs().max() / wide.abs().max()).item<double>();
}

}  // namespace ptq::test
