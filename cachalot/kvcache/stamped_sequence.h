// SPDX-License-Identifier: Apache-2.0
// For tests: a sequence whose every row carries the stamp of the token that wrote it, so a row of a
// rejected token, or of another sequence, is told from the one that belongs there. Before a token
// "attends", every row it may read is checked.
#pragma once

#include <rapidcheck.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {

inline constexpr uint32_t kWindow = 24;  // no divisor of a ring size, to meet every phase

inline KvSpec SmallSpec(KvFormat format) {
  return {.format = format,
          .head_dim = 128,
          .rope_dim = 64,
          .index_head_dim = 32,
          .sliding_window = kWindow,
          .compress_ratios = {0, 4, 128, 4}};
}

struct Part {
  uint8_t* data;
  size_t bytes;
};

inline std::vector<Part> PartsOf(const KvRows& rows, size_t row) {
  const KvLayout& l = rows.layout;
  std::vector<Part> parts = {{rows.Values(row), l.value_bytes()},
                             {rows.Rope(row), l.rope_bytes()},
                             {rows.Scales(row), l.scale_bytes()},
                             {rows.KeyCodes(row), l.key_code_bytes()},
                             {rows.KeyScales(row), l.key_scale_bytes()}};
  std::erase_if(parts, [](const Part& part) { return part.bytes == 0; });
  return parts;
}

// All bytes of a row are its stamp's low byte; the first part starts with the whole stamp.
inline void StampRow(const KvRows& rows, size_t row, uint32_t stamp) {
  for (const Part& part : PartsOf(rows, row)) {
    std::memset(part.data, static_cast<int>(stamp & 0xFF), part.bytes);
  }
  std::memcpy(rows.Values(row), &stamp, sizeof(stamp));
}

inline bool RowHas(const KvRows& rows, size_t row, uint32_t stamp) {
  uint32_t found = 0;
  std::memcpy(&found, rows.Values(row), sizeof(found));
  if (found != stamp) return false;
  for (const Part& part : PartsOf(rows, row)) {
    if (part.data[part.bytes - 1] != static_cast<uint8_t>(stamp)) return false;
  }
  return true;
}

// Stamps stay below 2^24, where float32 is exact.
inline void StampTail(const TailView& tail, uint32_t position, uint32_t stamp) {
  const size_t row = size_t{position % tail.capacity} * tail.width;
  std::fill_n(tail.k + row, tail.width, static_cast<float>(stamp));
  std::fill_n(tail.gate + row, tail.width, static_cast<float>(stamp));
}

// The first `width` channels.
inline bool TailHas(const TailView& tail, uint32_t position, uint32_t width, uint32_t stamp) {
  const size_t row = size_t{position % tail.capacity} * tail.width;
  const auto wanted = static_cast<float>(stamp);
  return tail.k[row] == wanted && tail.k[row + width - 1] == wanted && tail.gate[row] == wanted &&
         tail.gate[row + width - 1] == wanted;
}

// A sequence and the tokens it should hold, as stamps by position.
class StampedSequence {
 public:
  explicit StampedSequence(BlockPool& pool)
      : spec_(pool.spec()), sequence_(std::move(Sequence::Create(pool)).value()) {}

  Sequence& sequence() { return *sequence_; }
  const std::vector<uint32_t>& stamps() const { return stamps_; }
  void SetStamps(const std::vector<uint32_t>& stamps) { stamps_ = stamps; }

  // As the forward pass does it: waves of at most kMaxRewind tokens write, then attend.
  void Feed(std::span<const uint32_t> stamps) {
    const auto num_tokens = static_cast<uint32_t>(stamps.size());
    RC_ASSERT(sequence_->Reserve(num_tokens).ok());
    for (uint32_t done = 0; done < num_tokens;) {
      const uint32_t wave = std::min(kMaxRewind, num_tokens - done);
      const auto begin = static_cast<uint32_t>(stamps_.size());
      for (uint32_t i = 0; i < wave; ++i) stamps_.push_back(stamps[done + i]);
      for (uint32_t p = begin; p < begin + wave; ++p) Write(p);
      for (uint32_t p = begin; p < begin + wave; ++p) CheckAndEmit(p);
      done += wave;
    }
    sequence_->Advance(num_tokens);
    RC_ASSERT(sequence_->position() == stamps_.size());
  }

  void Rewind(uint32_t num_tokens) {
    RC_ASSERT(sequence_->Rewind(num_tokens).ok());
    stamps_.resize(stamps_.size() - num_tokens);
  }

 private:
  void Write(uint32_t p) {
    for (size_t l = 0; l < spec_.compress_ratios.size(); ++l) {
      const KvRows window = sequence_->window(l);
      StampRow(window, p % window.capacity, stamps_[p]);
      if (spec_.compress_ratios[l] != 0) StampTail(sequence_->main_tail(l), p, stamps_[p]);
      if (spec_.compress_ratios[l] == 4) StampTail(sequence_->index_tail(l), p, stamps_[p]);
    }
  }

  void CheckAndEmit(uint32_t p) {
    for (size_t l = 0; l < spec_.compress_ratios.size(); ++l) {
      const KvRows window = sequence_->window(l);
      for (uint32_t q = p + 1 > kWindow ? p + 1 - kWindow : 0; q <= p; ++q) {
        RC_ASSERT(RowHas(window, q % window.capacity, stamps_[q]));
      }
      const uint32_t ratio = spec_.compress_ratios[l];
      if (ratio == 0) continue;
      if ((p + 1) % ratio == 0) Emit(l, p);
      CheckEntries(l, (p + 1) / ratio);
    }
  }

  // The entry that token `p` completes reads its own block, in CSA layers also half the channels of
  // the one before.
  void Emit(size_t l, uint32_t p) {
    const uint32_t ratio = spec_.compress_ratios[l];
    const uint32_t reach = ratio == 4 ? 2 * ratio : ratio;
    for (uint32_t q = p + 1 > reach ? p + 1 - reach : 0; q <= p; ++q) {
      const uint32_t parts = q + ratio <= p ? 2 : 1;
      const TailView tail = sequence_->main_tail(l);
      RC_ASSERT(TailHas(tail, q, tail.width / parts, stamps_[q]));
      if (ratio != 4) continue;
      const TailView keys = sequence_->index_tail(l);
      RC_ASSERT(TailHas(keys, q, keys.width / parts, stamps_[q]));
    }
    const auto slot = sequence_->entry(l, p / ratio);
    StampRow(slot.rows, slot.row, stamps_[p]);
  }

  // Through the view that attention reads.
  void CheckEntries(size_t l, uint32_t num_entries) {
    const uint32_t ratio = spec_.compress_ratios[l];
    const CompressedView view = sequence_->compressed(l);
    for (uint32_t j = 0; j < num_entries; ++j) {
      const ConstKvRows rows = view.Block(j / view.rows_per_block);
      const KvRows writable(rows.layout, const_cast<uint8_t*>(rows.base), rows.capacity);
      RC_ASSERT(RowHas(writable, j % view.rows_per_block, stamps_[(j + 1) * ratio - 1]));
    }
  }

  const KvSpec& spec_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<uint32_t> stamps_;
};

}  // namespace cachalot::kvcache
