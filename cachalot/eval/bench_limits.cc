// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_limits.h"

#include <algorithm>

namespace cachalot::eval {
namespace {

double Time(uint64_t amount, double per_s) {
  return per_s > 0 ? static_cast<double>(amount) / per_s : 0.0;
}

}  // namespace

double StepLimit::seconds() const { return std::max(read_s, compute_s); }
double StepLimit::seconds_with_widening() const { return std::max(read_s, compute_s + widening_s); }

StepLimit LimitOf(const model::StepCost& cost, const kernels::MachineLimits& machine,
                  const kernels::WideningRates& widening) {
  const double peak =
      machine.bf16_flop_per_s > 0 ? machine.bf16_flop_per_s : machine.f32_flop_per_s;
  return {.read_s = Time(cost.bytes(), machine.read_bytes_per_s),
          .compute_s = Time(cost.flops, peak),
          .widening_s = Time(cost.fp4_weights, widening.fp4_per_s) +
                        Time(cost.fp8_weights, widening.fp8_per_s)};
}

}  // namespace cachalot::eval
