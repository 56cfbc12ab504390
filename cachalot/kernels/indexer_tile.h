// SPDX-License-Identifier: Apache-2.0
// Inside of indexer: the task and the code that runs it. Not for other modules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "cachalot/kernels/attention_tile.h"
#include "cachalot/kernels/indexer.h"

namespace cachalot::kernels {

inline constexpr size_t kMaxKeyDim = 1024;

// Takes the scores of entries begin, begin + 1, ...: non-owning reference to a callable
// void(size_t begin, std::span<const float> scores).
class ScoreSink {
 public:
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, ScoreSink>)
      ScoreSink(F&& f)  // NOLINT: implicit, lives only for the call
      : object_(&f), call_([](void* object, size_t begin, std::span<const float> scores) {
          (*static_cast<std::remove_reference_t<F>*>(object))(begin, scores);
        }) {}
  void operator()(size_t begin, std::span<const float> scores) const {
    call_(object_, begin, scores);
  }

 private:
  void* object_;
  void (*call_)(void*, size_t, std::span<const float>);
};

// Entries [begin, end) of one query; begin is a multiple of kTileRows. The sink gets tiles of up to
// kTileRows entries, ascending.
struct IndexTask {
  const IndexQuery* query = nullptr;
  uint32_t heads = 0;
  size_t begin = 0;
  size_t end = 0;
  uint8_t* scratch = nullptr;  // IndexScratchBytes, 64-byte aligned
  ScoreSink sink;
};

// Of the products of floats, in 4-byte words: the tile as rows, packed and transposed, q, and
// scores of four heads.
constexpr size_t FloatIndexScratchBytes(size_t key_dim, size_t heads) {
  const size_t d = PaddedDim(key_dim);
  return 4 * (2 * kTileRows * TileStride(d) + kTileRows * d + RoundUp(heads, kHeadBlock) * d +
              kHeadBlock * kTileRows);
}

// Of the integer products: q in bytes, two scalars a head, and a tile of keys in bytes with a scale
// each. Rows are whole chunks of 128 dims, heads whole vectors.
constexpr size_t IntegerIndexScratchBytes(size_t key_dim, size_t heads) {
  const size_t d = RoundUp(key_dim, 128);
  return (d + 8) * RoundUp(heads, 16) + kTileRows * (d + 4);
}

constexpr size_t IndexScratchBytes(size_t key_dim, size_t heads) {
  return FloatIndexScratchBytes(key_dim, heads) + IntegerIndexScratchBytes(key_dim, heads);
}

// Products of floats; `score_bf16` null or not.
using IndexFn = void(const IndexTask& task, ScoreFn* score_bf16);
IndexFn* HighwayIndexScores(Target target);  // null: the reference runs instead

// Exact integer products (AVX-512 VNNI); hands over to `floats` what the integers cannot hold.
void X86IndexScores(const IndexTask& task, IndexFn* floats, ScoreFn* score_bf16);
bool HasX86IndexScores(Target target);  // whether this build and target have it

}  // namespace cachalot::kernels
