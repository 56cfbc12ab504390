// SPDX-License-Identifier: Apache-2.0
// What `fast` numerics may cost in quality: the bounds beside which every speed-up stands.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/eval/compare_logits.h"
#include "cachalot/eval/logit_runner.h"

namespace cachalot::eval {

// One figure and the most it may be.
struct GateCheck {
  std::string what;
  double value = 0;
  double bound = 0;
  bool ok() const { return value <= bound; }  // a NaN is not
};

struct GateBounds {
  double mean_kl = 0;
  double median_kl = 0;
};
// Rounding the inputs of products to BF16 costs the mini model 3e-5, INT8 per 32 would 7e-5 and the
// official FP8 5e-4: 2e-4 lets the first two pass. The median holds to the same.
inline constexpr GateBounds kMiniBounds = {.mean_kl = 2e-4, .median_kl = 2e-4};
// The random weights of the tiny model flip choices of experts and entries at the slightest change,
// so its mean is made of a few positions; the median bounds the rest.
inline constexpr GateBounds kTinyBounds = {.mean_kl = 1.5e-2, .median_kl = 2.5e-3};
// A mean KL of 2e-4 moves the log-likelihood of text by about as much; five times that is left for
// the sample.
inline constexpr double kPerplexityFactor = 1.001;

// KL of `got` against `want` at every position of the sequences, each from an empty cache.
Result<LogitComparison> CompareNumerics(std::shared_ptr<const model::Weights> weights,
                                        std::span<const std::vector<uint32_t>> sequences,
                                        const RunnerOptions& want, const RunnerOptions& got);

// "NAME: mean KL", "NAME: median KL" beside their bounds.
std::vector<GateCheck> KlChecks(const std::string& name, const LogitComparison& comparison,
                                const GateBounds& bounds);

}  // namespace cachalot::eval
