// The command line of every driver, read strictly: CLI11 splits it, our own parsers judge the values.
#pragma once

#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ptq/core/precision.hpp>
#include <ptq/core/text.hpp>
#include <ptq/io/corpus/sampling.hpp>
#include <ptq/io/corpus/windows.hpp>

#include "driver.hpp"
#include "inputs.hpp"
#include "program.hpp"

namespace ptq::driver {

/// The command line as values; empty optionals follow the driver.
struct Options {
  std::string model;
  std::vector<std::string> weights, activations;  ///< alternatives, each a row of its own
  std::string calibrate;
  std::vector<std::string> evaluate;
  io::Protocol protocol = io::Protocol::gptq;
  io::Sampling sampling = io::Sampling::gptq;
  std::filesystem::path results = "results.h5", cache, json, exported;
  std::string export_dtype = "f32", export_factors = "merged";
  bool verify = false, cache_all = true, cache_chosen = false, resume = false, allow_overlap = false, quick = false, quiet = false,
       dry_run = false, mapped = false;
  uint64_t seed = 0;
  int threads = 0;
  std::string dtype = "f32", bos = "default";
  Precision slots;                            ///< all but weights and activations, which are per row
  bool factors_given = false;                 ///< a format for factors or their branch, which asks for a correction
  std::array<bool, 4> as_activations{};       ///< operands of attention whose format is that of --activations
  std::map<std::string, std::string> fields;  ///< policy fields that were given
};

namespace detail {

/// "v=int8:token,k=int8" → pairs; keys must be among `known`.
inline std::vector<std::pair<std::string, std::string>> assignments(const std::string& text, const std::string& option,
                                                                    const std::vector<std::string>& known) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos) refuse(option, ": '", part, "' is not NAME=FORMAT");
    const std::string key = part.substr(0, equals);
    if (!known.empty() && std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (const auto& k : known) names += (names.empty() ? "" : ", ") + k;
      refuse(option, ": '", key, "' is none of ", names);
    }
    all.emplace_back(key, part.substr(equals + 1));
  }
  return all;
}

/// Of two formats for one place the later holds, and stands last.
inline void put(std::vector<std::pair<std::string, Scheme>>& formats, const std::string& place, const Scheme& scheme) {
  std::erase_if(formats, [&](const auto& known) { return known.first == place; });
  formats.emplace_back(place, scheme);
}

inline io::Sampling parse_sampling(const std::string& text) {
  for (const auto s : {io::Sampling::gptq, io::Sampling::flexround, io::Sampling::lqer})
    if (text == io::name_of(s)) return s;
  refuse("--sampling: '", text, "' is none of gptq, flexround, lqer");
}

}  // namespace detail

