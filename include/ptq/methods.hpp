// The published methods as values, each with its paper's numbers.
#pragma once

#include <ptq/recipe.hpp>
#include <ptq/smoothing/smoothquant.hpp>
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

/// Xiao et al.: SmoothQuant, arXiv 2211.10438; α = 0.5, factors behind norms only, plain rounding.
inline constexpr Recipe<Nearest, SmoothQuant> smoothquant{};

}  // namespace ptq::methods
