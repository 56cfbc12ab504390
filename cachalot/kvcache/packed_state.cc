// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kvcache/packed_state.h"

#include <algorithm>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::kvcache {
namespace {

constexpr uint32_t kCsaRatio = 4;

// Calls visit(data, bytes) for each part of a row.
template <typename Visit>
void VisitRow(const KvRows& rows, size_t row, const Visit& visit) {
  const KvLayout& l = rows.layout;
  visit(rows.Values(row), l.value_bytes());
  visit(rows.Rope(row), l.rope_bytes());
  visit(rows.Scales(row), l.scale_bytes());
  visit(rows.KeyCodes(row), l.key_code_bytes());
  visit(rows.KeyScales(row), l.key_scale_bytes());
}

// The first `width` channels of the rows of tokens begin .. end - 1.
template <typename Visit>
void VisitTail(const TailView& tail, uint32_t begin, uint32_t end, uint32_t width,
               const Visit& visit) {
  for (uint32_t p = begin; p < end; ++p) {
    const size_t row = size_t{p % tail.capacity} * tail.width;
    visit(reinterpret_cast<uint8_t*>(tail.k + row), width * sizeof(float));
    visit(reinterpret_cast<uint8_t*>(tail.gate + row), width * sizeof(float));
  }
}

// Raw rows of the open entry, and, where entries overlap, stream b (the first half) of the entry
// before: the second half went into that entry and is not read again. [report.md 2.2, 10.5]
template <typename Visit>
void VisitCompressor(const TailView& tail, uint32_t ratio, uint32_t position, const Visit& visit) {
  const uint32_t open = position / ratio * ratio;
  if (ratio == kCsaRatio && open >= ratio) {
    VisitTail(tail, open - ratio, open, tail.width / 2, visit);
  }
  VisitTail(tail, open, position, tail.width, visit);
}

// Everything of a sequence at `position` in its fixed order: this function is the format.
template <typename Visit>
void VisitState(const KvSpec& spec, Sequence& sequence, uint32_t position, const Visit& visit) {
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    const KvRows window = sequence.window(l);
    for (uint32_t p = position - std::min(position, spec.sliding_window); p < position; ++p) {
      VisitRow(window, p % window.capacity, visit);
    }
    const uint32_t ratio = spec.compress_ratios[l];
    if (ratio == 0) continue;
    VisitCompressor(sequence.main_tail(l), ratio, position, visit);
    if (ratio == kCsaRatio) VisitCompressor(sequence.index_tail(l), ratio, position, visit);
    const uint32_t block_begin = position / kBlockTokens * kBlockTokens;
    for (uint32_t j = block_begin / ratio; j < position / ratio; ++j) {
      const auto slot = sequence.entry(l, j);
      VisitRow(slot.rows, slot.row, visit);
    }
  }
}

size_t TailRowBytes(uint32_t width) { return size_t{2} * sizeof(float) * width; }

}  // namespace

void PackBlock(BlockPool& pool, BlockId id, std::span<uint8_t> out) {
  const KvSpec& spec = pool.spec();
  CACHALOT_CHECK(out.size() == spec.block_bytes());
  uint8_t* to = out.data();
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    const size_t bytes = spec.layer_block_bytes(l);
    if (bytes > 0) std::memcpy(to, pool.slab(l) + static_cast<size_t>(id) * bytes, bytes);
    to += bytes;
  }
}

void UnpackBlock(BlockPool& pool, BlockId id, std::span<const uint8_t> in) {
  const KvSpec& spec = pool.spec();
  CACHALOT_CHECK(in.size() == spec.block_bytes());
  const uint8_t* from = in.data();
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    const size_t bytes = spec.layer_block_bytes(l);
    if (bytes > 0) std::memcpy(pool.slab(l) + static_cast<size_t>(id) * bytes, from, bytes);
    from += bytes;
  }
}

size_t PackedStateBytes(const KvSpec& spec, uint32_t position) {
  size_t bytes = 0;
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    bytes += std::min(position, spec.sliding_window) * spec.window_layout().row_bytes();
    const uint32_t ratio = spec.compress_ratios[l];
    if (ratio == 0) continue;
    const uint32_t open = position % ratio;
    if (ratio == kCsaRatio) {
      const uint32_t before = position >= ratio ? ratio : 0;  // rows of half the width
      bytes += (2 * open + before) * TailRowBytes(spec.head_dim);
      bytes += (2 * open + before) * TailRowBytes(spec.index_head_dim);
    } else {
      bytes += open * TailRowBytes(spec.head_dim);
    }
    bytes += position % kBlockTokens / ratio * spec.compressed_layout(l).row_bytes();
  }
  return bytes;
}

void PackState(Sequence& sequence, std::vector<uint8_t>& out) {
  const KvSpec& spec = sequence.spec();
  const uint32_t position = sequence.position();
  CACHALOT_CHECK(position >= sequence.replay_end());
  const size_t begin = out.size();
  out.reserve(begin + PackedStateBytes(spec, position));
  VisitState(spec, sequence, position, [&out](const uint8_t* data, size_t bytes) {
    out.insert(out.end(), data, data + bytes);
  });
  CACHALOT_CHECK(out.size() - begin == PackedStateBytes(spec, position));
}

Status UnpackState(std::span<const uint8_t> in, uint32_t position, Sequence& sequence) {
  const KvSpec& spec = sequence.spec();
  if (in.size() != PackedStateBytes(spec, position)) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat("packed state at position ", position, " has ", in.size(), " bytes, ",
                        PackedStateBytes(spec, position), " expected")};
  }
  sequence.ResumeAt(position);
  VisitState(spec, sequence, position, [&in](uint8_t* data, size_t bytes) {
    if (bytes > 0) std::memcpy(data, in.data(), bytes);
    in = in.subspan(bytes);
  });
  return {};
}

}  // namespace cachalot::kvcache
