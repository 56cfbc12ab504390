// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/indexer.h"

#include <algorithm>

#include "cachalot/kernels/gemm.h"
#include "cachalot/train/reduce.h"

namespace cachalot::train {
namespace {

using kernels::GemmJobT;
using kernels::GemmSerial;

constexpr size_t kTileTokens = 8;  // 64 heads make 512 rows of them

// Tokens [begin, end) of a sample and the entries visible to the last.
struct Tile {
  size_t sample_begin, begin, end, entry_begin, num_entries;
};

std::vector<Tile> SampleTiles(const TrainBatch& batch, const EntryPlan& plan, size_t s) {
  std::vector<Tile> tiles;
  const size_t first = batch.sample_begin[s];
  const size_t last = batch.sample_begin[s + 1];
  for (size_t t = first; t < last; t += kTileTokens) {
    const size_t end = std::min(last, t + kTileTokens);
    tiles.push_back({first, t, end, plan.entry_begin[s], (end - first) / plan.ratio});
  }
  return tiles;
}

// (token, head) rows of the queries of a tile.
template <typename T>
MatView<T> HeadRows(MatView<T> x, const Tile& tile, size_t heads) {
  return {x.data + tile.begin * x.stride, (tile.end - tile.begin) * heads, x.cols / heads};
}

// Room for `matrices` of dots [kTileTokens * heads, entries] behind the products' own scratch.
template <typename T>
T* DotScratch(const kernels::Context& ctx, size_t worker, size_t elements) {
  uint8_t* scratch =
      ctx.pool->WorkerScratch(worker, kernels::kGemmScratchBytes + elements * sizeof(T));
  return reinterpret_cast<T*>(scratch + kernels::kGemmScratchBytes);
}

template <typename T>
uint8_t* GemmScratch(T* dots) {
  return reinterpret_cast<uint8_t*>(dots) - kernels::kGemmScratchBytes;
}

template <typename T>
MatView<T> TileDots(const IndexerInputs<T>& in, const Tile& tile, T* memory,
                    const kernels::Context& ctx) {
  const MatView<const T> q = HeadRows(in.q, tile, in.heads);
  const MatView<T> dots(memory, q.rows, tile.num_entries);
  GemmSerial(GemmJobT<T>{.a = q,
                         .b = in.keys.Rows(tile.entry_begin, tile.num_entries),
                         .c = dots,
                         .b_transposed = true},
             GemmScratch(memory), ctx);
  return dots;
}

template <typename T>
void ScoreToken(MatView<const T> dots, const T* weights, size_t first_row, size_t heads,
                std::span<T> scores) {
  std::ranges::fill(scores, T{0});
  for (size_t h = 0; h < heads; ++h) {
    const T* dot = dots.Row(first_row + h).data();
    const T w = weights[h];
    for (size_t j = 0; j < scores.size(); ++j) scores[j] += w * std::max(dot[j], T{0});
  }
}

// The `out.size()` largest, ascending by index.
template <typename T>
void TopEntries(std::span<const T> scores, std::vector<uint32_t>& order, std::span<uint32_t> out) {
  order.resize(scores.size());
  for (uint32_t j = 0; j < order.size(); ++j) order[j] = j;
  if (out.size() < order.size()) {
    std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(out.size()), order.end(),
                     [&](uint32_t a, uint32_t b) {
                       return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                     });
  }
  std::copy_n(order.begin(), out.size(), out.begin());
  std::ranges::sort(out);
}

EntrySelection EmptySelection(const TrainBatch& batch, const EntryPlan& plan, size_t topk) {
  EntrySelection selection;
  selection.begin.push_back(0);
  for (size_t s = 0; s < batch.num_samples(); ++s) {
    for (size_t p = 0; p < batch.sample_length(s); ++p) {
      selection.begin.push_back(selection.begin.back() + std::min(topk, (p + 1) / plan.ratio));
    }
  }
  selection.ids.resize(selection.begin.back());
  return selection;
}

}  // namespace

