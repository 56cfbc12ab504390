// SPDX-License-Identifier: Apache-2.0
// The shortest time a step could take on this machine: what every speed is a share of.
#pragma once

#include "cachalot/kernels/machine_limits.h"
#include "cachalot/model/cost.h"

namespace cachalot::eval {

struct StepLimit {
  double read_s = 0;      // bytes / read bandwidth
  double compute_s = 0;   // flops / peak: BF16 dots where the machine has them, else float32
  double widening_s = 0;  // weights widened once each, as measured; beside the multiplications

  // max(bytes / bandwidth, flops / peak): what the goals are stated in.
  double seconds() const;
  // The same with widening added to the flops: where that is longer, it explains the difference.
  double seconds_with_widening() const;
};

StepLimit LimitOf(const model::StepCost& cost, const kernels::MachineLimits& machine,
                  const kernels::WideningRates& widening);

}  // namespace cachalot::eval
