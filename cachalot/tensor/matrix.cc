// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tensor/matrix.h"

#include <cstring>

#include "cachalot/numeric/formats.h"

namespace cachalot {
namespace {

template <typename T>
T LoadUnaligned(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

size_t ScaleCols(const WeightView& w) {
  return w.kind == WeightKind::kFP4 ? w.cols / kFP4Block : (w.cols + kFP8Block - 1) / kFP8Block;
}

}  // namespace

WeightView WeightView::Rows(uint32_t begin, uint32_t count) const {
  CACHALOT_CHECK(begin + count <= rows);
  WeightView out = *this;
  out.rows = count;
  out.data = data + begin * row_bytes();
  if (kind == WeightKind::kFP8 || kind == WeightKind::kFP4) {
    // A stretch that starts inside a 128-row scale block must end in it, or the rows of the view
    // would no longer line up with its scales.
    CACHALOT_CHECK(kind == WeightKind::kFP4 || begin % kFP8Block == 0 ||
                   begin % kFP8Block + count <= kFP8Block);
    const size_t scale_row = kind == WeightKind::kFP4 ? begin : begin / kFP8Block;
    out.scales = scales + scale_row * ScaleCols(*this) * DTypeBytes(scale_dtype);
  }
  return out;
}

float WeightScale(const WeightView& w, size_t n, size_t k) {
  const size_t scale_row = w.kind == WeightKind::kFP4 ? n : n / kFP8Block;
  const size_t scale_col = k / (w.kind == WeightKind::kFP4 ? kFP4Block : kFP8Block);
  const size_t at = scale_row * ScaleCols(w) + scale_col;
  if (w.scale_dtype == DType::kF32) return LoadUnaligned<float>(w.scales + 4 * at);
  return E8M0ToFloat(w.scales[at]);
}

void WidenRow(const WeightView& w, size_t n, std::span<float> out) {
  CACHALOT_DCHECK(out.size() == w.cols);
  const uint8_t* row = w.row(n);
  switch (w.kind) {
    case WeightKind::kF32:
      std::memcpy(out.data(), row, out.size_bytes());
      return;
    case WeightKind::kBF16:
      for (size_t k = 0; k < w.cols; ++k) out[k] = ToFloat(BF16{LoadUnaligned<uint16_t>(row + 2 * k)});
      return;
    case WeightKind::kFP8:
      for (size_t k = 0; k < w.cols; ++k) out[k] = E4M3ToFloat(row[k]) * WeightScale(w, n, k);
      return;
    case WeightKind::kFP4:
      for (size_t k = 0; k < w.cols; ++k) {
        const uint8_t code = (row[k / 2] >> (4 * (k % 2))) & 0xFu;
        out[k] = E2M1ToFloat(code) * WeightScale(w, n, k);
      }
      return;
  }
}

}  // namespace cachalot
