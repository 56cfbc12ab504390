// SPDX-License-Identifier: Apache-2.0
// Perplexity of a token stream in fresh windows.
//
// Window i is the W + 1 ids from i * W, started from an empty cache: its first W ids are fed, and
// each predicts the id after it. An incomplete last window is dropped, so n ids give
// floor((n - 1) / W) windows.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "cachalot/base/error.h"
#include "cachalot/eval/logit_runner.h"

namespace cachalot::eval {

struct PerplexityResult {
  uint64_t num_tokens = 0;  // predictions
  double nll = 0.0;         // mean negative log-likelihood, nats
  double perplexity = 0.0;  // exp(nll)
};

// Predictions made so far, their mean negative log-likelihood; false stops the run (kCancelled).
using PerplexityProgress = std::function<bool(uint64_t num_done, uint64_t num_total, double nll)>;

// Windows of `window` predictions that `num_ids` ids give.
uint64_t NumWindows(uint64_t num_ids, uint32_t window);

// -log softmax(logits)[target], in double. +inf if the logits hold a NaN: a broken model must not
// look good.
double NegativeLogLikelihood(std::span<const float> logits, uint32_t target);

// kInvalidArgument if `ids` give no window. Ids are < V. Windows follow each other, predictions are
// summed in order, so the figure does not depend on the chunk size. `runner` was made for at least
// `window` tokens. `progress` may be empty; it is called after each chunk.
Result<PerplexityResult> Perplexity(LogitRunner& runner, std::span<const uint32_t> ids,
                                    uint32_t window, const PerplexityProgress& progress);

}  // namespace cachalot::eval
