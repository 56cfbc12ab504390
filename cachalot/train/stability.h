// SPDX-License-Identifier: Apache-2.0
// What a run does about loss spikes: notice one, go back to the last checkpoint, and take the steps
// again with Anticipatory Routing for a while. [V4 4.2.3; docs/design/train.md, Stability]
//
// The paper does not disclose threshold, lag or duration; those here are choices.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace cachalot::train {

struct StabilityOptions {
  double spike_deviations = 8;  // above the running mean; 0: nothing is done about spikes
  // Steps that route by older parameters after a rollback; spikes among them are let pass, so that
  // a run cannot go round in circles.
  uint64_t anticipate_steps = 200;
  // Routing of this many steps is computed at once, by the parameters of then: it is 0 to
  // anticipate_lag - 1 steps old when it is used. In between the state of a run cannot be saved,
  // since the routing is not part of it: a checkpoint waits for the next multiple.
  uint32_t anticipate_lag = 8;
};

// Running mean and deviation of the loss over the last 32 steps or so, weights falling off
// exponentially. A spike does not enter them.
class SpikeDetector {
 public:
  // Whether `loss` is a spike: more than `deviations` deviations above the mean, the deviation
  // taken as at least 1 % of the mean. Never before 32 losses were seen, never with deviations ==
  // 0.
  bool Take(double loss, double deviations);
  // Where the loss is expected to jump: at a new stage.
  void Reset() { *this = SpikeDetector(); }

  // To and from the numbers of a run state.
  void Save(std::map<std::string, uint64_t>& numbers) const;
  void Load(const std::map<std::string, uint64_t>& numbers);

 private:
  uint64_t count_ = 0;
  double mean_ = 0;
  double variance_ = 0;
};

}  // namespace cachalot::train
