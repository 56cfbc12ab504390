// SPDX-License-Identifier: Apache-2.0
// Inside of gemm: what a task is and which code runs it. Not for other modules.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/gemm.h"

namespace cachalot::kernels {

// Largest tile: A packed is 256 KiB, in L2 (1 MiB on Zen 4) while the panels of B pass.
inline constexpr size_t kGemmMaxTileRows = 512;
inline constexpr size_t kGemmMaxTileCols = 256;
// Columns of B that are packed at a time: two vectors, at most 64 floats.
inline constexpr size_t kGemmMaxPanelCols = 64;
static_assert(kGemmScratchBytes ==
              (kGemmMaxPanelCols + kGemmMaxTileRows) * kGemmBlockK * sizeof(float));

// Outputs [m, m + rows) x [n, n + cols) of one job, over all of K.
struct GemmTile {
  const GemmJob* job = nullptr;
  size_t m = 0;
  size_t rows = 0;  // <= kGemmMaxTileRows
  size_t n = 0;
  size_t cols = 0;  // <= kGemmMaxTileCols
  float* scratch = nullptr;

  size_t depth() const { return job->a_transposed ? job->a.rows : job->a.cols; }
};

using GemmTileFn = void(const GemmTile& tile);  // pre: depth() > 0, but for the reference

// The code for `target`; null where this build has none (the reference runs instead).
GemmTileFn* HighwayGemmTile(Target target);

// With operands rounded to BF16; for Target::kAvx512Bf16 and for Target::kAmxBf16. Null where there
// is none.
GemmTileFn* X86GemmTileBF16();
GemmTileFn* AmxGemmTileBF16();

// Scalar, the statement of what Gemm computes. Any scratch, also none.
namespace ref {
void GemmTileReference(const GemmTile& tile);
}  // namespace ref

}  // namespace cachalot::kernels
