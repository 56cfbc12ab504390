// SPDX-License-Identifier: Apache-2.0
// Whether drafting pays, from what drafts and steps were seen to do. It decides when tokens come,
// never which.
//
//   gain = (1 + a) step(n) / (step(2 n) + draft),   a = share of the drafts that were accepted
#pragma once

#include <cstdint>

#include "cachalot/engine/step_budget.h"

namespace cachalot::engine {

class SpeculationGauge {
 public:
  void Verified(uint32_t drafted, uint32_t accepted);
  void Drafted(double seconds);
  // A step in which nothing was drafted. After many of them drafts get another chance: what is
  // generated now may be easier to guess.
  void Skipped();

  // Of the drafts of one token each for `sequences`, in whole steps saved.
  double Gain(const StepBudget& budget, uint32_t sequences) const;
  bool Worthwhile(const StepBudget& budget, uint32_t sequences) const;
  double acceptance() const { return acceptance_; }

 private:
  double acceptance_ = 1.0;  // hopeful, so that the first drafts are made
  double draft_seconds_ = 0;
  uint32_t skipped_ = 0;
};

}  // namespace cachalot::engine
