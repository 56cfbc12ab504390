// SPDX-License-Identifier: Apache-2.0
// KV state of sequences: compressed entries in shared blocks, everything else in a state slot.
// [report.md 2.3, 10; design.md 4; docs/design/kvcache.md]
//
//   BlockPool   compressed CSA / HCA entries and index keys, in blocks of kBlockTokens tokens over
//               all layers; reference-counted; immutable once complete
//   Sequence    a block table and one state slot: window ring of every layer (MTP included) and the
//               compressor tails; a function of the tokens up to its position only
//
// Window ring: W + kMaxRewind rows, position p at row p % capacity. Compressor tails: raw (k, gate)
// float32 rows of the last 2r + kMaxRewind (CSA, main and index) or r + kMaxRewind (HCA) tokens.
// So rewinding up to kMaxRewind tokens only moves the position: every row the shorter sequence
// needs is still there, and entries that rejected tokens emitted are overwritten when their block
// is reached again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/tensor/kv_layout.h"

namespace cachalot::kvcache {

inline constexpr uint32_t kBlockTokens = 128;  // lcm of the ratios 4 and 128
inline constexpr uint32_t kMaxRewind = 16;

// What the cache must know of a model.
struct KvSpec {
  KvFormat format = KvFormat::kNative;
  uint32_t head_dim = 0;
  uint32_t rope_dim = 0;
  uint32_t index_head_dim = 0;
  uint32_t sliding_window = 0;
  // One per layer with a window: main layers, then the draft layers. 0 window only, 4 CSA, 128 HCA.
  std::vector<uint32_t> compress_ratios;

  Status Validate() const;
  KvLayout window_layout() const;
  KvLayout compressed_layout(size_t layer) const;  // keys only where the ratio is 4
  size_t layer_block_bytes(size_t layer) const;    // compressed bytes of one block in one layer
  size_t block_bytes() const;                      // over all layers: 449,824 for Flash
  size_t state_bytes() const;                      // one state slot
};

// Thread-safety: none; one owner (the engine's step loop) allocates, references and frees. Reading
// complete blocks from kernel threads at the same time is safe.
class BlockPool {
 public:
  // Reserves address space for `num_blocks` blocks; memory is used as blocks are first written.
  // kResourceExhausted if the system refuses.
  static Result<std::unique_ptr<BlockPool>> Create(const KvSpec& spec, size_t num_blocks);
  ~BlockPool();

  const KvSpec& spec() const { return spec_; }
  size_t num_blocks() const { return ref_counts_.size(); }
  size_t num_free() const { return free_.size(); }
  size_t bytes_in_use() const { return (num_blocks() - num_free()) * spec_.block_bytes(); }

  // A block with one reference; kResourceExhausted when none is free.
  Result<BlockId> Allocate();
  void AddRef(BlockId id);
  void Release(BlockId id);  // the last reference returns it to the pool

  // This layer's blocks; block `id` starts at slab + id * spec().layer_block_bytes(layer).
  uint8_t* slab(size_t layer) { return slabs_[layer]; }

 private:
  BlockPool() = default;

  KvSpec spec_;
  uint8_t* base_ = nullptr;
  size_t mapped_bytes_ = 0;
  std::vector<uint8_t*> slabs_;
  std::vector<uint32_t> ref_counts_;
  std::vector<BlockId> free_;
};

// Raw rows of one compressor: token p's k and gate at p % capacity.
struct TailView {
  float* k = nullptr;     // [capacity][width]
  float* gate = nullptr;  // [capacity][width]
  uint32_t capacity = 0;
  uint32_t width = 0;  // 2 * head size (CSA) or head size (HCA)
};

// Byte offsets of the parts of a state slot. Tails (float32) come first so that they are aligned.
struct SlotLayout {
  explicit SlotLayout(const KvSpec& spec);

