// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/top_entries.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

namespace cachalot::kernels {
namespace {

// Puts the topk-th largest of `words` in its place and returns it.
uint64_t NthLargest(std::span<uint64_t> words, uint32_t topk) {
  const auto nth = words.begin() + (topk - 1);
  std::nth_element(words.begin(), nth, words.end(), std::greater<>());
  return *nth;
}

// The score of a candidate word; NaN for 0, which is none.
float CandidateScore(uint64_t candidate) {
  const auto ascending = static_cast<uint32_t>(candidate >> 32);
  return std::bit_cast<float>((ascending >> 31) != 0 ? ascending & 0x7FFFFFFFu : ~ascending);
}

}  // namespace

uint64_t CandidateWord(float score, uint32_t entry) {
  if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);
  // Negative numbers descend as their bits ascend.
  const uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{ascending} << 32 | static_cast<uint32_t>(~entry);
}

void SelectLargest(std::span<const uint64_t> candidates, uint32_t topk, std::span<uint64_t> spare,
                   uint32_t* selected) {
  uint64_t least = 0;
  if (candidates.size() > topk) {
    std::ranges::copy(candidates, spare.begin());
    least = NthLargest(spare.first(candidates.size()), topk);
  }
  for (const uint64_t candidate : candidates) {
    if (candidate >= least) *selected++ = CandidateEntry(candidate);
  }
}

void TopEntries::Add(size_t begin, std::span<const float> scores) {
  // Relaxed: a floor that comes late only lets more candidates in.
  uint64_t least = floor_.load(std::memory_order_relaxed);
  // Nearly all tiles of a long context end here. One without a floor yet does not.
  const float least_score = CandidateScore(least);
  bool any = least == 0;
  for (const float score : scores) any |= score >= least_score;
  if (!any) return;
  for (size_t i = 0; i < scores.size(); ++i) {
    const uint64_t word = CandidateWord(scores[i], static_cast<uint32_t>(begin + i));
    if (word < least) continue;
    buffer_[size_++] = word;
    if (size_ < 2 * size_t{topk_}) continue;
    Compact();
    least = floor_.load(std::memory_order_relaxed);
  }
}

void TopEntries::Compact() {
  std::copy_n(buffer_, size_, spare_);
  const uint64_t least = NthLargest({spare_, size_}, topk_);
  size_ = static_cast<size_t>(
      std::remove_if(buffer_, buffer_ + size_, [least](uint64_t word) { return word < least; }) -
      buffer_);
  uint64_t seen = floor_.load(std::memory_order_relaxed);
  while (seen < least && !floor_.compare_exchange_weak(seen, least, std::memory_order_relaxed)) {
  }
}

}  // namespace cachalot::kernels
