// Every correction behind every solver and rounding, 80 recipes: this file only names them.
#include <ptq/correction/l2qer.hpp>
#include <ptq/correction/lqer.hpp>
#include <ptq/correction/qera.hpp>
#include <ptq/rounding/flexround.hpp>
#include <ptq/rounding/learned_clip.hpp>
#include <ptq/rounding/lrq.hpp>
#include <ptq/solver/awrq.hpp>
#include <ptq/solver/claq.hpp>
#include <ptq/solver/gptaq.hpp>
#include <ptq/solver/gptq.hpp>

#include "product/entry.hpp"

ptq::test::Product ptq::test::correction_product() {
  return product_of(
      sweep(axis(Nearest{}, FlexRound{.rate = 1e-2}, Lrq{.rate = 1e-2, .ranks = RankRule::fixed, .rank = 4}, LearnedClip{.start_logit = 2}),
            axis(NoSmoothing{}), axis(Mse{}), axis(Direct{}, Gptq{}, Gptaq{}, Awrq{}, Claq{}),
            axis(NoCorrection{}, Lqer{.rank = 4}, L2qer{.rank = 4}, Qera{.rank = 4})));
}
