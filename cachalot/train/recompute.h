// SPDX-License-Identifier: Apache-2.0
// Which activations are made again in the backward pass instead of kept: a choice by tensor.
// [V4 3.4.2, 3.4.4; report.md 9.6, 9.7; docs/design/train.md]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace cachalot::train {

// Tensors of a layer that the backward pass reads and can make again. What each holds for a token,
// in floats, and from what it is made:
enum class Recomputable : uint8_t {
  kStreams,          // M D before either half, from the half before: of most halves, see below
  kMixed,            // D in each half, the pre map's mix of the streams
  kNormed,           // D in each half, its norm: what attention and MoE read
  kQueryLatent,      // 2 qr, product with wq_a and its norm
  kQueryProjection,  // H d, product with wq_b
  kQueries,          // H d, the heads of that normed and rotated
  kWindowEntries,    // 2 d, product with wkv; normed, rotated and in its format
  kOutputLatent,     // G R, the groups' products with wo_a
  kCompressor,       // k and gate: 4 d (CSA) or 2 d (HCA), 4 index_head_dim of the indexer
  kIndexQueries,     // index_n_heads index_head_dim, product with the indexer's wq_b
  kIndexScores,      // length / 4, what the indexer gives each entry
  kExpertGateUp,     // products with w1 and w3: 2 I for each chosen expert and the shared one
};

// As recipes spell them, in the order of Recomputable.
std::span<const std::string_view> RecomputableNames();

// A set of them; empty by default: everything is kept. A plain value.
class RecomputeSet {
 public:
  void Add(Recomputable tensor) { bits_ |= Bit(tensor); }
  bool contains(Recomputable tensor) const { return (bits_ & Bit(tensor)) != 0; }

 private:
  static uint32_t Bit(Recomputable tensor) { return uint32_t{1} << static_cast<uint32_t>(tensor); }
  uint32_t bits_ = 0;
};

// Halves (attention and MoE of each main layer, `halves` of them in order) form groups of g:
// streams are kept before half i if i % g == g - 1, and the g - 1 before it are made again from
// those of the group before (the first group's from the embedding), all of a group at a time. So
// floor(N / g) + g - 1 streams lie in memory; this is the smallest g for which that is least, about
// sqrt(N). [mHC 4.3.2 eq. 20] counts n + 2 instead of n for what a group needs, since there all its
// mixed and normed inputs are made at once; here each is made when it is read. 1: all are kept.
size_t StreamGroupSize(size_t halves, const RecomputeSet& recompute);
// Whether the streams before half i are kept; g from above.
inline bool KeepsStreams(size_t half, size_t group_size) {
  return half % group_size == group_size - 1;
}

}  // namespace cachalot::train
