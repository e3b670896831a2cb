// The published methods as values, each with its paper's numbers.
#pragma once

#include <ptq/adaptation/episodic_tta.hpp>
#include <ptq/adaptation/tta.hpp>
#include <ptq/loss/aug.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/recipe.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/smoothing/static_log.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptaq.hpp>
#include <ptq/solver/gptq.hpp>

namespace ptq::methods {

/// Round to nearest: every weight to its nearest grid point. The baseline of every paper.
inline constexpr Recipe<> rtn{};

/// Frantar et al.: GPTQ, arXiv 2210.17323; damping 1 % of the mean diagonal, natural column order.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Gptq> gptq{};

/// GPTQ as released: grids of small groups fitted on stale weights, dead columns in the damping mean.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Gptq> gptq_as_published{.solver = {.damp_increase = 0, .as_published = true}};

/// GPTQ with the two additions of its repository for LLaMA: columns by descending diagonal (with static groups no index is stored).
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Gptq> gptq_act_order{
    .solver = {.order = ColumnOrder::descending, .static_groups = true}};

/// Li et al.: GPTAQ, arXiv 2504.02692; its correction at the released code's α = 0.25.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Gptaq> gptaq{};

/// GPTAQ as released: later blocks are corrected with rounded columns, so codes depend on the block.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Gptaq> gptaq_as_published{.solver = {.damp_increase = 0, .as_published = true}};

/// Wang et al.: CLAQ, arXiv 2405.17233: a codebook a column, act-order, true-sequential. At 4, 3 and 2 bits: int4, int3, int2.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Claq> claq{};

/// CLAQ's fusion of adaptive precision and outlier reservation: 2.05 bits and 0.07 for what is kept, nominally 2.12.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Claq> claq_fused{.solver = {.average_bits = 2.05, .reserve = Reserve::ranked}};

/// CLAQ as released: reservation on either side and by place in a block, kept entries clustered, k-means from its start.
inline constexpr Recipe<Nearest, NoSmoothing, Mse, Claq> claq_as_published{
    .solver = {.damp_increase = 0, .kmeans = KMeans::lloyd, .side = KeepSide::each, .cluster_kept = true, .as_published = true}};

/// Xiao et al.: SmoothQuant, arXiv 2211.10438; α = 0.5, factors behind norms only, plain rounding.
inline constexpr Recipe<Nearest, SmoothQuant> smoothquant{};

/// SmoothQuant as AWRQ uses it: every linear, maxima of the quantized stream, division at run time where no norm takes the factor. The
/// floor 0.1 is that of its OPT script; the one for LLaMA has 0.01.
inline constexpr SmoothQuant awrq_smoothing{.min = 0.1, .sites = SmoothSites::all, .fold = false, .stream = Stream::quantized};

/// AWRQ (github.com/linzhao-ai/AWRQ, 2024) with its smoothing. At W4A8: int4:channel, int8:tensor.
inline constexpr Recipe<Nearest, SmoothQuant, Mse, Awrq> awrq{.smoothing = awrq_smoothing};

/// AWRQ as released: its first column rounds the unshifted weight, dead columns are never made up for.
inline constexpr Recipe<Nearest, SmoothQuant, Mse, Awrq> awrq_as_published{.smoothing = awrq_smoothing,
                                                                           .solver = {.damp_increase = 0, .as_published = true}};

/// Block reconstruction as FlexRound's and LRQ's released code runs it: 5000 steps of two sequences, shuffled, the rate falling to zero as
/// a cosine, weights alone rounded while learning, the last iterate; and a loss summed over tokens.
inline constexpr Mse reconstruction_loss{.reduce = Reduce::sum};
inline constexpr Learning reconstruction{
    .steps = 5000, .batch = 2, .order = SampleOrder::shuffled, .schedule = Schedule::cosine, .activations = false};

/// Lee et al.: FlexRound, arXiv 2306.00317; 4 bits, weights only, a min-max start, the rate for Llama-2 7B: int4:channel:range=flexround.
inline constexpr Recipe<FlexRound> flexround{.rounding = {.rate = 3e-3}, .loss = reconstruction_loss, .learning = reconstruction};

/// FlexRound at 3 bits, weights only, a min-max start.
inline constexpr Recipe<FlexRound> flexround_w3{.rounding = {.rate = 2.5e-3}, .loss = reconstruction_loss, .learning = reconstruction};

/// Lee et al.: LRQ, arXiv 2407.11534; 4 bits, weights only, a min-max start, ranks as the paper has them.
inline constexpr Recipe<Lrq> lrq{.rounding = {.rate = 9e-4}, .loss = reconstruction_loss, .learning = reconstruction};

/// LRQ at 3 bits, weights only, a searched start: int3:channel:range=flexround:search.
inline constexpr Recipe<Lrq> lrq_w3{.rounding = {.rate = 6e-4}, .loss = reconstruction_loss, .learning = reconstruction};

/// LRQ as released: many linears have FlexRound's full matrix instead.
inline constexpr Recipe<Lrq> lrq_as_published{
    .rounding = {.rate = 9e-4, .ranks = RankRule::official}, .loss = reconstruction_loss, .learning = reconstruction};

/// Block by block as OmniQuant's and LRQuant's released codes learn: AdamW without decay, 20 passes over the samples in order, one at a
/// time. Their epsilon 1e-8 stands in a mean over 2048 tokens.
inline constexpr Learning equivalent_learning{.optimizer = Optimizer::adamw, .epochs = 20, .batch = 1, .epsilon = 2048e-8};

/// Shao et al.: OmniQuant, ICLR 2024, arXiv 2308.13137; learned clipping and transformation with the augmented loss, W4A4 of LLaMA-7B:
/// int4:channel:range=omni, activations and what attention multiplies int4:token.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Aug<>>> omniquant{
    .rounding = {.rate = 1e-2},
    .smoothing = {.start_at = SmoothStart::smoothquant_one_linear, .alpha = 0.5, .shifts = Shifts::biased, .rate = 5e-3},
    .learning = equivalent_learning};

