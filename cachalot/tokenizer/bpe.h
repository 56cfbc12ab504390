// SPDX-License-Identifier: Apache-2.0
// Byte-pair merging of one piece of text: lowest rank first, leftmost on ties. [chat.md 2.2]
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace cachalot::tokenizer {

struct Merge {
  uint32_t rank;
  uint32_t product;  // id
};

// Pair of ids -> merge. Open addressing in one flat array, since every byte of text asks at least
// once and a node-based map would miss the cache for each.
class MergeTable {
 public:
  explicit MergeTable(size_t num_merges);
  // False if the pair is there already.
  bool Insert(uint32_t left, uint32_t right, Merge merge);
  const Merge* Find(uint32_t left, uint32_t right) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge{};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair: ids stay below 2^32 - 1

  size_t SlotOf(uint64_t pair) const;  // where the pair is or belongs

  std::vector<Slot> slots_;  // a power of two, at most half full
};

// Reused from piece to piece; not shared between threads.
class BpeScratch {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // A run of merged bytes; a doubly linked list over an array, so that merging moves nothing.
  struct Symbol {
    uint32_t id;
    uint32_t previous, next;  // index, kNone at the ends
    uint32_t rank;            // of the merge with `next`; kNone: none, or this is merged away
    uint32_t product;         // of that merge
  };

  std::vector<Symbol> symbols;
  // Candidates, rank << 32 | index of the left symbol: the order of merging in one comparison, and
  // a third of the memory traffic of a heap of structs (megabytes, for a piece of a megabyte). One
  // whose rank is not the symbol's any more is stale.
  std::vector<uint64_t> heap;
};

// Appends the ids of `piece` to `ids`. O(n log n): every merge retires one symbol and adds at most
// two candidates. `byte_ids` are the ids of the 256 single bytes. Pre: piece.size() < 2^32 - 1.
void EncodePiece(std::string_view piece, const std::array<uint32_t, 256>& byte_ids,
                 const MergeTable& merges, BpeScratch& scratch, std::vector<uint32_t>& ids);

}  // namespace cachalot::tokenizer
