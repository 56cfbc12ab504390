// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_fill.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/base/rng.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::eval {
namespace {

constexpr uint32_t kCsaRatio = 4;

// Which numbers a row's key of the random generator stands for.
enum class Stream : uint64_t { kWindow, kMainTail, kIndexTail, kEntry, kKey };

// Sums of four uniform 16-bit numbers, centered and scaled to variance 1: close to normal up to 3.4
// standard deviations and ten times cheaper than a logarithm, of which a million tokens need 10^8.
void FillNormal(std::span<float> out, uint64_t seed, uint64_t key) {
  constexpr float kMean = 2.0f * 65535.0f;
  const float scale = 1.0f / std::sqrt(4.0f * 65536.0f * 65536.0f / 12.0f);
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t bits = CounterRandom(seed, key, i);
    const auto sum = static_cast<float>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) +
                                        ((bits >> 32) & 0xFFFF) + (bits >> 48));
    out[i] = (sum - kMean) * scale;
  }
}

uint64_t Key(size_t layer, Stream stream, uint64_t row) {
  return (uint64_t{layer} << 40) | (static_cast<uint64_t>(stream) << 36) | row;
}

// The last `capacity` positions, or all there are.
uint32_t FirstRow(uint32_t tokens, uint32_t capacity) {
  return tokens > capacity ? tokens - capacity : 0;
}

void FillWindow(kvcache::Sequence& sequence, size_t layer, uint32_t tokens, uint64_t seed) {
  const KvRows rows = sequence.window(layer);
  std::vector<float> entry(rows.layout.head_dim);
  for (uint32_t p = FirstRow(tokens, rows.capacity); p < tokens; ++p) {
    FillNormal(entry, seed, Key(layer, Stream::kWindow, p));
    kernels::StoreKvEntry(entry, rows, p % rows.capacity);
  }
}

void FillTail(const kvcache::TailView& tail, size_t layer, Stream stream, uint32_t tokens,
              uint64_t seed) {
  for (uint32_t p = FirstRow(tokens, tail.capacity); p < tokens; ++p) {
    const size_t row = size_t{p % tail.capacity} * tail.width;
    FillNormal({tail.k + row, tail.width}, seed, Key(layer, stream, 2 * uint64_t{p}));
    FillNormal({tail.gate + row, tail.width}, seed, Key(layer, stream, 2 * uint64_t{p} + 1));
  }
}

void FillEntries(kvcache::Sequence& sequence, size_t layer, uint32_t ratio, uint32_t tokens,
                 uint64_t seed, ThreadPool& pool) {
  const uint32_t per_task = kvcache::kBlockTokens / ratio;
  const uint32_t entries = tokens / ratio;
  pool.ParallelFor((entries + per_task - 1) / per_task, [&](size_t task, size_t) {
    std::vector<float> values;
    const auto begin = static_cast<uint32_t>(task) * per_task;
    for (uint32_t j = begin; j < std::min(entries, begin + per_task); ++j) {
      const auto slot = sequence.entry(layer, j);
      values.resize(slot.rows.layout.head_dim);
      FillNormal(values, seed, Key(layer, Stream::kEntry, j));
      kernels::StoreKvEntry(values, slot.rows, slot.row);
      if (slot.rows.layout.key_dim == 0) continue;
      values.resize(slot.rows.layout.key_dim);
      FillNormal(values, seed, Key(layer, Stream::kKey, j));
      kernels::StoreIndexKey(values, slot.rows, slot.row);
    }
  });
}

}  // namespace

Status FillSequence(kvcache::Sequence& sequence, const kvcache::KvSpec& spec, uint32_t tokens,
                    uint64_t seed, ThreadPool& pool) {
  CACHALOT_CHECK(sequence.position() == 0);
  CACHALOT_RETURN_IF_ERROR(sequence.Reserve(tokens));
  for (size_t layer = 0; layer < spec.compress_ratios.size(); ++layer) {
    const uint32_t ratio = spec.compress_ratios[layer];
    FillWindow(sequence, layer, tokens, seed);
    if (ratio == 0) continue;
    FillTail(sequence.main_tail(layer), layer, Stream::kMainTail, tokens, seed);
    if (ratio == kCsaRatio) {
      FillTail(sequence.index_tail(layer), layer, Stream::kIndexTail, tokens, seed);
    }
    FillEntries(sequence, layer, ratio, tokens, seed, pool);
  }
  sequence.Advance(tokens);
  return {};
}

}  // namespace cachalot::eval
