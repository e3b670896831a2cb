// The product of the six axes, 324 recipes: this file only names them.
#include <ptq/adaptation/tta.hpp>
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/loss/nlc.hpp>
#include <ptq/loss/sum.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/smoothing/learned_log.hpp>
#include <ptq/smoothing/smoothquant.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptq.hpp>

#include "product/entry.hpp"

ptq::test::Product ptq::test::whole_product() {
  return product_of(sweep(axis(Nearest{}, FlexRound{.rate = 1e-2}, Lrq{.rate = 1e-2, .ranks = RankRule::fixed, .rank = 4}),
                          axis(NoSmoothing{}, SmoothQuant{}, LearnedLog{.rate = 5e-3}), axis(Mse{}, Sum<Mse, Nlc>{}),
                          axis(Gptq{}, Awrq{}, Claq{}), axis(NoCorrection{}, Lqer{.rank = 4}, L2qer{.rank = 4}),
                          axis(NoAdaptation{}, Tta{.epochs = 1, .smoothing_rate = 2e-3, .rounding_rate = 2e-3})));
}
