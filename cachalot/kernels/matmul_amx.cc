// SPDX-License-Identifier: Apache-2.0
// BF16 products on matrix tiles (Sapphire Rapids and later): 16 rows of weights by 16 tokens by 32
// columns an instruction, where vdpbf16ps does 1 by 1 by 32. It takes 5 ns however many tokens
// there are; widening its 512 weights takes 16, bringing them from memory 26 (docs/log.md,
// 2026-11-30).
//
// Weights are widened by the readers of matmul_x86.cc into tiles of 16 rows, one behind the other:
// they are the left operand. x is the right one, [pairs of columns][tokens]: a row of x as it is
// for one token, transposed for more. Vector v of 32 columns (in the reader's order) adds to
// accumulator v % 4, since a product waits four times as long for its accumulator as for the unit;
// (0 + 1) + (2 + 3) ends it. That order is the same in both ways a panel can run:
//   up to 32 tokens   a step of 16 rows is widened into L1 and used at once
//   more              the panel is widened whole into L2, 32 tokens pass over it, a pass for each
//                     accumulator: 2 x 2 tiles of outputs are four chains again
// Subnormals count as zero: see matmul_x86.cc.
#include "cachalot/kernels/matmul_panel.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
PanelFn<BF16>* AmxPanelBF16() { return nullptr; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,amx-tile,amx-bf16")
#include "cachalot/kernels/amx_tiles-inl.h"
#include "cachalot/kernels/weight_readers_x86-inl.h"

namespace cachalot::kernels {
namespace {

using Panel = MatMulPanel<BF16>;

constexpr uint32_t kRows = kAmxRows;            // of weights in a tile
constexpr size_t kVector = kAmxK;               // columns of a tile
constexpr size_t kTileWords = kRows * kVector;  // of a tile of weights
constexpr size_t kTileTokens = kAmxRows;        // of a tile of x
constexpr size_t kFewTokens = 2 * kTileTokens;
constexpr size_t kManyTokens = 2 * kTileTokens;  // that pass over a panel together
constexpr size_t kManyRows = 2 * kRows;
constexpr size_t kChains = 4;
constexpr size_t kTileFloats = kAmxRows * kAmxRows;
// Of each row; see matmul_x86.cc. To L2: 16 rows are more than L1 has room for beside the tiles.
constexpr size_t kLeadBytes = 1024;

// The scratch of a task, see BF16ScratchBytes.
struct Scratch {
  explicit Scratch(const Panel& panel) : padded(PaddedCols(panel.job->w.cols)) {
    widened = reinterpret_cast<uint16_t*>(panel.scratch);
    sums = reinterpret_cast<float*>(widened + WidenedWords(panel.job->w.cols));
    x = reinterpret_cast<uint32_t*>(sums + kBlockTokens * kGroupRows * 16);
    dealt = reinterpret_cast<uint16_t*>(x + kManyTokens * padded / 2);
    row = reinterpret_cast<float*>(reinterpret_cast<uint16_t*>(x) +
                                   kBlockTokens * (padded + kVector));
    reader = reinterpret_cast<uint8_t*>(row + padded);
  }
  size_t padded;
  uint16_t* widened;  // [vectors][16][32], of the panel or twice of a step
  float* sums;        // [kChains][tiles][16][columns]
  uint32_t* x;        // [tiles][vectors][16 pairs][columns]
  uint16_t* dealt;    // [kTileTokens][padded]: rows of x in the reader's order
  float* row;         // [padded]
  uint8_t* reader;    // what a reader makes of scales
};
static_assert(kBlockTokens >= kManyTokens + kTileTokens && kFewTokens <= kManyTokens);
static_assert(kBlockTokens * kGroupRows * 16 >= kChains * 4 * kTileFloats);

template <class Reader>
size_t NumVectors(size_t cols) {
  return (cols + Reader::kStep - 1) / Reader::kStep * Reader::kVectors;
}

// Row m of x in the reader's order.
template <class Reader>
const uint16_t* TokenRow(const Panel& panel, size_t m, uint16_t* packed) {
  if (Reader::kOrder == Order::kNibbles && panel.job->dealt.data != nullptr) {
    return reinterpret_cast<const uint16_t*>(panel.DealtRow(m));
  }
  return InOrder<Reader>(panel.XRow(m), panel.job->w.cols, packed);
}

// Tokens [m, m + count) as the right operand: out [vectors][16 pairs][columns], zeros behind.
template <class Reader>
void PackTokens(const Panel& panel, size_t m, size_t count, size_t columns, const Scratch& scratch,
                uint32_t* out) {
  const uint16_t* x[kTileTokens];
  for (size_t i = 0; i < count; ++i) {
    x[i] = TokenRow<Reader>(panel, m + i, scratch.dealt + i * scratch.padded);
  }
  const auto live = static_cast<__mmask16>(LowBits32(columns));
  const size_t vectors = NumVectors<Reader>(panel.job->w.cols);
  for (size_t v = 0; v < vectors; ++v) {
    __m512i rows[16];
    for (size_t i = 0; i < 16; ++i) {
      rows[i] = i < count ? _mm512_loadu_si512(x[i] + v * kVector) : _mm512_setzero_si512();
    }
    TransposeDwords(rows);
    for (size_t p = 0; p < kAmxPairs; ++p, out += columns) {
      _mm512_mask_storeu_epi32(out, live, rows[p]);
    }
  }
}

// A step's tiles times x, into chains (2, 3) or (0, 1) by turns for steps of two vectors.
template <class Reader>
HWY_INLINE void MultiplyStep(const uint16_t* w, const uint32_t* x, size_t columns, size_t step) {
  const size_t stride = columns * sizeof(uint32_t);
  const size_t tile = kAmxPairs * columns;
  MemoryFence();
  if (Reader::kVectors == 4 || step % 2 == 0) {
    _tile_loadd(4, w, 64);
    _tile_loadd(6, x, stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + kTileWords, 64);
    _tile_loadd(7, x + tile, stride);
    _tile_dpbf16ps(1, 5, 7);
  }
  if (Reader::kVectors == 4 || step % 2 == 1) {
    const size_t at = Reader::kVectors - 2;
    _tile_loadd(4, w + at * kTileWords, 64);
    _tile_loadd(6, x + at * tile, stride);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, w + (at + 1) * kTileWords, 64);
    _tile_loadd(7, x + (at + 1) * tile, stride);
    _tile_dpbf16ps(3, 5, 7);
  }
  MemoryFence();
}

HWY_INLINE void ZeroChains() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
// Tiles 0 to 3 to sums, sums + step, ...
HWY_INLINE void StoreTiles(float* sums, size_t step, size_t stride) {
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + step, stride);
  _tile_stored(2, sums + 2 * step, stride);
  _tile_stored(3, sums + 3 * step, stride);
  MemoryFence();
}

// 16 floats of a tile from its four chains, which are `step` floats apart.
HWY_INLINE __m512 SumChains(const float* sums, size_t step) {
  return _mm512_add_ps(
      _mm512_add_ps(_mm512_loadu_ps(sums), _mm512_loadu_ps(sums + step)),
      _mm512_add_ps(_mm512_loadu_ps(sums + 2 * step), _mm512_loadu_ps(sums + 3 * step)));
}

// Outputs of tokens [m, m + tokens) and rows from n on, of which `count` are real, from the sums of
// a tile [16][columns].
void StoreOutputs(float* sums, size_t step, size_t columns, const MatView<float>& y, size_t m,
                  size_t tokens, uint32_t n, uint32_t count) {
  const auto live = static_cast<__mmask16>(LowBits32(std::min<uint32_t>(count, 16)));
  float* out = y.data + m * y.stride + n;
  if (columns == 1) return _mm512_mask_storeu_ps(out, live, SumChains(sums, step));
  if (columns == 16) {
    __m512i rows[16];
    for (size_t r = 0; r < 16; ++r) rows[r] = _mm512_castps_si512(SumChains(sums + r * 16, step));
    TransposeDwords(rows);
    for (size_t i = 0; i < tokens; ++i) {
      _mm512_mask_storeu_ps(out + i * y.stride, live, _mm512_castsi512_ps(rows[i]));
    }
    return;
  }
  for (size_t i = 0; i < 16 * columns; i += 16) {
    _mm512_storeu_ps(sums + i, SumChains(sums + i, step));
  }
  for (size_t i = 0; i < tokens; ++i) {
    for (size_t r = 0; r < std::min<size_t>(count, 16); ++r) {
      out[i * y.stride + r] = sums[r * columns + i];
    }
  }
}

// The x of a job of few tokens as right operands, a tile behind the other.
struct FewX {
  const uint32_t* x;
  size_t columns;  // of a tile
  size_t vectors;
  const uint32_t* Tile(size_t t) const { return x + t * vectors * kAmxPairs * columns; }
};

template <class Reader>
FewX PackFew(const Panel& panel, const Scratch& scratch) {
  const size_t tokens = panel.job->y.rows;
  const size_t vectors = NumVectors<Reader>(panel.job->w.cols);
  if (tokens == 1) {
    // Pairs of one column lie as in the row itself.
    const uint16_t* row = TokenRow<Reader>(panel, 0, scratch.dealt);
    return {reinterpret_cast<const uint32_t*>(row), 1, vectors};
  }
  const FewX out{scratch.x, tokens <= 4 ? size_t{4} : tokens <= 8 ? 8 : 16, vectors};
  for (size_t m = 0; m < tokens && !panel.again; m += kTileTokens) {
    uint32_t* tile = scratch.x + m / kTileTokens * vectors * kAmxPairs * out.columns;
    PackTokens<Reader>(panel, m, std::min(kTileTokens, tokens - m), out.columns, scratch, tile);
  }
  return out;
}

// The sums of 16 rows for one tile of x. A step is multiplied when the next one has been widened:
// tile loads do not take bytes out of the store buffer, they wait until these are in L1.
template <class Reader>
void MultiplyUnit(const Reader& reader, const WeightView& w, const uint32_t* x, size_t columns,
                  const Scratch& scratch) {
  constexpr size_t kStepTiles = Reader::kVectors * kTileWords;
  const size_t steps = w.cols / Reader::kStep;
  const size_t rest = w.cols % Reader::kStep;
  const size_t step_x = Reader::kVectors * kAmxPairs * columns;
  const auto tile = [&](size_t step) { return scratch.widened + step % 2 * kStepTiles; };
  const auto multiply = [&](size_t step) {
    MultiplyStep<Reader>(tile(step), x + step * step_x, columns, step);
  };
  Reader from = reader;  // a copy in registers
  Upcoming<kToL2, kRows> next(w, kLeadBytes);
  ZeroChains();
  for (size_t step = 0; step < steps; ++step) {
    WidenStep(from, next, step, tile(step));
    if (step > 0) multiply(step - 1);
  }
  if (steps > 0) multiply(steps - 1);
  if (rest != 0) {
    WidenTail(from, steps, rest, tile(steps));
    multiply(steps);
  }
  StoreTiles(scratch.sums, kAmxRows * columns, columns * sizeof(float));
}

// Up to kFewTokens tokens. Two tiles of x have the weights widened twice: the second time they are
// in the caches, and a panel widened whole is slower (docs/log.md, 2026-11-30).
template <class Reader>
uint64_t MultiplyFew(const Panel& panel, const Scratch& scratch) {
  const size_t tokens = panel.job->y.rows;
  const FewX x = PackFew<Reader>(panel, scratch);
  const Tiles tiles(x.columns);
  Reader reader(panel.job->w, panel.begin, scratch.reader);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kRows) {
    const uint32_t n = panel.begin + g;
    const uint32_t count = std::min(kRows, panel.count - g);
    reader.StartGroup(n, count);
    slow |= uint64_t{reader.slow} << g;
    for (size_t m = 0; m < tokens; m += kTileTokens) {
      MultiplyUnit(reader, panel.job->w, x.Tile(m / kTileTokens), x.columns, scratch);
      StoreOutputs(scratch.sums, kAmxRows * x.columns, x.columns, panel.job->y, m,
                   std::min(kTileTokens, tokens - m), n, count);
    }
  }
  return slow;
}

