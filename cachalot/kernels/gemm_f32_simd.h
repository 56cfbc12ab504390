// SPDX-License-Identifier: Apache-2.0
// The two passes of gemm_f32, a piece at a time. Internal to the module.
#pragma once

#include "cachalot/kernels/gemm_f32.h"

namespace cachalot::kernels {

// op(B) is packed in panels of kGemmPanel columns, [K][kGemmPanel] each, the last one filled up
// with zeros: every target's vectors divide it.
inline constexpr size_t kGemmPanel = 32;
// Rows of C in a task: enough to use a panel several times while it is in L1, few enough that two
// threads share a matrix of a few hundred rows.
inline constexpr size_t kGemmRows = 48;

constexpr size_t GemmPanels(size_t n) { return (n + kGemmPanel - 1) / kGemmPanel; }

// Packs panel `p`.
void PackGemmPanel(const GemmF32Args& args, size_t p, float* scratch, Target target);
// Rows [begin, begin + count) of C, from all panels.
void GemmRows(const GemmF32Args& args, size_t begin, size_t count, const float* scratch,
              Target target);

}  // namespace cachalot::kernels
