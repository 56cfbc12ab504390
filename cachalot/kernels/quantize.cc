// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/numeric/formats.h"

namespace cachalot::kernels {
namespace {

constexpr size_t kFp8Block = 128;

void RoundTripBlock(std::span<const float> x, std::span<float> out) {
  std::array<uint8_t, kFp8Block> codes;
  const float scale = E8M0ToFloat(QuantizeBlockE4M3(x, std::span(codes).first(x.size())));
  for (size_t i = 0; i < x.size(); ++i) out[i] = E4M3ToFloat(codes[i]) * scale;
}

// Values of a native entry: codes and one scale per kKvScaleBlock dims.
void StoreValues(std::span<const float> values, uint8_t* codes, uint8_t* scales) {
  for (size_t at = 0; at < values.size(); at += kKvScaleBlock) {
    scales[at / kKvScaleBlock] =
        QuantizeBlockE4M3(values.subspan(at, kKvScaleBlock), {codes + at, kKvScaleBlock});
  }
}

}  // namespace

void RoundTripFp8(MatView<const float> x, MatView<float> out, const Context& ctx) {
  CACHALOT_CHECK(x.rows == out.rows && x.cols == out.cols);
  ctx.pool->ParallelFor(x.rows, [&](size_t r, size_t) {
    for (size_t at = 0; at < x.cols; at += kFp8Block) {
      const size_t count = std::min(kFp8Block, x.cols - at);
      RoundTripBlock(x.Row(r).subspan(at, count), out.Row(r).subspan(at, count));
    }
  });
}

void RoundTripFp4(MatView<float> x, const Context& ctx) {
  CACHALOT_CHECK(x.cols % kKeyScaleBlock == 0);
  ctx.pool->ParallelFor(x.rows, [&](size_t r, size_t) {
    std::array<uint8_t, kKeyScaleBlock> codes;
    for (size_t at = 0; at < x.cols; at += kKeyScaleBlock) {
      const std::span<float> block = x.Row(r).subspan(at, kKeyScaleBlock);
      const float scale = E8M0ToFloat(QuantizeBlockE2M1(block, codes));
      for (size_t i = 0; i < block.size(); ++i) block[i] = E2M1ToFloat(codes[i]) * scale;
    }
  });
}

void Hadamard(MatView<float> x, const Context& ctx) {
  CACHALOT_CHECK(std::has_single_bit(x.cols));
  const float scale = 1.0f / std::sqrt(static_cast<float>(x.cols));
  ctx.pool->ParallelFor(x.rows, [&](size_t r, size_t) {
    float* v = x.Row(r).data();
    for (size_t half = 1; half < x.cols; half *= 2) {
      for (size_t block = 0; block < x.cols; block += 2 * half) {
        for (size_t i = block; i < block + half; ++i) {
          const float a = v[i];
          const float b = v[i + half];
          v[i] = a + b;
          v[i + half] = a - b;
        }
      }
    }
    for (size_t i = 0; i < x.cols; ++i) v[i] *= scale;
  });
}

void StoreKvEntry(std::span<const float> entry, const KvRows& rows, size_t row) {
  const KvLayout& layout = rows.layout;
  CACHALOT_DCHECK(entry.size() == layout.head_dim && row < rows.capacity);
  if (layout.format == KvFormat::kF32) {
    std::memcpy(rows.Values(row), entry.data(), entry.size_bytes());
    return;
  }
  const size_t num_values = layout.head_dim - layout.rope_dim;
  std::memset(rows.Scales(row), 0, layout.scale_bytes());
  StoreValues(entry.first(num_values), rows.Values(row), rows.Scales(row));
  uint8_t* rope = rows.Rope(row);
  for (size_t i = 0; i < layout.rope_dim; ++i) {
    const uint16_t bits = ToBF16(entry[num_values + i]).bits;
    std::memcpy(rope + 2 * i, &bits, sizeof(bits));
  }
}

void StoreIndexKey(std::span<const float> key, const KvRows& rows, size_t row) {
  CACHALOT_DCHECK(key.size() == rows.layout.key_dim && row < rows.capacity);
  if (rows.layout.format == KvFormat::kF32) {
    std::memcpy(rows.KeyCodes(row), key.data(), key.size_bytes());
    return;
  }
  std::array<uint8_t, kKeyScaleBlock> codes;
  uint8_t* packed = rows.KeyCodes(row);
  for (size_t at = 0; at < key.size(); at += kKeyScaleBlock) {
    rows.KeyScales(row)[at / kKeyScaleBlock] =
        QuantizeBlockE2M1(key.subspan(at, kKeyScaleBlock), codes);
    for (size_t i = 0; i < kKeyScaleBlock; i += 2) {
      packed[(at + i) / 2] = static_cast<uint8_t>(codes[i] | (codes[i + 1] << 4));
    }
  }
}

void LoadKvEntry(const ConstKvRows& rows, size_t row, std::span<float> entry) {
  const KvLayout& layout = rows.layout;
  CACHALOT_DCHECK(entry.size() == layout.head_dim && row < rows.capacity);
  if (layout.format == KvFormat::kF32) {
    std::memcpy(entry.data(), rows.Values(row), entry.size_bytes());
    return;
  }
  const size_t num_values = layout.head_dim - layout.rope_dim;
  const uint8_t* codes = rows.Values(row);
  for (size_t i = 0; i < num_values; ++i) {
    entry[i] = E4M3ToFloat(codes[i]) * E8M0ToFloat(rows.Scales(row)[i / kKvScaleBlock]);
  }
  const uint8_t* rope = rows.Rope(row);
  for (size_t i = 0; i < layout.rope_dim; ++i) {
    BF16 value;
    std::memcpy(&value.bits, rope + 2 * i, sizeof(value.bits));
    entry[num_values + i] = ToFloat(value);
  }
}

void LoadIndexKey(const ConstKvRows& rows, size_t row, std::span<float> key) {
  CACHALOT_DCHECK(key.size() == rows.layout.key_dim && row < rows.capacity);
  if (rows.layout.format == KvFormat::kF32) {
    std::memcpy(key.data(), rows.KeyCodes(row), key.size_bytes());
    return;
  }
  const uint8_t* packed = rows.KeyCodes(row);
  for (size_t i = 0; i < key.size(); ++i) {
    const auto code = static_cast<uint8_t>(packed[i / 2] >> (4 * (i % 2)));
    key[i] = E2M1ToFloat(code) * E8M0ToFloat(rows.KeyScales(row)[i / kKeyScaleBlock]);
  }
}

}  // namespace cachalot::kernels
