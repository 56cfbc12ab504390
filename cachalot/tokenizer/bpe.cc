// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "cachalot/base/check.h"

namespace cachalot::tokenizer {
namespace {

using Symbol = BpeScratch::Symbol;
constexpr uint32_t kNone = BpeScratch::kNone;

uint64_t PairOf(uint32_t left, uint32_t right) { return (uint64_t{left} << 32) | right; }

class PieceMerger {
 public:
  PieceMerger(const MergeTable& merges, BpeScratch& scratch)
      : merges_(merges), symbols_(scratch.symbols), heap_(scratch.heap) {}

  void Run(std::string_view piece, const std::array<uint32_t, 256>& byte_ids) {
    Fill(piece, byte_ids);
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t candidate = heap_.back();
      heap_.pop_back();
      const auto left = static_cast<uint32_t>(candidate);
      if (symbols_[left].rank == candidate >> 32) Apply(left);
    }
  }

 private:
  void Fill(std::string_view piece, const std::array<uint32_t, 256>& byte_ids) {
    const auto n = static_cast<uint32_t>(piece.size());
    symbols_.resize(n);
    heap_.clear();
    for (uint32_t i = 0; i < n; ++i) {
      symbols_[i] = {.id = byte_ids[static_cast<uint8_t>(piece[i])],
                     .previous = i == 0 ? kNone : i - 1,
                     .next = i + 1 == n ? kNone : i + 1,
                     .rank = kNone,
                     .product = 0};
    }
    for (uint32_t i = 0; i < n; ++i) {
      if (FindMerge(i)) heap_.push_back(CandidateOf(i));
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  uint64_t CandidateOf(uint32_t left) const { return PairOf(symbols_[left].rank, left); }

  // Looks up the merge of a symbol with the one after it.
  bool FindMerge(uint32_t index) {
    Symbol& left = symbols_[index];
    const Merge* merge =
        left.next == kNone ? nullptr : merges_.Find(left.id, symbols_[left.next].id);
    left.rank = merge == nullptr ? kNone : merge->rank;
    left.product = merge == nullptr ? 0 : merge->product;
    return merge != nullptr;
  }

  void Offer(uint32_t left) {
    if (!FindMerge(left)) return;
    heap_.push_back(CandidateOf(left));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void Apply(uint32_t index) {
    Symbol& left = symbols_[index];
    Symbol& right = symbols_[left.next];
    right.rank = kNone;
    left.id = left.product;
    left.next = right.next;
    if (left.next != kNone) symbols_[left.next].previous = index;
    Offer(index);
    if (left.previous != kNone) Offer(left.previous);
  }

  const MergeTable& merges_;
  std::vector<Symbol>& symbols_;
  std::vector<uint64_t>& heap_;
};

}  // namespace

MergeTable::MergeTable(size_t num_merges) : slots_(std::bit_ceil(2 * num_merges + 2)) {}

size_t MergeTable::SlotOf(uint64_t pair) const {
  // Multiplying by an odd constant near 2^64 / golden ratio spreads neighboring ids; the upper
  // half of the product depends on all bits.
  const size_t mask = slots_.size() - 1;
  size_t slot = ((pair * 0x9E3779B97F4A7C15u) >> 32) & mask;
  while (slots_[slot].pair != kEmpty && slots_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

bool MergeTable::Insert(uint32_t left, uint32_t right, Merge merge) {
  Slot& slot = slots_[SlotOf(PairOf(left, right))];
  if (slot.pair != kEmpty) return false;
  slot = {PairOf(left, right), merge};
  return true;
}

const Merge* MergeTable::Find(uint32_t left, uint32_t right) const {
  const Slot& slot = slots_[SlotOf(PairOf(left, right))];
  return slot.pair == kEmpty ? nullptr : &slot.merge;
}

void EncodePiece(std::string_view piece, const std::array<uint32_t, 256>& byte_ids,
                 const MergeTable& merges, BpeScratch& scratch, std::vector<uint32_t>& ids) {
  CACHALOT_CHECK(piece.size() < kNone);
  PieceMerger(merges, scratch).Run(piece, byte_ids);
  for (uint32_t i = piece.empty() ? kNone : 0; i != kNone; i = scratch.symbols[i].next) {
    ids.push_back(scratch.symbols[i].id);
  }
}

}  // namespace cachalot::tokenizer
