// SPDX-License-Identifier: Apache-2.0
// RMSNorm of one row: float32, the same bits on every machine.
#pragma once

#include <cstdint>
#include <span>

namespace cachalot::kernels::ref {

void RmsNorm(std::span<const float> x, std::span<const float> weight, float eps,
             std::span<float> out);

}  // namespace cachalot::kernels::ref