// Two tiles of weights times two of x: chains of their four outputs, one pass each.
void MultiplyTiles(const uint16_t* w0, const uint16_t* w1, const uint32_t* x0, const uint32_t* x1,
                   size_t vectors, float* sums) {
  MemoryFence();
  for (size_t chain = 0; chain < kChains; ++chain) {
    ZeroChains();
    for (size_t v = chain; v < vectors; v += kChains) {
      _tile_loadd(4, w0 + v * kTileWords, 64);
      _tile_loadd(6, x0 + v * kTileFloats, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, x1 + v * kTileFloats, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, w1 + v * kTileWords, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    StoreTiles(sums + chain * 4 * kTileFloats, kTileFloats, 64);
  }
}

template <class Reader>
uint64_t WidenPanel(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const size_t steps = w.cols / Reader::kStep;
  Reader reader(w, panel.begin, scratch.reader);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kRows) {
    reader.StartGroup(panel.begin + g, std::min(kRows, panel.count - g));
    slow |= uint64_t{reader.slow} << g;
    Reader from = reader;
    Upcoming<kToL2, kRows> next(w, w.row_bytes());
    uint16_t* out = scratch.widened + g * scratch.padded;
    for (size_t step = 0; step < steps; ++step, out += Reader::kVectors * kTileWords) {
      WidenStep(from, next, step, out);
    }
    if (w.cols % Reader::kStep != 0) WidenTail(from, steps, w.cols % Reader::kStep, out);
  }
  return slow;
}

template <class Reader>
uint64_t MultiplyMany(const Panel& panel, const Scratch& scratch) {
  const uint64_t slow = WidenPanel<Reader>(panel, scratch);
  const size_t vectors = NumVectors<Reader>(panel.job->w.cols);
  const size_t tokens = panel.job->y.rows;
  uint32_t* x1 = scratch.x + vectors * kTileFloats;
  const Tiles tiles;
  for (size_t m = 0; m < tokens; m += kManyTokens) {
    const size_t count = std::min(kManyTokens, tokens - m);
    const size_t count0 = std::min(kTileTokens, count);
    PackTokens<Reader>(panel, m, count0, kTileTokens, scratch, scratch.x);
    PackTokens<Reader>(panel, m + count0, count - count0, kTileTokens, scratch, x1);
    for (uint32_t g = 0; g < panel.count; g += kManyRows) {
      const uint32_t g1 = std::min(g + kRows, (panel.count - 1) / kRows * kRows);  // or g again
      MultiplyTiles(scratch.widened + g * scratch.padded, scratch.widened + g1 * scratch.padded,
                    scratch.x, x1, vectors, scratch.sums);
      for (size_t tile = 0; tile < 4; ++tile) {
        const uint32_t at = tile < 2 ? g : g1;
        const size_t first = tile % 2 * kTileTokens;
        if (first >= count) continue;
        StoreOutputs(scratch.sums + tile * kTileFloats, 4 * kTileFloats, 16, panel.job->y,
                     m + first, std::min(kTileTokens, count - first), panel.begin + at,
                     panel.count - at);
      }
    }
  }
  return slow;
}

// Bits do not depend on the way taken (see the top), so the number of tokens may choose it.
template <class Reader>
void RunPanel(const Panel& panel) {
  const Scratch scratch(panel);
  const uint64_t slow = panel.job->y.rows <= kFewTokens ? MultiplyFew<Reader>(panel, scratch)
                                                        : MultiplyMany<Reader>(panel, scratch);
  if (slow != 0) MultiplyByReference(panel, slow, scratch.row);
}

void Run(const Panel& panel) {
  switch (panel.job->w.kind) {
    case WeightKind::kF32:
      break;  // refused by MatMul
    case WeightKind::kBF16:
      return RunPanel<ReaderBF16<kRows> >(panel);
    case WeightKind::kFP8:
      return RunPanel<ReaderFP8<kRows> >(panel);
    case WeightKind::kFP4:
      return RunPanel<ReaderFP4<kRows> >(panel);
  }
}

}  // namespace

PanelFn<BF16>* AmxPanelBF16() { return &Run; }

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