/// Parses; prints help and exits 0 when asked. Throws an Error about arguments otherwise.
inline Options parse(int argc, char** argv, const Experiment& experiment) {
  Options o;
  CLI::App app(experiment.about);
  std::vector<std::string> weights, activations, overrides, outputs, attention;
  std::string protocol = "gptq", sampling = "gptq", seed = "0", threads = "0", stream, streams = "memory", device = "cpu",
              bias = experiment.bias, factors = experiment.factors, branch = experiment.branch;
  const auto add_path = [&app](const char* option, std::filesystem::path& to, const char* help) {
    app.add_option(option, to, help)->check([](const std::string& text) {
      return text.empty() ? std::string("a path is missing") : std::string();
    });
  };
  o.calibrate = experiment.calibrate;
  app.add_option("--model", o.model, "a .gguf file or a Hugging Face folder")->required();
  app.add_option(
         "--weights", weights,
         "weight formats, one row each: int4:g64, int8:channel:sym, mxint4:b16, float4:e2:b32, none (default " + experiment.weights + ")")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option(
         "--activations", activations,
         "formats of the inputs of linears: none, int8[:token|:tensor|:static][:sym], mxint8:b16 (default " + experiment.activations + ")")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--outputs", outputs, "formats of outputs of linears: v=int8:token,k=int8:token")->allow_extra_args(false);
  app.add_option("--attention", attention,
                 "formats of what attention multiplies: q=FORMAT,k=FORMAT,p=FORMAT,v=FORMAT; the format activations is that of "
                 "--activations (default " +
                     (experiment.attention.empty() ? "none" : experiment.attention) + ")")
      ->allow_extra_args(false);
  app.add_option("--bias", bias, "format of the biases of quantized linears, mxint8:b16 (default " + experiment.bias + ")");
  app.add_option("--factors", factors, "format of low-rank factors: mxint8:b16, int8:channel:sym (default " + experiment.factors + ")");
  app.add_option("--branch", branch,
                 "format of x A and of (x A) B beside a corrected linear: mxint8:b16 (default " + experiment.branch + ")");
  app.add_option("--override", overrides, "'blocks.0.*=int8:channel' or 'head=int8:channel'; repeatable, the last match wins")
      ->allow_extra_args(false);
  app.add_option("--calibrate", o.calibrate, "text of the calibration samples, NAME|FILE[:NxL] (default " + experiment.calibrate + ")");
  app.add_option("--sampling", sampling, "gptq | flexround | lqer");
  app.add_option("--evaluate", o.evaluate, "text to evaluate, NAME|FILE[:NxL]; repeatable (default " + experiment.evaluate + ")")
      ->allow_extra_args(false);
  app.add_option("--protocol", protocol, "gptq | tail | lqer-shards");
  app.add_option("--bos", o.bos,
                 "default | none: what the tokenizer puts before a text (BOS), or nothing; calibration and evaluation alike");
  add_path("--results", o.results, "where results go (default results.h5)");
  add_path("--cache", o.cache, "folder of calibration caches (default RESULTS.d/cache)");
  app.add_option("--cache-stream", stream, "all | last: keep the inputs of all blocks, or recompute (default: all below 8 GB)");
  app.add_option("--streams", streams, "memory | mapped: where activations of all samples live; mapped: files in the cache's folder");
  add_path("--export", o.exported, "write the quantized model as a Hugging Face folder");
  app.add_option("--export-dtype", o.export_dtype, "f32 | bf16 | f16: type of exported weights (default f32)");
  app.add_option("--export-factors", o.export_factors,
                 "merged | apart: factors of corrections added to exported weights, or in a file of their own (default merged)");
  app.add_flag("--verify", o.verify, "read the export back and compare");
  app.add_flag("--resume", o.resume, "insist that there is an interrupted run to go on with");
  app.add_flag("--allow-overlap", o.allow_overlap, "calibrate and evaluate on the same text");
  app.add_flag("--quick", o.quick, "schedule, samples and texts scaled down to minutes");
  app.add_option("--seed", seed, "of every random choice (default 0)");
  app.add_option("--threads", threads, "0: all cores");
  app.add_option("--dtype", o.dtype, "f32 | f64: type of the computation");
  app.add_option("--device", device, "cpu | cuda");
  add_path("--json", o.json, "also write the figures as JSON");
  app.add_flag("--quiet", o.quiet, "nothing but the table");
  app.add_flag("--dry-run", o.dry_run, "say what would be done and what it needs");
  std::map<std::string, std::pair<std::string, std::string>> known;  // path → text, what it expects
  for (const Row& row : experiment.rows)
    for (const Field& f : row.fields()) known.emplace(f.path, std::pair(f.text, f.expects));
  std::map<std::string, std::string> given;
  for (const auto& [field, about] : known)
    app.add_option("--" + field, given[field], about.second + " (default " + about.first + ")")->group("Policies");
  app.footer(
      "A policy field applies to every recipe that owns it. Exit status: 0 done, 1 contents of files and failures, 2 arguments, 130 "
      "interrupted.");
  read_arguments(app, argc, argv);
  for (const auto& [field, text] : given)
    if (app.count("--" + field) > 0) o.fields[field] = text;

  o.weights = weights, o.activations = activations;
  o.protocol = io::protocol_of(protocol);
  o.sampling = detail::parse_sampling(sampling);
  (void)parse_bos(o.bos);
  o.seed = parse_integer<uint64_t>(seed, "--seed", 0, std::numeric_limits<int64_t>::max());
  o.threads = parse_integer<int>(threads, "--threads", 0, 4096);
  if (device == "cuda")
    refuse(
        "--device: cuda needs a libtorch with CUDA (PyTorch's cu126 or cu128 wheel, named by Torch_DIR when configuring) and a CUDA "
        "toolkit; this build has the CPU's; use --device cpu");
  if (device != "cpu") refuse("--device: '", device, "' is neither cpu nor cuda");
  o.slots.bias = Scheme::parse(bias, "--bias", Role::activation);
  o.slots.factors = Scheme::parse(factors, "--factors", Role::weight);
  o.slots.branch = Scheme::parse(branch, "--branch", Role::activation);
  for (const auto& [option, scheme] : {std::pair{"--bias", &o.slots.bias}, {"--branch", &o.slots.branch}})
    if (scheme->calibrated) refuse(option, ": there are no static ranges here; use :token, :tensor or mxint8:b16");
  o.factors_given = app.count("--factors") + app.count("--branch") > 0;
  if (attention.empty() && !experiment.attention.empty()) attention = {experiment.attention};
  if (!stream.empty() && stream != "all" && stream != "last") refuse("--cache-stream: '", stream, "' is neither all nor last");
  o.cache_all = stream != "last", o.cache_chosen = !stream.empty();
  if (streams != "memory" && streams != "mapped") refuse("--streams: '", streams, "' is neither memory nor mapped");
  o.mapped = streams == "mapped";
  if (o.export_dtype != "f32" && o.export_dtype != "bf16" && o.export_dtype != "f16")
    refuse("--export-dtype: '", o.export_dtype, "' is none of f32, bf16, f16");
  if (o.export_factors != "merged" && o.export_factors != "apart")
    refuse("--export-factors: '", o.export_factors, "' is neither merged nor apart");
  if (o.verify && o.exported.empty()) refuse("--verify needs --export DIR");
  for (const std::string& text : outputs)
    for (const auto& [key, format] : detail::assignments(text, "--outputs", {"q", "k", "v", "o"}))
      detail::put(o.slots.outputs, key == "o" ? "self_attn.o_proj" : "self_attn." + key + "_proj",
                  Scheme::parse(format, "--outputs " + key, Role::activation));
  for (const std::string& text : attention)
    for (const auto& [key, format] : detail::assignments(text, "--attention", {"q", "k", "p", "v"}))
      for (size_t i = 0; i < Precision::operand_names.size(); ++i)
        if (Precision::operand_names[i] == key) {
          o.as_activations[i] = format == "activations";
          o.slots.attention[i] = o.as_activations[i] ? Scheme{} : Scheme::parse(format, "--attention " + key, Role::activation);
          if (o.slots.attention[i].calibrated)
            refuse("--attention ", key, ": operands of attention have no static ranges; use :token or :tensor");
        }
  for (const std::string& text : overrides)
    for (const auto& [pattern, format] : detail::assignments(text, "--override", {})) {
      if (pattern != "head" && !pattern.starts_with("blocks.") && pattern.find('*') == std::string::npos)
        refuse("--override: '", pattern, "' matches nothing; places are head and blocks.<i>.<linear>, such as blocks.0.self_attn.q_proj");
      detail::put(o.slots.overrides, pattern, Scheme::parse(format, "--override " + pattern, Role::weight));
    }
  if (o.evaluate.empty()) o.evaluate = {experiment.evaluate};
  if (o.cache.empty()) o.cache = std::filesystem::path(o.results.string() + ".d") / "cache";
  return o;
}

}  // namespace ptq::driver