/// OmniQuant for weights alone: clipping alone.
inline constexpr Recipe<LearnedClip> omniquant_weight_only{.rounding = {.rate = 1e-2}, .learning = equivalent_learning};

/// Zhao et al.: LRQuant, ACL 2024, doi 10.18653/v1/2024.acl-long.122; a logarithmic start, mean squared error and cosine alike. Formats as
/// for OmniQuant.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>> lrquant{
    .rounding = {.rate = 1e-2}, .smoothing = {.rate = 1e-3}, .learning = equivalent_learning};

/// LRQuant as released: factors of q and k untied, so that they change what a block with rotary positions computes.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>> lrquant_as_published{
    .rounding = {.rate = 1e-2}, .smoothing = {.tie_rotary = false, .rate = 1e-3}, .learning = equivalent_learning};

/// What LRQuant starts from, as a smoothing of its own: its baseline "LAE".
inline constexpr Recipe<Nearest, StaticLog> static_log{};

/// LRQuant with test-time adaptation: the calibrated last block goes on learning on the text, five passes.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, Tta> lrquant_tta{
    .rounding = {.rate = 1e-2}, .smoothing = {.rate = 1e-3}, .learning = equivalent_learning};

/// The same against the float model's stream, as in calibration.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, Tta> lrquant_tta_full{
    .rounding = {.rate = 1e-2},
    .smoothing = {.rate = 1e-3},
    .adaptation = {.input = RefitInput::full_teacher},
    .learning = equivalent_learning};

/// The adaptation as released: fitted to embeddings from nothing, and without rounded activations afterwards. Not comparable with others.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, Tta> lrquant_tta_as_published{
    .rounding = {.rate = 1e-2},
    .smoothing = {.rate = 1e-3},
    .adaptation = {.input = RefitInput::literal, .smoothing_rate = 1e-3, .rounding_rate = 1e-2},
    .learning = equivalent_learning};

/// LRQuant adapted to each segment by itself.
inline constexpr Recipe<LearnedClip, LearnedLog, Sum<Mse, Nlc>, Direct, NoCorrection, EpisodicTta> lrquant_episodic{
    .rounding = {.rate = 1e-2}, .smoothing = {.rate = 1e-3}, .learning = equivalent_learning};

}  // namespace ptq::methods
