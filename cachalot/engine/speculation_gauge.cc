// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/speculation_gauge.h"

namespace cachalot::engine {
namespace {

constexpr double kLeastGain = 1.05;
// Weights of a new measurement: an acceptance forgets after about 50 drafts, a duration after 5.
constexpr double kLearnAcceptance = 0.02;
constexpr double kLearnSeconds = 0.2;
// With a = 1 at first it takes some tens of failed drafts to give up: a few percent of this.
constexpr uint32_t kSkipsToRetry = 2048;

}  // namespace

void SpeculationGauge::Verified(uint32_t drafted, uint32_t accepted) {
  for (uint32_t i = 0; i < drafted; ++i) {
    const double got = i < accepted ? 1.0 : 0.0;
    acceptance_ += kLearnAcceptance * (got - acceptance_);
  }
}

void SpeculationGauge::Drafted(double seconds) {
  skipped_ = 0;
  draft_seconds_ += draft_seconds_ == 0 ? seconds : kLearnSeconds * (seconds - draft_seconds_);
}

void SpeculationGauge::Skipped() {
  if (++skipped_ < kSkipsToRetry) return;
  skipped_ = 0;
  acceptance_ = 1.0;
}

double SpeculationGauge::Gain(const StepBudget& budget, uint32_t sequences) const {
  const double with = budget.Predict(2 * sequences) + draft_seconds_;
  return with > 0 ? (1.0 + acceptance_) * budget.Predict(sequences) / with : 0.0;
}

bool SpeculationGauge::Worthwhile(const StepBudget& budget, uint32_t sequences) const {
  return sequences > 0 && Gain(budget, sequences) > kLeastGain;
}

}  // namespace cachalot::engine
