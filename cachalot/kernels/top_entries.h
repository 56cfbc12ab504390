// SPDX-License-Identifier: Apache-2.0
// The best of a stream of scores in one pass, without sorting and without keeping them all. Inside
// of indexer; not for other modules.
//
// A candidate is one word that orders as it should: the score's bits made ascending above, the
// inverted entry index below. So the larger word has the larger score, ties go to the lower index,
// no two candidates are equal, and the `topk` largest words are the same set however the entries
// were cut into stretches and in whatever order those ran.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace cachalot::kernels {

// NaN counts as -infinity, -0 as 0.
uint64_t CandidateWord(float score, uint32_t entry);
inline uint32_t CandidateEntry(uint64_t candidate) { return ~static_cast<uint32_t>(candidate); }

// Writes the entries of the `topk` largest of `candidates` (all, if fewer) in their order. `spare`
// holds candidates.size() words. O(n), allocates nothing.
void SelectLargest(std::span<const uint64_t> candidates, uint32_t topk, std::span<uint64_t> spare,
                   uint32_t* selected);

// Candidates of one stretch of entries. At most 2 topk are held: when the room is used up, those
// below the topk-th best go. A stretch that has topk candidates tells the others of its query its
// worst one (`floor`): what is below that is in nobody's best.
class TopEntries {
 public:
  // buffer and spare: 2 topk words each. floor: shared by the stretches of a query, 0 at first.
  TopEntries(uint32_t topk, uint64_t* buffer, uint64_t* spare, uint64_t* floor)
      : topk_(topk), buffer_(buffer), spare_(spare), floor_(*floor) {}

  // Scores of entries begin, begin + 1, ...; calls ascend.
  void Add(size_t begin, std::span<const float> scores);
  // Ascending by entry.
  std::span<const uint64_t> candidates() const { return {buffer_, size_}; }

 private:
  void Compact();

  uint32_t topk_;
  uint64_t* buffer_;
  uint64_t* spare_;
  std::atomic_ref<uint64_t> floor_;
  size_t size_ = 0;
};

}  // namespace cachalot::kernels