  std::vector<size_t> main_tail;   // per layer; unused where the ratio is 0
  std::vector<size_t> index_tail;  // per layer; unused but in CSA layers
  std::vector<size_t> window;      // per layer
  size_t bytes = 0;
};

class Sequence {
 public:
  // The pool outlives the sequence. kResourceExhausted without memory for the slot.
  static Result<std::unique_ptr<Sequence>> Create(BlockPool& pool);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Tokens whose KV is complete; the position of the next token.
  uint32_t position() const { return position_; }
  // The furthest position it ever was at since it was reset or restored.
  uint32_t furthest_position() const { return high_water_; }
  // It cannot be rewound to before this: rows that a token there reads were never here. 0 unless it
  // came from packed state or a replay. [packed_state.h]
  uint32_t rewind_floor() const { return rewind_floor_; }
  // Until here entries exist already: tokens before it attend to them and emit none.
  uint32_t replay_end() const { return replay_end_; }
  // Window positions before it do not exist; 0 unless replaying.
  uint32_t window_begin() const { return window_begin_; }

  // Makes room for `num_tokens` more: allocates the blocks their entries need.
  // kResourceExhausted leaves the sequence as it was.
  Status Reserve(uint32_t num_tokens);
  // The forward pass has written the state of `num_tokens` tokens (reserved before).
  void Advance(uint32_t num_tokens);
  // Drops the last `num_tokens`. kInvalidArgument if that goes more than kMaxRewind tokens back
  // from the furthest position reached (restore a saved state and replay instead).
  Status Rewind(uint32_t num_tokens);
  // Back to position 0, blocks released.
  void Reset();
  // Goes on at `position` with rows that were written from outside; room for it is reserved.
  void ResumeAt(uint32_t position);
  // Goes on at `begin` with an empty window, to recompute the state at `end` (see ReplayTokens)
  // against entries that are there already; room for `end` tokens is reserved and their blocks are
  // filled. States before `end` are wrong: nobody may save them. [report.md 10.4]
  void Replay(uint32_t begin, uint32_t end);

  // Per layer (index as in KvSpec::compress_ratios).
  KvRows window(size_t layer);
  CompressedView compressed(size_t layer) const;
  // Row of entry j for writing; its block is reserved.
  struct EntrySlot {
    KvRows rows;
    size_t row;
  };
  EntrySlot entry(size_t layer, uint32_t j);
  TailView main_tail(size_t layer);   // ratio != 0
  TailView index_tail(size_t layer);  // ratio 4

  std::span<const BlockId> blocks() const { return blocks_; }
  const KvSpec& spec() const { return pool_.spec(); }

  // The state slot as bytes (position included): with the same blocks it restores the same future
  // bits.
  void SaveState(std::vector<uint8_t>& out) const;
  // Takes a reference on each of `blocks`, which cover the saved position and hold what they held
  // when it was saved; they may be this sequence's own. A block that is not complete, or can be
  // reached by a rewind, is written to again: nobody else may go on in it.
  // kInvalidArgument if the state is not of this model's shape or the blocks do not cover it; then
  // nothing changed.
  Status RestoreState(std::span<const uint8_t> state, std::span<const BlockId> blocks);

 private:
  struct FreeMemory {
    void operator()(uint8_t* p) const { std::free(p); }
  };

  explicit Sequence(BlockPool& pool);

  BlockPool& pool_;
  SlotLayout layout_;
  std::unique_ptr<uint8_t, FreeMemory> slot_;  // layout_.bytes: all tails and rings
  std::vector<BlockId> blocks_;
  uint32_t position_ = 0;
  // Furthest position the rings were written to: rows older than capacity before it are gone, so
  // rewinding is bounded from here, not from position_.
  uint32_t high_water_ = 0;
  uint32_t rewind_floor_ = 0;
  uint32_t replay_end_ = 0;
  uint32_t window_begin_ = 0;
};

// Tokens before a block edge that must be replayed so that the state there is exact: layer l's
// input is right from l (W - 1) tokens after the start on, and at the edge the last W rows of the
// last layer are wanted (or the 4 raw rows that the next CSA entry reads, if W is smaller). At most
// the paper's n_win * L for W >= 4. [report.md 10.4]
uint32_t ReplayTokens(const KvSpec& spec, uint32_t num_layers);

}  // namespace cachalot::kvcache