template <typename T>
EntrySelection SelectEntries(const IndexerInputs<T>& in, const TrainBatch& batch,
                             const EntryPlan& plan, MatView<T> scores,
                             const kernels::Context& ctx) {
  EntrySelection selection = EmptySelection(batch, plan, in.topk);
  std::vector<Tile> tiles;
  for (size_t s = 0; s < batch.num_samples(); ++s) {
    for (const Tile& tile : SampleTiles(batch, plan, s)) tiles.push_back(tile);
  }
  ctx.pool->ParallelFor(tiles.size(), [&](size_t task, size_t worker) {
    const Tile& tile = tiles[task];
    T* memory = DotScratch<T>(ctx, worker, (kTileTokens * in.heads + 1) * tile.num_entries);
    const MatView<T> dots = TileDots(in, tile, memory, ctx);
    T* row = memory + dots.rows * dots.cols;
    std::vector<uint32_t> order;
    for (size_t t = tile.begin; t < tile.end; ++t) {
      const std::span<T> seen(row, (t - tile.sample_begin + 1) / plan.ratio);
      ScoreToken<T>(dots, in.weights.Row(t).data(), (t - tile.begin) * in.heads, in.heads, seen);
      if (scores.data != nullptr) {
        std::ranges::fill(scores.Row(t), T{0});
        std::ranges::copy(seen, scores.Row(t).begin());
      }
      const size_t begin = selection.begin[t];
      TopEntries<T>(seen, order, {selection.ids.data() + begin, selection.begin[t + 1] - begin});
    }
  });
  return selection;
}

template <typename T>
void IndexerBackward(const IndexerInputs<T>& in, const TrainBatch& batch, const EntryPlan& plan,
                     MatView<const T> d_scores, const IndexerGradients<T>& gradients,
                     const kernels::Context& ctx) {
  // dots -> gradient of the dots; d_weights on the way.
  const auto token = [&](size_t t, size_t first_row, MatView<T> dots) {
    const T* d_score = d_scores.Row(t).data();
    for (size_t h = 0; h < in.heads; ++h) {
      T* dot = dots.Row(first_row + h).data();
      const T w = in.weights.Row(t)[h];
      T d_weight = T{0};
      for (size_t j = 0; j < dots.cols; ++j) {
        d_weight += d_score[j] * std::max(dot[j], T{0});
        dot[j] = dot[j] > T{0} ? d_score[j] * w : T{0};
      }
      gradients.d_weights.Row(t)[h] = d_weight;
    }
  };
  ctx.pool->ParallelFor(batch.num_samples(), [&](size_t s, size_t worker) {
    for (const Tile& tile : SampleTiles(batch, plan, s)) {
      T* memory = DotScratch<T>(ctx, worker, kTileTokens * in.heads * tile.num_entries);
      const MatView<T> dots = TileDots(in, tile, memory, ctx);
      for (size_t t = tile.begin; t < tile.end; ++t) {
        token(t, (t - tile.begin) * in.heads, dots);
      }
      const MatView<const T> keys = in.keys.Rows(tile.entry_begin, tile.num_entries);
      GemmSerial(GemmJobT<T>{.a = dots, .b = keys, .c = HeadRows(gradients.d_q, tile, in.heads)},
                 GemmScratch(memory), ctx);
      GemmSerial(GemmJobT<T>{.a = dots,
                             .b = HeadRows(in.q, tile, in.heads),
                             .c = gradients.d_keys.Rows(tile.entry_begin, tile.num_entries),
                             .a_transposed = true,
                             .accumulate = true},
                 GemmScratch(memory), ctx);
    }
  });
}

#define CACHALOT_INSTANTIATE(T)                                                                 \
  template EntrySelection SelectEntries(const IndexerInputs<T>&, const TrainBatch&,             \
                                        const EntryPlan&, MatView<T>, const kernels::Context&); \
  template void IndexerBackward(const IndexerInputs<T>&, const TrainBatch&, const EntryPlan&,   \
                                MatView<const T>, const IndexerGradients<T>&,                   \
                                const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
