// Tensors over mapped files: they are as any other, and their pages may be given back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include <ptq/core/tensor.hpp>
#include <ptq/io/mapped_file.hpp>

namespace ptq::io {
namespace detail {

using MapOwner = std::shared_ptr<const void>;

inline void release_map(void* owner) { delete static_cast<MapOwner*>(owner); }

}  // namespace detail

/// A tensor over mapped bytes, which `owner` keeps mapped as long as a view of it lives. Where the map is read-only, so is the tensor.
[[nodiscard]] inline Tensor tensor_over(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, at::IntArrayRef sizes,
                                        at::ScalarType type) {
  const Tensor t = at::for_blob(const_cast<std::byte*>(bytes.data()), sizes)
                       .context(new detail::MapOwner(std::move(owner)), detail::release_map)
                       .options(at::dtype(type))
                       .make_tensor();
  if (t.nbytes() > bytes.size()) fail("a tensor ", shape_text(t), " does not fit the ", bytes.size(), " bytes that are mapped");
  return t;
}

/// Gives back the memory under a contiguous part of a mapped tensor; its values stay in the file and are paged in when they are read.
/// Nothing happens to any other tensor.
inline void forget(const Tensor& part) {
  if (!part.defined() || part.nbytes() == 0 || !part.is_contiguous()) return;
  if (part.storage().data_ptr().cast_context<detail::MapOwner>(detail::release_map) == nullptr) return;
  forget_pages({static_cast<const std::byte*>(part.const_data_ptr()), part.nbytes()});
}

}  // namespace ptq::io
