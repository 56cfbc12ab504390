// SPDX-License-Identifier: Apache-2.0
// Inside of matmul: what a task is and which code runs it. Not for other modules.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/matmul.h"

namespace cachalot::kernels {

// Rows are processed in groups of this many; panels are whole groups (but for the last of a job).
inline constexpr uint32_t kGroupRows = 8;
// Rows whose widened columns lie in BF16 next to each other. Divides 128, so a group never meets
// two rows of FP8 scales.
inline constexpr uint32_t kMaxPanelRows = 64;

// Rows [begin, begin + count) of one job, all its tokens.
template <typename X>
struct MatMulPanel {
  const MatMulJob<X>* job = nullptr;
  uint32_t begin = 0;
  uint32_t count = 0;
  uint8_t* scratch = nullptr;  // PanelScratchBytes(job->w.cols), 64-byte aligned
  bool again = false;          // scratch is as another panel of this job left it, in this call

  const X* XRow(size_t m) const { return Row(job->x, m); }
  const X* DealtRow(size_t m) const { return Row(job->dealt, m); }  // only if there are any

 private:
  const X* Row(const MatView<const X>& x, size_t m) const {
    return x.data + (job->x_rows != nullptr ? job->x_rows[m] : m) * x.stride;
  }
};

template <typename X>
using PanelFn = void(const MatMulPanel<X>& panel);

// Columns of a widened row in scratch: zero-padded to the widest step any kernel takes.
inline constexpr size_t kPaddedStep = 128;
constexpr size_t PaddedCols(size_t cols) {
  return (cols + kPaddedStep - 1) / kPaddedStep * kPaddedStep;
}

// Rows of a panel, by the shape of the weights only: a widened BF16 panel of at most 512 KiB stays
// in the L2 cache (1 MiB on Zen 4) while the tokens stream past it.
constexpr uint32_t PanelRows(size_t cols) {
  uint32_t rows = kMaxPanelRows;
  while (rows > kGroupRows && rows * PaddedCols(cols) * 2 > size_t{512} << 10) rows /= 2;
  return rows;
}

// Room between widened float32 rows, for kernels that lay them out one after the other.
inline constexpr size_t kRowPadFloats = 16;

// The AVX-512 BF16 code widens a group of rows by blocks of this many columns, 16 KiB of an L1 of
// 32 or 48, for up to so many tokens; a multiple of every step. More tokens than that have the
// whole panel widened (docs/log.md, 2026-11-24 and 2026-11-25).
inline constexpr size_t kBlockCols = 1024;
inline constexpr size_t kBlockTokens = 48;
// The code for matrix tiles widens the panel by 16 rows, also where it has 8.
constexpr size_t WidenedWords(size_t cols) {
  const size_t panel = (PanelRows(cols) < 16 ? 16 : PanelRows(cols)) * PaddedCols(cols);
  return panel < kGroupRows * kBlockCols ? kGroupRows * kBlockCols : panel;
}

// Widened rows, sums (8 zmm a token), x in the code's order, a row, what readers make of scales:
// 256 bytes for 128 columns of FP8, less for FP4. The x of tokens lie a line more than a row apart:
// rows a multiple of 4 KiB apart fall into the same set of L1.
constexpr size_t BF16ScratchBytes(size_t cols) {
  const size_t padded = PaddedCols(cols);
  return WidenedWords(cols) * 2 + kBlockTokens * (kGroupRows * 64 + (padded + 32) * 2) +
         padded * 4 + 2 * padded;
}

// The widened panel, one float32 row, and the scales of one group of rows; or what the BF16 code
// needs.
constexpr size_t PanelScratchBytes(size_t cols) {
  const size_t padded = PaddedCols(cols);
  const size_t panel =
      PanelRows(cols) * (padded + kRowPadFloats) * 4 + padded * 4 + kGroupRows * padded / 8;
  return panel < BF16ScratchBytes(cols) ? BF16ScratchBytes(cols) : panel;
}

// The code for `target`; null where this build has none (the reference runs instead).
PanelFn<float>* HighwayPanelF32(Target target);
PanelFn<BF16>* HighwayPanelBF16(Target target);
PanelFn<BF16>* X86PanelBF16();  // AVX-512 BF16
PanelFn<BF16>* AmxPanelBF16();  // matrix tiles
// Rows of a panel (bit r: panel.begin + r) whose scales do not fit BF16, in float32. row [cols].
void MultiplyByReference(const MatMulPanel<BF16>& panel, uint64_t rows, float* row);
// A row as MatMulJob::dealt wants it, zeros up to a whole step of 128; a no-op without that code.
void X86DealRow(const BF16* x, size_t cols, BF16* out);

}  // namespace cachalot::kernels
