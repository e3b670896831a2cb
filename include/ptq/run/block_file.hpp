// A committed block on disk: packed codes, grids, norms, formats. The schema is in docs/formats.md.
#pragma once

#include <filesystem>
#include <string>

#include <ptq/core/packing.hpp>
#include <ptq/io/hdf5_tensor.hpp>
#include <ptq/quantized_block.hpp>
#include <ptq/run/codebook_file.hpp>

namespace ptq {
namespace detail {

inline constexpr int64_t block_schema = 1;

inline void put_correction(io::Hdf5Writer& f, const std::string& at, const LowRank& correction) {
  if (!correction.defined()) return;
  io::put(f, at + "/factor_a", correction.a);
  io::put(f, at + "/factor_b", correction.b);
  f.attribute(at, "factor_bits", correction.bits);
}

inline void get_correction(const io::Hdf5Reader& f, const std::string& at, const Site& site, LowRank& correction) {
  if (!f.exists(at + "/factor_a")) return;
  const Tensor a = correction.a = io::get(f, at + "/factor_a"), b = correction.b = io::get(f, at + "/factor_b");
  correction.bits = f.attribute<double>(at, "factor_bits");
  if (a.dim() != 2 || b.dim() != 2 || a.size(0) != site.in || b.size(1) != site.out || a.size(1) != b.size(0))
    fail(f.path().string(), ": ", at, ": factors of ", shape_text(a), " and ", shape_text(b), " do not fit (", site.out, ", ", site.in,
         ")");
}

inline void put_linear(io::Hdf5Writer& f, const std::string& at, const QuantizedLinear& l) {
  f.group(at);
  io::put(f, at + "/bias", l.bias);
  if (!l.quantized()) {
    f.attribute(at, "format", "none");
    io::put(f, at + "/dense", l.dense);
    return;
  }
  const Grid& g = l.grid;
  f.attribute(at, "format", g.scheme.text());
  f.attribute(at, "columns", l.codes.size(1));
  if (l.codebook.defined()) {
    put_levels(f, at, l);
    put_correction(f, at, l.correction);
    return;
  }
  f.attribute(at, "lowest", static_cast<int64_t>(g.lowest));
  f.attribute(at, "highest", static_cast<int64_t>(g.highest));
  f.attribute(at, "permuted", l.permuted);
  io::put(f, at + "/codes", pack(l.codes, g.scheme.bits));
  io::put(f, at + "/scale", g.scale);
  io::put(f, at + "/zero", g.zero);
  io::put(f, at + "/group_of", g.group_of);
  put_correction(f, at, l.correction);
}

inline QuantizedLinear get_linear(const io::Hdf5Reader& f, const std::string& at, const Site& site) {
  QuantizedLinear l;
  l.bias = io::get_if(f, at + "/bias");
  const std::string where = f.path().string() + ": " + at;
  const auto format = Scheme::parse(f.attribute<std::string>(at, "format"), where, Role::weight);
  const auto shaped = [&](const Tensor& t) {
    if (t.dim() != 2 || t.size(0) != site.out || t.size(1) != site.in)
      fail(where, " is ", shape_text(t), ", the model has (", site.out, ", ", site.in, ")");
  };
  if (!format.active()) {
    l.dense = io::get(f, at + "/dense");
    shaped(l.dense);
    return l;
  }
  if (format.bits > 8) fail(where, ": codes of weights have 8 bits at most, the format is ", format.text());
  l.grid.scheme = format;
  if (f.exists(at + "/levels")) {
    get_levels(f, at, where, site, l);
    get_correction(f, at, site, l.correction);
    return l;
  }
  l.grid.lowest = static_cast<int>(f.attribute<int64_t>(at, "lowest"));
  l.grid.highest = static_cast<int>(f.attribute<int64_t>(at, "highest"));
  l.grid.scale = io::get(f, at + "/scale");
  l.grid.zero = io::get(f, at + "/zero");
  l.grid.group_of = io::get_if(f, at + "/group_of");
  l.permuted = f.attribute<bool>(at, "permuted");
  l.codes = unpack(io::get(f, at + "/codes"), f.attribute<int64_t>(at, "columns"), format.bits);
  shaped(l.codes);
  if (format.kind == NumberKind::minifloat) {
    l.grid.levels = minifloat_levels(format.bits, format.exponent_bits, format.exponent_bias).to(l.grid.scale.scalar_type());
    if (l.grid.lowest != 0 || l.grid.highest + 1 != l.grid.levels.size(0) || l.codes.max().item<int>() > l.grid.highest)
      fail(where, ": codes lie beyond the ", l.grid.levels.size(0), " values of ", format.text());
  }
  const int64_t groups = format.granularity == Granularity::group ? group_count(format, site.in, where) : 1;
  const int64_t rows = format.granularity == Granularity::tensor ? 1 : site.out;
  for (const Tensor& t : {l.grid.scale, l.grid.zero})
    if (t.dim() != 2 || t.size(0) != rows || t.size(1) != groups)
      fail(where, ": a grid of ", shape_text(t), " does not fit the format ", format.text());
  if (l.grid.group_of.defined() &&
      (l.grid.group_of.numel() != site.in || l.grid.group_of.lt(0).any().item<bool>() || l.grid.group_of.ge(groups).any().item<bool>()))
    fail(where, ": group_of names a group that is not there");
  get_correction(f, at, site, l.correction);
  return l;
}

inline void put_format(io::Hdf5Writer& f, const std::string& at, const Format& format) {
  f.group(at);
  f.attribute(at, "format", format.scheme.text());
  io::put(f, at + "/scale", format.fixed.scale);
  io::put(f, at + "/zero", format.fixed.zero);
}

inline Format get_format(const io::Hdf5Reader& f, const std::string& at) {
  Format format;
  format.scheme = Scheme::parse(f.attribute<std::string>(at, "format"), f.path().string() + ": " + at, Role::activation);
  if (format.scheme.calibrated) {
    format.fixed.scheme = format.scheme;
    const auto codes = kernels::code_range(convention(format.scheme));
    format.fixed.lowest = codes.lo, format.fixed.highest = codes.hi;
    format.fixed.scale = io::get(f, at + "/scale"), format.fixed.zero = io::get(f, at + "/zero");
  }
  return format;
}

}  // namespace detail

/// Writes the block so that equal blocks give equal bytes. The rename commits it.
inline void save_block(const std::filesystem::path& path, const QuantizedBlock& b, const Layout& layout) {
  io::Hdf5Writer f;
  f.attribute("/", "schema", detail::block_schema);
  for (size_t i = 0; i < layout.sites.size(); ++i) detail::put_linear(f, "linears/" + layout.sites[i].name, b.linears[i]);
  f.group("norms");
  for (size_t i = 0; i < layout.norms.size(); ++i) {
    io::put(f, "norms/" + layout.norms[i] + "/weight", b.norms[i].weight);
    io::put(f, "norms/" + layout.norms[i] + "/bias", b.norms[i].bias);
  }
  io::put(f, "norms/query/weight", b.query_norm);
  io::put(f, "norms/key/weight", b.key_norm);
  for (size_t g = 0; g < layout.groups.size(); ++g) {
    const std::string at = "inputs/" + layout.groups[g].name;
    detail::put_format(f, at, b.formats.inputs[g]);
    if (g < b.input_scale.size()) io::put(f, at + "/divisor", b.input_scale[g]);
  }
  for (size_t i = 0; i < layout.sites.size(); ++i) detail::put_format(f, "outputs/" + layout.sites[i].name, b.formats.outputs[i]);
  f.group("attention");
  for (size_t i = 0; i < b.formats.attention.size(); ++i)
    f.attribute("attention", std::string(Precision::operand_names[i]), b.formats.attention[i].text());
  if (b.formats.branch.active()) f.attribute("attention", "branch", b.formats.branch.text());
  for (const auto& [name, t] : b.state) io::put(f, "state/" + name, t);
  f.save(path);
}

/// Reads it back; throws, naming file and object, when it does not fit the layout.
[[nodiscard]] inline QuantizedBlock load_block_file(const std::filesystem::path& path, const Layout& layout) {
  const io::Hdf5Reader f(path, io::Hdf5Origin::ours);
  if (f.attribute<int64_t>("/", "schema") != detail::block_schema)
    fail(path.string(), ": block schema ", f.attribute<int64_t>("/", "schema"), " is not ", detail::block_schema);
  QuantizedBlock b;
  for (const Site& site : layout.sites) b.linears.push_back(detail::get_linear(f, "linears/" + site.name, site));
  for (const std::string& name : layout.norms)
    b.norms.push_back({io::get_if(f, "norms/" + name + "/weight"), io::get_if(f, "norms/" + name + "/bias")});
  b.query_norm = io::get_if(f, "norms/query/weight"), b.key_norm = io::get_if(f, "norms/key/weight");
  for (const InputGroup& group : layout.groups) {
    b.formats.inputs.push_back(detail::get_format(f, "inputs/" + group.name));
    b.input_scale.push_back(io::get_if(f, "inputs/" + group.name + "/divisor"));
  }
  for (const Site& site : layout.sites) b.formats.outputs.push_back(detail::get_format(f, "outputs/" + site.name));
  for (size_t i = 0; i < b.formats.attention.size(); ++i)
    b.formats.attention[i] =
        Scheme::parse(f.attribute<std::string>("attention", std::string(Precision::operand_names[i])), path.string(), Role::activation);
  if (f.has_attribute("attention", "branch"))
    b.formats.branch = Scheme::parse(f.attribute<std::string>("attention", "branch"), path.string(), Role::activation);
  if (f.exists("state"))
    for (const std::string& name : f.datasets("state")) b.state[name] = io::get(f, "state/" + name);
  return b;
}

}  // namespace ptq
