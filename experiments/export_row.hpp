// --export and --verify of one row.
#pragma once

#include <filesystem>
#include <string>

#include <ptq/export/hugging_face.hpp>
#include <ptq/export/verify.hpp>
#include <ptq/quantized_head.hpp>
#include <ptq/run/store.hpp>

#include "command_line.hpp"
#include "inputs.hpp"
#include "progress.hpp"

namespace ptq::driver {

/// What can be known of an export before anything is computed.
inline void check_export(const Options& o, const Model& model) {
  require_export_folder(o.exported, std::filesystem::path(model.files->files().front()).parent_path());
}

/// Writes the row's model, reads it back when asked, and returns where it lies.
[[nodiscard]] inline std::string export_row(const Options& o, const Model& model, const std::string& label, const Precision& precision,
                                            const RunStore& store, const std::vector<EvaluationText>& texts, Progress& progress) {
  ExportOptions options;
  options.dtype = o.export_dtype == "bf16" ? io::DType::bf16 : o.export_dtype == "f16" ? io::DType::f16 : io::DType::f32;
  options.factors_apart = o.export_factors == "apart";
  options.recipe = label;
  options.provenance = precision.slots();
  options.provenance.emplace_back("seed", std::to_string(o.seed));
  options.head = quantized_head(model.transformer->load_head().weight, precision.weight("head"));
  options.on_block = [&](int64_t b) { progress.at(b, "export"); };
  const CommittedBlocks blocks = [&](int64_t b) { return store.block(b); };
  progress.begin("export to " + o.exported.string());
  export_hugging_face(*model.files, blocks, o.exported, options);
  progress.end("written");
  if (o.verify) {
    progress.begin("verify " + o.exported.string());
    std::vector<Tensor> windows;
    for (const Tensor& t : texts.front().windows) windows.push_back(t.narrow(0, 0, std::min<int64_t>(t.size(0), 8)));
    const ExportCheck check = verify_export(*model.files, blocks, o.exported, windows, options);
    if (!check.passed()) fail(o.exported.string(), ": read back, the model is not the one that was written: ", check.text());
    progress.end(check.text());
  }
  return std::filesystem::absolute(o.exported).string();
}

}  // namespace ptq::driver
