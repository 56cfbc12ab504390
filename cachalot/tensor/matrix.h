// SPDX-License-Identifier: Apache-2.0
// Views: activations (MatView) and weights in their stored format (WeightView). Views own nothing;
// whoever hands one out says how long the bytes live.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/base/check.h"
#include "cachalot/tensor/dtype.h"

namespace cachalot {

// Row-major [rows, cols] with `stride` elements from row to row.
template <typename T>
struct MatView {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;

  MatView() = default;
  MatView(T* d, size_t r, size_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatView(T* d, size_t r, size_t c, size_t s) : data(d), rows(r), cols(c), stride(s) {}
  // MatView<T> -> MatView<const T>
  template <typename U>
  requires std::is_convertible_v<U (*)[], T (*)[]> MatView(const MatView<U>& o)  // NOLINT: implicit
      : data(o.data), rows(o.rows), cols(o.cols), stride(o.stride) {}

  std::span<T> Row(size_t r) const {
    CACHALOT_DCHECK(r < rows);
    return {data + r * stride, cols};
  }
  MatView Rows(size_t begin, size_t count) const {
    CACHALOT_DCHECK(begin + count <= rows);
    return MatView(data + begin * stride, count, cols, stride);
  }
  MatView Cols(size_t begin, size_t count) const {
    CACHALOT_DCHECK(begin + count <= cols);
    return MatView(data + begin, rows, count, stride);
  }
};

// How a weight's elements are stored and scaled. [model.md 2.5]
enum class WeightKind : uint8_t {
  kF32,
  kBF16,
  kFP8,  // F8_E4M3, one scale per block of [128 rows, 128 columns]
  // E2M1, columns 2i / 2i+1 in the low / high nibble of byte i; one scale per 32 columns, and
  // cols is a multiple of 32.
  kFP4,
};

// A weight matrix [rows, cols] (out, in) as it lies in the checkpoint. `data` and `scales` may have
// any alignment: safetensors only packs. y = W x uses w[n][k] = code * scale.
struct WeightView {
  WeightKind kind = WeightKind::kF32;
  uint32_t rows = 0;
  uint32_t cols = 0;
  const uint8_t* data = nullptr;    // row-major, rows * row_bytes()
  const uint8_t* scales = nullptr;  // kFP8: [ceil(rows/128), ceil(cols/128)]; kFP4: [rows, cols/32]
  DType scale_dtype = DType::kF8E8M0;  // or kF32 (-Base checkpoints), any finite positive value

  size_t row_bytes() const {
    switch (kind) {
      case WeightKind::kF32:
        return size_t{4} * cols;
      case WeightKind::kBF16:
        return size_t{2} * cols;
      case WeightKind::kFP8:
        return cols;
      case WeightKind::kFP4:
        return cols / 2;
    }
    return 0;
  }
  const uint8_t* row(size_t n) const { return data + n * row_bytes(); }
  // Rows [begin, begin + count). For kFP8 they start at a multiple of 128 or lie inside one 128-row
  // scale block, so that scales line up.
  WeightView Rows(uint32_t begin, uint32_t count) const;
};

// Columns covered by one scale.
inline constexpr uint32_t kFP8Block = 128;
inline constexpr uint32_t kFP4Block = 32;

// The scale of element (n, k). kFP8 and kFP4 only.
float WeightScale(const WeightView& w, size_t n, size_t k);

// Widens row n to float32, exactly. out.size() == w.cols.
void WidenRow(const WeightView& w, size_t n, std::span<float> out);

}  // namespace cachalot
