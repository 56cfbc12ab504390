// SPDX-License-Identifier: Apache-2.0
// What drafting with the MTP block saves one sequence, beside what its parts would allow.
// [docs/design/engine.md, Speculation]
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/engine.h"

namespace cachalot::eval {

// One sequence that writes on from the first token of the vocabulary at temperature 1. Tokens are
// the same with and without drafts; medians of the runs.
struct SpeculationFigures {
  double acceptance = 0;                // a: of the drafts that were verified, all runs together
  double verify_s = 0;                  // forward of a step with the token and its guess
  double draft_s = 0;                   // the draft of such a step
  double tokens_per_s = 0;              // with drafts
  double plain_tokens_per_s = 0;        // without
  double formula_tokens_per_s() const;  // (1 + a) / (verify_s + draft_s)
  double of_formula() const;            // what sampling and bookkeeping leave of it
  double gain() const;                  // over plain decoding
};

struct SpeculationSpeedOptions {
  model::Numerics numerics = model::Numerics::kFast;
  kernels::Target target = kernels::Target::kScalar;
  uint32_t num_threads = 1;
  Pinning pinning = Pinning::kAuto;
  uint32_t tokens = 64;  // of a run
  uint32_t runs = 5;     // in turns with and without drafts, after one of each to warm up
};

// kInvalidArgument if the checkpoint has no MTP block.
Result<SpeculationFigures> MeasureSpeculation(std::shared_ptr<const model::Weights> weights,
                                              const SpeculationSpeedOptions& options);

}  // namespace cachalot::eval
