// Rotary settings of a Hugging Face config.json in all their spellings: rope_theta, rope_scaling (type, rope_type), rope_parameters.
#pragma once

#include <string>

#include <ptq/core/error.hpp>
#include <ptq/io/config_fields.hpp>
#include <ptq/io/model_config.hpp>

namespace ptq::io {

/// Fills rope_theta and rope; max_positions must be set. An unknown kind, a partial rotation or settings per layer type throw.
inline void read_rope(const ConfigFields& fields, ModelConfig& config) {
  const auto object = [&](const char* field) {
    const json* value = fields.find(field);
    return value != nullptr && value->is_object() && value->empty() ? nullptr : value;
  };
  const json *scaling = object("rope_scaling"), *parameters = object("rope_parameters");
  const char* name = scaling != nullptr ? "rope_scaling" : "rope_parameters";
  static const json nothing = json::object();
  const json& chosen = scaling != nullptr ? *scaling : (parameters != nullptr ? *parameters : nothing);
  const ConfigFields rope(chosen, cat(fields.where(), ": ", name));
  for (const auto& [key, value] : chosen.items())
    if (value.is_object()) fail(rope.where(), " differs between layer types (", key, "); such models are not supported");

  config.rope_theta = rope.real("rope_theta").value_or(fields.real("rope_theta").value_or(10000.0));
  if (scaling != nullptr && parameters != nullptr && !rope.has("rope_theta") && !fields.has("rope_theta"))
    config.rope_theta = ConfigFields(*parameters, fields.where() + ": rope_parameters").real("rope_theta").value_or(10000.0);
  for (const ConfigFields* at : {&rope, &fields})
    if (const double part = at->real("partial_rotary_factor").value_or(1.0); part != 1.0)
      fail(at->where(), ": partial_rotary_factor ", part, " is not supported, only whole heads are turned");

  const auto kind = rope.text("rope_type").value_or(rope.text("type").value_or("default"));
  const auto needed = [&](const char* field) {
    const auto value = rope.real(field);
    if (!value) fail(rope.where(), ": ", field, " is missing, kind ", kind, " needs it");
    return *value;
  };
  if (kind == "default") {
    if (rope.has("factor") && !rope.has("rope_type") && !rope.has("type"))
      fail(rope.where(), " has a factor but names no kind; give rope_type linear, dynamic or llama3");
    return;
  }
  if (kind == "linear") {
    config.rope = {RopeKind::linear, needed("factor")};
  } else if (kind == "dynamic") {
    config.rope = {RopeKind::dynamic, needed("factor")};
    config.rope.original = config.max_positions;
  } else if (kind == "llama3") {
    config.rope = {RopeKind::llama3, needed("factor"), needed("low_freq_factor"), needed("high_freq_factor")};
    config.rope.original = fields.integer("original_max_position_embeddings")
                               .value_or(rope.integer("original_max_position_embeddings").value_or(config.max_positions));
  } else {
    fail(rope.where(), ": rotary scaling of kind \"", kind, "\" is not supported; supported are default, linear, dynamic and llama3");
  }
}

}  // namespace ptq::io
