// SPDX-License-Identifier: Apache-2.0
// What a training step reads, and where its tokens lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cachalot::train {

inline constexpr uint32_t kNoTarget = UINT32_MAX;

// Independent samples one after the other. Attention, positions, compression blocks and the balance
// loss stay within a sample, so a packed row is simply several samples.
struct TrainBatch {
  // Samples are [sample_begin[i], sample_begin[i + 1]); the last entry is ids.size(). None is
  // empty.
  std::vector<size_t> sample_begin;
  std::vector<uint32_t> ids;          // [T]
  std::vector<uint32_t> targets;      // [T] next token, or kNoTarget (not part of the loss)
  std::vector<uint32_t> mtp_ids;      // [T] the token fed to the MTP block beside position t
  std::vector<uint32_t> mtp_targets;  // [T] or kNoTarget

  size_t num_tokens() const { return ids.size(); }
  size_t num_samples() const { return sample_begin.empty() ? 0 : sample_begin.size() - 1; }
  size_t sample_length(size_t i) const { return sample_begin[i + 1] - sample_begin[i]; }
  size_t max_length() const {
    size_t longest = 0;
    for (size_t i = 0; i < num_samples(); ++i) {
      if (sample_length(i) > longest) longest = sample_length(i);
    }
    return longest;
  }
};

// Appends a sample of tokens[0 .. n + 2): position t < n reads tokens[t], predicts tokens[t + 1];
// the MTP block is fed tokens[t + 1] and predicts tokens[t + 2].
inline void AppendSample(const uint32_t* tokens, size_t n, TrainBatch& batch) {
  if (batch.sample_begin.empty()) batch.sample_begin.push_back(0);
  for (size_t t = 0; t < n; ++t) {
    batch.ids.push_back(tokens[t]);
    batch.targets.push_back(tokens[t + 1]);
    batch.mtp_ids.push_back(tokens[t + 1]);
    batch.mtp_targets.push_back(tokens[t + 2]);
  }
  batch.sample_begin.push_back(batch.ids.size());
}

// Where compressed entries of ratio r lie: those of sample i are rows
// [entry_begin[i], entry_begin[i + 1]), entry j of it covers tokens r j .. r j + r - 1 of the
// sample.
struct EntryPlan {
  size_t ratio = 0;
  std::vector<size_t> entry_begin{0};
  std::vector<size_t> first_token;  // [entries] in the batch, of block j
  std::vector<uint32_t> positions;  // [entries] r j, where the entry is rotated [model.md 4.7]
  size_t num_entries() const { return first_token.size(); }
};

inline EntryPlan MakeEntryPlan(const TrainBatch& batch, size_t ratio) {
  EntryPlan plan;
  plan.ratio = ratio;
  for (size_t i = 0; i < batch.num_samples(); ++i) {
    for (size_t j = 0; ratio > 0 && j < batch.sample_length(i) / ratio; ++j) {
      plan.first_token.push_back(batch.sample_begin[i] + j * ratio);
      plan.positions.push_back(static_cast<uint32_t>(j * ratio));
    }
    plan.entry_begin.push_back(plan.first_token.size());
  }
  return plan;
}

}  // namespace cachalot::train
