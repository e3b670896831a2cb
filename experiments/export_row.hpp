// --export and --verify of one row.
#pragma once

#include <string>

#include <ptq/run/store.hpp>

#include "command_line.hpp"
#include "inputs.hpp"
#include "progress.hpp"

namespace ptq::driver {

inline void check_export(const Options&, const std::string&) {}

[[nodiscard]] inline std::string export_row(const Options&, const Model&, const std::string&, const Precision&, const RunStore&, const std::vector<EvaluationText>&, Progress&) {
  refuse("--export is not there yet");
}

}  // namespace ptq::driver
