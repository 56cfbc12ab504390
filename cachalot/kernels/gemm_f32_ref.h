// SPDX-License-Identifier: Apache-2.0
// What gemm_f32.h computes, the obvious way.
#pragma once

#include "cachalot/kernels/gemm_f32.h"

namespace cachalot::kernels::ref {

// Sums in double, then rounds: an answer to judge float32 code by, not its bits.
void GemmF32(const GemmF32Args& args);

}  // namespace cachalot::kernels::ref
