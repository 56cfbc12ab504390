// SPDX-License-Identifier: Apache-2.0
// No SIMD code yet: every target runs the reference.
#include "cachalot/kernels/matmul_panel.h"
namespace cachalot::kernels {
PanelFn<float>* HighwayPanelF32(Target) { return nullptr; }
PanelFn<BF16>* HighwayPanelBF16(Target) { return nullptr; }
}  // namespace cachalot::kernels
