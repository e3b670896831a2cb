// Golden files of learnable equivalent transformations: names, parameters, one block.
#pragma once

#include <memory>
#include <string>

#include <ptq/smoothing/learned_log.hpp>

#include "toy_model.hpp"

namespace ptq::test {

/// The group's name in the golden files, or nothing.
inline std::string let_name(const std::string& key) {
  const std::string place = key.substr(2), kind = key.starts_with("s.") ? "scale" : "shift";
  const std::string set = place == "attention_in"    ? "qkv"
                          : place == "attention_out" ? "out"
                          : place == "mlp_in"        ? "fc1"
                          : place == "query_key"     ? "qkt"
                                                     : "";
  return set.empty() ? "" : set + "_smooth_" + kind;
}

/// "q_proj" of "self_attn.q_proj".
inline std::string short_name(const std::string& site) { return site.substr(site.rfind('.') + 1); }

/// The state in `at`, whose sizes are those of `like`.
inline NamedTensors let_state(const io::Hdf5Reader& file, const std::string& at, at::ScalarType dtype, const NamedTensors& like) {
  NamedTensors state;
  for (const auto& [key, t] : like) state[key] = io::get(file, at + "/" + let_name(key)).to(dtype).clone();
  return state;
}

/// Maxima and middles of the file, by input group; groups that no smoothing reads stay empty.
inline std::vector<Statistics> let_statistics(const io::Hdf5Reader& file, const Layout& layout, const std::string& prefix = "") {
  std::vector<Statistics> all;
  for (const InputGroup& g : layout.groups) {
    Statistics s;
    for (const int site : g.sites) {
      const std::string name = prefix + layout.sites[static_cast<size_t>(site)].name;
      if (file.exists("in/act_scales/" + name)) s.absmax = io::get(file, "in/act_scales/" + name);
      if (file.exists("in/act_shifts/" + name)) s.middle = io::get(file, "in/act_shifts/" + name);
    }
    if (!s.middle.defined() && s.absmax.defined()) s.middle = at::zeros_like(s.absmax);
    all.push_back(s);
  }
  return all;
}

/// As the released codes configure it: untied, shifts at zero or in the middle, the start of the method.
inline LearnedLog let_policy(const io::Hdf5Reader& file, const std::string& method, Family family) {
  LearnedLog p{.tie_rotary = false};
  if (method == "omniquant") {
    p.start_at = SmoothStart::smoothquant_one_linear, p.alpha = file.attribute<double>("/", "alpha");
    if (family != Family::opt) p.shifts = Shifts::biased;
  }
  return p;
}

}  // namespace ptq::test
