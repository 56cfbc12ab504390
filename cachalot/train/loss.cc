// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/loss.h"

#include <algorithm>
#include <cmath>

#include "cachalot/train/linear.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/row_ops.h"

namespace cachalot::train {
namespace {

// Columns of an embedding strip: a cache line or more of a row for each task.
constexpr size_t kStripColumns = 32;
// 16 MiB of float logits.
constexpr size_t kChunkLogits = size_t{4} << 20;

size_t ChunkTokens(size_t vocab) { return std::clamp<size_t>(kChunkLogits / vocab, 64, 4096); }

double Sum(const std::vector<double>& values) {
  double total = 0;
  for (const double v : values) total += v;
  return total;
}

}  // namespace

template <typename T>
void EmbedForward(const Weight<T>& embed, std::span<const uint32_t> ids, MatView<T> out,
                  const kernels::Context& ctx) {
  ForTokenBlocks(ids.size(), ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      std::copy_n(embed.value.Row(ids[t]).data(), out.cols, out.Row(t).data());
    }
  });
}

template <typename T>
void EmbedBackward(const Weight<T>& embed, std::span<const uint32_t> ids, MatView<const T> d_out,
                   const kernels::Context& ctx) {
  const size_t strips = (d_out.cols + kStripColumns - 1) / kStripColumns;
  ctx.pool->ParallelFor(strips, [&](size_t strip, size_t) {
    const size_t begin = strip * kStripColumns;
    const size_t end = std::min(d_out.cols, begin + kStripColumns);
    for (size_t t = 0; t < ids.size(); ++t) {
      T* grad = embed.grad.Row(ids[t]).data();
      const T* d = d_out.Row(t).data();
      for (size_t i = begin; i < end; ++i) grad[i] += d[i];
    }
  });
}

template <typename T>
double HeadLoss(MatView<const T> y, const Weight<T>& head, std::span<const uint32_t> targets,
                double scale, MatView<T> d_y, HeadScratch<T>& scratch,
                const kernels::Context& ctx) {
  const size_t vocab = head.value.rows;
  const size_t chunk = ChunkTokens(vocab);
  scratch.losses.assign(y.rows, 0.0);
  for (size_t first = 0; first < y.rows; first += chunk) {
    const size_t count = std::min(chunk, y.rows - first);
    const MatView<T> logits = scratch.logits.Resize(count, vocab);
    LinearForward(y.Rows(first, count), head, logits, ctx);
    ForTokenBlocks(count, ctx, [&](size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) {
        T* row = logits.Row(t).data();
        const uint32_t target = targets[first + t];
        if (target == kNoTarget) {
          std::fill_n(row, vocab, T{0});
          continue;
        }
        const T top = MaxRow(row, vocab, ctx);
        const T at_target = row[target] - top;
        const T sum = ExpRow(row, vocab, T{1}, top, ctx);
        scratch.losses[first + t] = static_cast<double>(std::log(sum) - at_target);
        // d loss / d logit = p - [target].
        const T factor = static_cast<T>(scale) / sum;
        for (size_t v = 0; v < vocab; ++v) row[v] *= factor;
        row[target] -= static_cast<T>(scale);
      }
    });
    if (scale == 0) continue;
    LinearBackward<T>(y.Rows(first, count), head, logits, d_y.Rows(first, count), ctx,
                      Write::kOverwrite);
  }
  return Sum(scratch.losses);
}

namespace {

// One token of the indexer's loss over the entries `ids`.
template <typename T>
double TokenDivergence(const T* scores, const T* mass, std::span<const uint32_t> ids, double scale,
                       T* d_scores) {
  T total = T{0};
  T top = scores[ids[0]];
  for (const uint32_t j : ids) {
    total += mass[j];
    top = std::max(top, scores[j]);
  }
  // A token whose attention is all in the window and the sink asks nothing of the indexer.
  if (!(total > T{0})) return 0;
  T sum = T{0};
  for (const uint32_t j : ids) sum += std::exp(scores[j] - top);
  const T log_sum = std::log(sum);
  double loss = 0;
  for (const uint32_t j : ids) {
    const T p = mass[j] / total;
    const T log_q = scores[j] - top - log_sum;
    if (p > T{0}) loss += static_cast<double>(p * (std::log(p) - log_q));
    d_scores[j] = static_cast<T>(scale) * (std::exp(log_q) - p);
  }
  return loss;
}

}  // namespace

template <typename T>
double IndexerLoss(MatView<const T> scores, MatView<const T> mass, const AttentionLayout& layout,
                   double scale, MatView<T> d_scores, const kernels::Context& ctx) {
  const TrainBatch& batch = layout.batch;
  std::vector<double> losses(batch.num_samples(), 0.0);
  ctx.pool->ParallelFor(losses.size(), [&](size_t s, size_t) {
    std::vector<uint32_t> all(scores.cols);
    for (uint32_t j = 0; j < all.size(); ++j) all[j] = j;
    for (size_t t = batch.sample_begin[s]; t < batch.sample_begin[s + 1]; ++t) {
      std::ranges::fill(d_scores.Row(t), T{0});
      std::span<const uint32_t> ids(all.data(),
                                    (t - batch.sample_begin[s] + 1) / layout.plan.ratio);
      if (!layout.selection.dense()) {
        const size_t begin = layout.selection.begin[t];
        ids = {layout.selection.ids.data() + begin, layout.selection.begin[t + 1] - begin};
      }
      if (ids.empty()) continue;
      losses[s] += TokenDivergence(scores.Row(t).data(), mass.Row(t).data(), ids, scale,
                                   d_scores.Row(t).data());
    }
  });
  return Sum(losses);
}

#define CACHALOT_INSTANTIATE(T)                                                                   \
  template void EmbedForward(const Weight<T>&, std::span<const uint32_t>, MatView<T>,             \
                             const kernels::Context&);                                            \
  template void EmbedBackward(const Weight<T>&, std::span<const uint32_t>, MatView<const T>,      \
                              const kernels::Context&);                                           \
  template double HeadLoss(MatView<const T>, const Weight<T>&, std::span<const uint32_t>, double, \
                           MatView<T>, HeadScratch<T>&, const kernels::Context&);                 \
  template double IndexerLoss(MatView<const T>, MatView<const T>, const AttentionLayout&, double, \
                              MatView<T>, const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
