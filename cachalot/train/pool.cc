// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/pool.h"

#include <algorithm>
#include <cmath>

#include "cachalot/train/reduce.h"

namespace cachalot::train {
namespace {

// One token's part in an entry: its row, and the channel its part begins at.
struct PoolRow {
  size_t token;
  size_t channel;
};

std::vector<PoolRow> RowsOfEntry(const EntryPlan& plan, size_t e, bool overlap, size_t head_size) {
  std::vector<PoolRow> rows;
  const size_t r = plan.ratio;
  const size_t first = plan.first_token[e];
  if (overlap && plan.positions[e] > 0) {
    for (size_t p = first - r; p < first; ++p) rows.push_back({p, 0});
  }
  for (size_t p = first; p < first + r; ++p) rows.push_back({p, overlap ? head_size : 0});
  return rows;
}

// The weights of an entry, [rows, hd].
template <typename T>
void PoolWeights(MatView<const T> gate, const std::vector<PoolRow>& rows, size_t head_size,
                 T* weights) {
  std::vector<T> top(head_size);
  std::vector<T> sum(head_size, T{0});
  const auto gate_row = [&](size_t n) { return gate.Row(rows[n].token).data() + rows[n].channel; };
  std::copy_n(gate_row(0), head_size, top.data());
  for (size_t n = 1; n < rows.size(); ++n) {
    const T* g = gate_row(n);
    for (size_t i = 0; i < head_size; ++i) top[i] = std::max(top[i], g[i]);
  }
  for (size_t n = 0; n < rows.size(); ++n) {
    const T* g = gate_row(n);
    T* w = weights + n * head_size;
    for (size_t i = 0; i < head_size; ++i) w[i] = std::exp(g[i] - top[i]);
    for (size_t i = 0; i < head_size; ++i) sum[i] += w[i];
  }
  for (size_t n = 0; n < rows.size(); ++n) {
    T* w = weights + n * head_size;
    for (size_t i = 0; i < head_size; ++i) w[i] /= sum[i];
  }
}

template <typename T>
T* WeightScratch(const EntryPlan& plan, size_t head_size, size_t worker,
                 const kernels::Context& ctx) {
  return reinterpret_cast<T*>(
      ctx.pool->WorkerScratch(worker, 2 * plan.ratio * head_size * sizeof(T)));
}

}  // namespace

template <typename T>
void AddPositionBias(const Weight<T>& ape, const TrainBatch& batch, MatView<T> gate,
                     const kernels::Context& ctx) {
  ctx.pool->ParallelFor(batch.num_samples(), [&](size_t s, size_t) {
    for (size_t t = batch.sample_begin[s]; t < batch.sample_begin[s + 1]; ++t) {
      const T* bias = ape.value.Row((t - batch.sample_begin[s]) % ape.value.rows).data();
      T* g = gate.Row(t).data();
      for (size_t i = 0; i < gate.cols; ++i) g[i] += bias[i];
    }
  });
}

template <typename T>
void PositionBiasBackward(const Weight<T>& ape, const TrainBatch& batch, MatView<const T> d_gate,
                          const kernels::Context& ctx) {
  const size_t ratio = ape.grad.rows;
  ctx.pool->ParallelFor(ratio, [&](size_t row, size_t) {
    T* d = ape.grad.Row(row).data();
    for (size_t s = 0; s < batch.num_samples(); ++s) {
      for (size_t t = batch.sample_begin[s] + row; t < batch.sample_begin[s + 1]; t += ratio) {
        const T* g = d_gate.Row(t).data();
        for (size_t i = 0; i < d_gate.cols; ++i) d[i] += g[i];
      }
    }
  });
}

template <typename T>
void PoolForward(MatView<const T> k, MatView<const T> gate, const EntryPlan& plan, bool overlap,
                 MatView<T> y, const kernels::Context& ctx) {
  const size_t head_size = y.cols;
  CACHALOT_CHECK(k.cols == (overlap ? 2 : 1) * head_size && y.rows == plan.num_entries());
  ctx.pool->ParallelFor(y.rows, [&](size_t e, size_t worker) {
    const std::vector<PoolRow> rows = RowsOfEntry(plan, e, overlap, head_size);
    T* weights = WeightScratch<T>(plan, head_size, worker, ctx);
    PoolWeights(gate, rows, head_size, weights);
    const std::span<T> out = y.Row(e);
    std::ranges::fill(out, T{0});
    for (size_t n = 0; n < rows.size(); ++n) {
      const T* from = k.Row(rows[n].token).data() + rows[n].channel;
      const T* w = weights + n * head_size;
      for (size_t i = 0; i < head_size; ++i) out[i] += w[i] * from[i];
    }
  });
}

template <typename T>
void PoolBackward(MatView<const T> k, MatView<const T> gate, const EntryPlan& plan, bool overlap,
                  MatView<const T> d_y, MatView<T> d_k, MatView<T> d_gate,
                  const kernels::Context& ctx) {
  const size_t head_size = d_y.cols;
  ForTokenBlocks(k.rows, ctx, [&](size_t begin, size_t end) {
    std::fill(d_k.Row(begin).data(), d_k.Row(begin).data() + (end - begin) * d_k.cols, T{0});
    std::fill(d_gate.Row(begin).data(), d_gate.Row(begin).data() + (end - begin) * d_gate.cols,
              T{0});
  });
  ctx.pool->ParallelFor(d_y.rows, [&](size_t e, size_t worker) {
    const std::vector<PoolRow> rows = RowsOfEntry(plan, e, overlap, head_size);
    T* weights = WeightScratch<T>(plan, head_size, worker, ctx);
    PoolWeights(gate, rows, head_size, weights);
    const T* d = d_y.Row(e).data();
    std::vector<T> y(head_size, T{0});
    for (size_t n = 0; n < rows.size(); ++n) {
      const T* from = k.Row(rows[n].token).data() + rows[n].channel;
      const T* w = weights + n * head_size;
      for (size_t i = 0; i < head_size; ++i) y[i] += w[i] * from[i];
    }
    for (size_t n = 0; n < rows.size(); ++n) {
      const T* from = k.Row(rows[n].token).data() + rows[n].channel;
      const T* w = weights + n * head_size;
      T* to_k = d_k.Row(rows[n].token).data() + rows[n].channel;
      T* to_gate = d_gate.Row(rows[n].token).data() + rows[n].channel;
      for (size_t i = 0; i < head_size; ++i) to_k[i] = w[i] * d[i];
      for (size_t i = 0; i < head_size; ++i) to_gate[i] = w[i] * d[i] * (from[i] - y[i]);
    }
  });
}

#define CACHALOT_INSTANTIATE(T)                                                             \
  template void AddPositionBias(const Weight<T>&, const TrainBatch&, MatView<T>,            \
                                const kernels::Context&);                                   \
  template void PositionBiasBackward(const Weight<T>&, const TrainBatch&, MatView<const T>, \
                                     const kernels::Context&);                              \
  template void PoolForward(MatView<const T>, MatView<const T>, const EntryPlan&, bool,     \
                            MatView<T>, const kernels::Context&);                           \
  template void PoolBackward(MatView<const T>, MatView<const T>, const EntryPlan&, bool,    \
                             MatView<const T>, MatView<T>, MatView<T>, const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
