// The members of every axis. A new member is added here, and every law of its axis is tested on it.
#pragma once

#include <tuple>
#include <vector>

#include <ptq/adaptation/episodic_tta.hpp>
#include <ptq/adaptation/tta.hpp>
#include <ptq/loss/aug.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/recipe.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/smoothing/chain.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/smoothing/static_log.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptaq.hpp>
#include <ptq/solver/gptq.hpp>

#include "examples/equalize.hpp"
#include "toys.hpp"

namespace ptq::test {

using Roundings = std::tuple<Nearest, FlexRound, Lrq, LearnedClip, ToyDivisor>;
using Smoothings = std::tuple<NoSmoothing, SmoothQuant, StaticLog, LearnedLog, Chain<SmoothQuant, LearnedLog>, Chain<LearnedLog, StaticLog>,
                              Equalize>;  // the last is the example of docs/adding_a_policy.md
using Losses = std::tuple<Mse, Nlc, Sum<Mse, Nlc>, Sum<Mse, Aug<>, Aug<Nlc>>, Aug<>>;
using Solvers = std::tuple<Direct, Gptq, Gptaq, Awrq, Claq>;
using Corrections = std::tuple<NoCorrection>;
using Adaptations = std::tuple<NoAdaptation, Tta, EpisodicTta>;

/// The values of a policy on which laws are tested: its defaults, and others where they take another path.
template <class P>
struct Variants {
  static std::vector<P> all() { return {P{}}; }
};

template <>
struct Variants<FlexRound> {
  static std::vector<FlexRound> all() { return {{}, {.step_rate = 1e-3, .row_factor = false}, {.step_rate = 0, .bound = 0.2}}; }
};

template <>
struct Variants<Lrq> {
  static std::vector<Lrq> all() {
    return {{},
            {.ranks = RankRule::fixed, .rank = 1},
            {.ranks = RankRule::fixed, .rank = 3, .row_factor = false, .column_factor = false},
            {.step_rate = 0, .ranks = RankRule::official, .bound = 0.1}};
  }
};

template <>
struct Variants<LearnedClip> {
  static std::vector<LearnedClip> all() { return {{}, {.start_logit = 2}}; }
};

template <>
struct Variants<SmoothQuant> {
  static std::vector<SmoothQuant> all() {
    std::vector<SmoothQuant> all;
    for (const auto sites : {SmoothSites::norms, SmoothSites::foldable, SmoothSites::all})
      for (const bool fold : {true, false}) all.push_back({.alpha = fold ? 0.5 : 0.8, .sites = sites, .fold = fold});
    all.push_back({.stream = Stream::quantized});
    return all;
  }
};

template <>
struct Variants<Equalize> {
  static std::vector<Equalize> all() { return {{}, {.exponent = 1}}; }
};

template <>
struct Variants<LearnedLog> {
  static std::vector<LearnedLog> all() {
    std::vector<LearnedLog> all;
    for (const auto start : {SmoothStart::log, SmoothStart::smoothquant_one_linear, SmoothStart::smoothquant})
      for (const auto shifts : {Shifts::all, Shifts::biased, Shifts::none}) all.push_back({.start_at = start, .shifts = shifts});
    all.push_back({.query_key = false}), all.push_back({.tie_rotary = false});
    return all;
  }
};

template <>
struct Variants<Nlc> {
  static std::vector<Nlc> all() {
    return {{}, {.form = NlcForm::token_log}, {.form = NlcForm::half_token, .reduce = Reduce::sum}, {.form = NlcForm::flattened}};
  }
};

template <>
struct Variants<Sum<Mse, Nlc>> {
  static std::vector<Sum<Mse, Nlc>> all() {
    Sum<Mse, Nlc> weighed, summed;
    weighed.term<Nlc>().weight = 3, weighed.term<Mse>().weight = 0;
    summed.term<Nlc>().loss.reduce = summed.term<Mse>().loss.reduce = Reduce::sum;
    return {{}, weighed, summed};
  }
};

template <>
struct Variants<Mse> {
  static std::vector<Mse> all() { return {{Reduce::mean}, {Reduce::sum}}; }
};

template <>
struct Variants<Gptq> {
  static std::vector<Gptq> all() {
    return {{},
            {.order = ColumnOrder::descending},
            {.order = ColumnOrder::descending, .static_groups = true},
            {.order = ColumnOrder::group_aware},
            {.block = 3},
            {.static_groups = true},
            {.true_sequential = true},
            {.as_published = true}};
  }
};

template <>
struct Variants<Gptaq> {
  static std::vector<Gptaq> all() {
    return {{},
            {.alpha = 1, .order = ColumnOrder::descending},
            {.order = ColumnOrder::group_aware},
            {.order = ColumnOrder::descending, .static_groups = true},
            {.block = 5, .as_published = true},
            {.block = 5, .order = ColumnOrder::descending, .static_groups = true, .as_published = true}};
  }
};

template <>
struct Variants<Awrq> {
  static std::vector<Awrq> all() {
    return {{},
            {.order = ColumnOrder::descending},
            {.grid = AwrqGrid::shifted},
            {.order = ColumnOrder::group_aware},
            {.order = ColumnOrder::descending, .static_groups = true},
            {.block = 4},
            {.order = ColumnOrder::descending, .as_published = true}};
  }
};

template <>
struct Variants<Claq> {
  static std::vector<Claq> all() {
    return {{.levels = LevelType::f32},
            {.order = ColumnOrder::natural, .kmeans = KMeans::lloyd, .levels = LevelType::f32},
            {.kmeans = KMeans::optimal, .schedule = CodebookSchedule::block, .levels = LevelType::f32},
            {.block = 5, .schedule = CodebookSchedule::warm, .levels = LevelType::f32},
            {.levels = LevelType::f32, .average_bits = 2.5},
            {.levels = LevelType::f32, .metric = ColumnMetric::energy, .reserve = Reserve::ranked, .keep_first = 0.3, .keep_others = 0.1},
            {.levels = LevelType::f32, .reserve = Reserve::threshold, .keep = 2},
            {.levels = LevelType::f32,
             .average_bits = 3.4,
             .reserve = Reserve::fraction,
             .keep = 0.1,
             .side = KeepSide::each,
             .cluster_kept = true,
             .as_published = true}};
  }
};

}  // namespace ptq::test
