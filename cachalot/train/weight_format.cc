// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/weight_format.h"

#include <algorithm>
#include <array>

#include "cachalot/base/check.h"
#include "cachalot/numeric/formats.h"

namespace cachalot::train {
namespace {

size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

// Block (by, bx) of 128 x 128, cut at the edges. `store(r, c, code, scale)` gets every element.
template <typename Store>
void EachFp8(MatView<const float> w, size_t by, size_t bx, const Store& store) {
  const size_t r0 = by * kFP8Block, rows = std::min<size_t>(kFP8Block, w.rows - r0);
  const size_t c0 = bx * kFP8Block, cols = std::min<size_t>(kFP8Block, w.cols - c0);
  std::array<float, kFP8Block * kFP8Block> values;
  std::array<uint8_t, kFP8Block * kFP8Block> codes;
  for (size_t r = 0; r < rows; ++r) {
    const float* from = w.data + (r0 + r) * w.stride + c0;
    std::copy(from, from + cols, values.begin() + static_cast<long>(r * cols));
  }
  const uint8_t scale = QuantizeBlockE4M3(std::span<const float>(values.data(), rows * cols),
                                          std::span<uint8_t>(codes.data(), rows * cols));
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) store(r0 + r, c0 + c, codes[r * cols + c], scale);
  }
}

template <typename Store>
void EachFp8Block(MatView<const float> w, const kernels::Context& ctx, const Store& store) {
  const size_t across = CeilDiv(w.cols, kFP8Block);
  ctx.pool->ParallelFor(CeilDiv(w.rows, kFP8Block) * across,
                        [&](size_t i, size_t) { EachFp8(w, i / across, i % across, store); });
}

template <typename Store>
void EachFp4Row(MatView<const float> w, const kernels::Context& ctx, const Store& store) {
  CACHALOT_CHECK(w.cols % kFP4Block == 0);
  ctx.pool->ParallelFor(w.rows, [&](size_t r, size_t) {
    std::array<uint8_t, kFP4Block> codes;
    for (size_t c = 0; c < w.cols; c += kFP4Block) {
      const uint8_t scale =
          QuantizeBlockE2M1(std::span<const float>(w.data + r * w.stride + c, kFP4Block), codes);
      store(r, c, codes, scale);
    }
  });
}

}  // namespace

QuantizedMatrix QuantizeFp8(MatView<const float> w, const kernels::Context& ctx) {
  const size_t across = CeilDiv(w.cols, kFP8Block);
  QuantizedMatrix q{std::vector<uint8_t>(w.rows * w.cols),
                    std::vector<uint8_t>(CeilDiv(w.rows, kFP8Block) * across)};
  EachFp8Block(w, ctx, [&](size_t r, size_t c, uint8_t code, uint8_t scale) {
    q.codes[r * w.cols + c] = code;
    q.scales[r / kFP8Block * across + c / kFP8Block] = scale;
  });
  return q;
}

QuantizedMatrix QuantizeFp4(MatView<const float> w, const kernels::Context& ctx) {
  QuantizedMatrix q{std::vector<uint8_t>(w.rows * w.cols / 2),
                    std::vector<uint8_t>(w.rows * w.cols / kFP4Block)};
  EachFp4Row(w, ctx, [&](size_t r, size_t c, const auto& codes, uint8_t scale) {
    q.scales[(r * w.cols + c) / kFP4Block] = scale;
    for (size_t i = 0; i < kFP4Block; i += 2) {
      q.codes[(r * w.cols + c + i) / 2] = static_cast<uint8_t>(codes[i] | (codes[i + 1] << 4));
    }
  });
  return q;
}

void RoundTripFp8Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx) {
  EachFp8Block(w, ctx, [&](size_t r, size_t c, uint8_t code, uint8_t scale) {
    out.data[r * out.stride + c] = E4M3ToFloat(code) * E8M0ToFloat(scale);
  });
}

void RoundTripFp4Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx) {
  EachFp4Row(w, ctx, [&](size_t r, size_t c, const auto& codes, uint8_t scale) {
    float* row = out.data + r * out.stride + c;
    for (size_t i = 0; i < kFP4Block; ++i) row[i] = E2M1ToFloat(codes[i]) * E8M0ToFloat(scale);
  });
}

void RoundTripBf16Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx) {
  ctx.pool->ParallelFor(w.rows, [&](size_t r, size_t) {
    for (size_t c = 0; c < w.cols; ++c) {
      out.data[r * out.stride + c] = RoundToBF16(w.data[r * w.stride + c]);
    }
  });
}

}  // namespace cachalot::train
