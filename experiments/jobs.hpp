// What will run: every row of an experiment at every choice of formats, with all that can be known before the first forward checked.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ptq/model/transformer.hpp>

#include "command_line.hpp"
#include "driver.hpp"
#include "progress.hpp"

namespace ptq::driver {

/// One row as it will run.
struct Job {
  std::string label;
  Stages stages;
  Precision precision;
  bool exported = false;
  std::string digest;  ///< of all that changes figures
  std::string blocks;  ///< of all that changes committed blocks: an adaptation does not
};

/// "gptq int4:g64", "smoothquant int8:channel:sym, activations int8:token:sym".
inline std::string with_formats(const std::string& name, const Precision& p) {
  std::string text = name;
  if (p.weights.active() || !p.activations.active()) text += " " + p.weights.brief(Role::weight);
  if (p.activations.active()) text += ", activations " + p.activations.brief(Role::activation);
  return text;
}

/// Everything about a row that can be known before the first forward.
inline void check(const Job& job, const Transformer& model) {
  ptq::check(job.stages, model, job.precision);
  (void)group_count(job.precision.weight("head"), model.config().embedding_dim, "head");
  if (const Scheme head = job.precision.weight("head"); head.kind == NumberKind::minifloat && head.bits > 8)
    refuse("head: codes of weights have 8 bits at most, which is too few for ", head.text());
  for (const auto& [pattern, scheme] : job.precision.overrides) {
    bool met = pattern == "head";
    for (int64_t b = 0; b < model.blocks() && !met; ++b)
      for (const Site& site : model.layout().sites) met = met || glob_match(pattern, cat("blocks.", b, ".", site.name));
    if (!met)
      refuse("--override: '", pattern, "' matches no linear of this model; places are head and blocks.<0 to ", model.blocks() - 1,
             ">.<linear>, such as blocks.0.", model.layout().sites[0].name);
  }
}

/// Rows × weight formats × activation formats, without what is redundant; an entry of a sweep that is refused is left out too, a row by
/// name is an error.
inline std::vector<Job> plan(const Experiment& experiment, const Options& o, const Transformer& model, Progress& progress) {
  std::vector<Job> jobs;
  std::set<std::string> seen;
  std::map<std::string, std::vector<std::string>> left_out;  // reason → rows
  bool corrected = false;
  const auto choices = [](const std::vector<std::string>& given, const std::optional<std::string>& own, const std::string& usual) {
    return !given.empty() ? given : own ? std::vector<std::string>{*own} : split(usual, ',');
  };
  for (const Row& row : experiment.rows) {
    if (o.quick) row.shorten();
    for (Field& f : row.fields())
      if (const auto found = o.fields.find(f.path); found != o.fields.end()) f.set(found->second);
    for (const std::string& weights : choices(o.weights, row.formats.weights, experiment.weights))
      for (const std::string& activations : choices(o.activations, row.formats.activations, experiment.activations)) {
        Job job;
        job.precision = o.slots;
        job.precision.weights = Scheme::parse(weights, "--weights", Role::weight);
        job.precision.activations = Scheme::parse(activations, "--activations", Role::activation);
        for (size_t i = 0; i < Precision::operand_names.size(); ++i) {
          if (!o.as_activations[i]) continue;
          if (job.precision.activations.calibrated)
            refuse("--attention ", Precision::operand_names[i], "=activations: operands of attention have no static ranges, so not ",
                   job.precision.activations.text(), "; give --attention a format of its own, or none");
          job.precision.attention[i] = job.precision.activations;
        }
        job.stages = row.stages();
        if (!job.stages.correction->active()) job.precision.factors = job.precision.branch = {};
        corrected = corrected || job.stages.correction->active();
        job.label = with_formats(row.name.empty() ? job.stages.label : row.name, job.precision);
        job.exported = row.exported;
        const Reason no = row.refuses(job.precision);
        if (!no.empty() && !row.swept) refuse(job.label, ": ", no);
        Reason why = no.empty() ? row.redundant(job.precision) : no;
        if (why.empty() && !seen.insert(job.label).second) why = "the same description as another row";
        if (!why.empty()) {
          left_out[why].push_back(job.label);
          continue;
        }
        check(job, model);
        jobs.push_back(std::move(job));
      }
  }
  for (const auto& [why, labels] : left_out)
    progress.say(cat("left out: ", labels.front(), labels.size() > 1 ? cat(" and ", labels.size() - 1, " more") : "", ": ", why));
  if (o.factors_given && !corrected)
    refuse("--factors, --branch: no recipe here has low-rank factors; the drivers lqer, l2qer and qera do");
  if (jobs.empty()) refuse("no row is left to run");
  return jobs;
}

}  // namespace ptq::driver
