// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tensor/matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/numeric/formats.h"

namespace cachalot {
namespace {

template <typename T>
T LoadUnaligned(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

template <size_t kCodes, float (*kDecode)(uint8_t)>
constexpr std::array<float, kCodes> DecodeTable() {
  std::array<float, kCodes> table{};
  for (size_t i = 0; i < kCodes; ++i) table[i] = kDecode(static_cast<uint8_t>(i));
  return table;
}
constexpr auto kE4M3Values = DecodeTable<256, E4M3ToFloat>();
constexpr auto kE2M1Values = DecodeTable<16, E2M1ToFloat>();

size_t ScaleCols(const WeightView& w) {
  return w.kind == WeightKind::kFP4 ? w.cols / kFP4Block : (w.cols + kFP8Block - 1) / kFP8Block;
}

}  // namespace

WeightView WeightView::Rows(uint32_t begin, uint32_t count) const {
  CACHALOT_CHECK(begin <= rows && count <= rows - begin);
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
      if (!out.empty()) std::memcpy(out.data(), row, out.size_bytes());
      return;
    case WeightKind::kBF16:
      for (size_t k = 0; k < out.size(); ++k) {
        out[k] = ToFloat(BF16{LoadUnaligned<uint16_t>(row + 2 * k)});
      }
      return;
    case WeightKind::kFP8:
      for (size_t begin = 0; begin < out.size(); begin += kFP8Block) {
        const float scale = WeightScale(w, n, begin);
        const size_t end = std::min<size_t>(begin + kFP8Block, out.size());
        for (size_t k = begin; k < end; ++k) out[k] = kE4M3Values[row[k]] * scale;
      }
      return;
    case WeightKind::kFP4:
      for (size_t begin = 0; begin < out.size(); begin += kFP4Block) {
        const float scale = WeightScale(w, n, begin);
        for (size_t k = begin; k < begin + kFP4Block; k += 2) {
          out[k] = kE2M1Values[row[k / 2] & 0xFu] * scale;
          out[k + 1] = kE2M1Values[row[k / 2] >> 4] * scale;
        }
      }
      return;
  }
}

}  // namespace cachalot
