// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cachalot/kernels/gemm.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/row_ops.h"

namespace cachalot::train {
namespace {

using kernels::GemmJobT;
using kernels::GemmSerial;

// Query tokens of a tile. With a window of 64, 32 tokens see 95 rows of which each uses 64; fewer
// would make the products too small to be fast.
constexpr size_t kTileTokens = 32;

// The rows a tile of tokens of one sample sees.
struct Tile {
  size_t sample_begin;  // token
  size_t begin, end;    // tokens
  size_t window_begin;  // first key token
  size_t entry_begin;   // first entry row
  size_t num_entries;   // visible to the last token

  size_t tokens() const { return end - begin; }
  size_t window_rows() const { return end - window_begin; }
  size_t columns() const { return window_rows() + num_entries; }
};

size_t NumTiles(const TrainBatch& batch, size_t sample) {
  return (batch.sample_length(sample) + kTileTokens - 1) / kTileTokens;
}

size_t VisibleEntries(const EntryPlan& plan, size_t position) {
  return plan.ratio == 0 ? 0 : (position + 1) / plan.ratio;
}

Tile MakeTile(const AttentionLayout& layout, size_t sample, size_t i) {
  const size_t sample_begin = layout.batch.sample_begin[sample];
  const size_t sample_end = layout.batch.sample_begin[sample + 1];
  const size_t begin = sample_begin + i * kTileTokens;
  const size_t end = std::min(begin + kTileTokens, sample_end);
  const size_t back = layout.config.window - 1;
  return {.sample_begin = sample_begin,
          .begin = begin,
          .end = end,
          .window_begin = begin - std::min(back, begin - sample_begin),
          .entry_begin = layout.plan.entry_begin[sample],
          .num_entries = VisibleEntries(layout.plan, end - 1 - sample_begin)};
}

// Scratch of a worker: two [rows, columns] matrices and the products' own.
template <typename T>
class TileScratch {
 public:
  TileScratch(const kernels::Context& ctx, size_t worker, size_t rows, size_t columns)
      : rows_(rows), columns_((columns + 15) / 16 * 16) {
    const size_t elements = rows_ * columns_;
    const size_t bytes = 2 * elements * sizeof(T) + kernels::kGemmScratchBytes + 64;
    gemm_ = ctx.pool->WorkerScratch(worker, bytes);
    first_ = reinterpret_cast<T*>(gemm_ + kernels::kGemmScratchBytes);
    second_ = first_ + elements;
  }
  MatView<T> first() const { return {first_, rows_, columns_}; }
  MatView<T> second() const { return {second_, rows_, columns_}; }
  uint8_t* gemm() const { return gemm_; }

 private:
  size_t rows_, columns_;
  uint8_t* gemm_;
  T* first_;
  T* second_;
};

// One tile of one sample with its operands as matrices of (token, head) rows.
template <typename T>
struct TileOps {
  const AttentionInputs<T>& in;
  const AttentionLayout& layout;
  const kernels::Context& ctx;
  Tile tile;

  size_t rows() const { return tile.tokens() * layout.config.heads; }
  template <typename U>
  MatView<U> HeadRows(MatView<U> x) const {
    const size_t d = layout.config.head_dim;
    return {x.data + tile.begin * x.stride, rows(), d};
  }
  MatView<const T> Window() const { return in.kv.Rows(tile.window_begin, tile.window_rows()); }
  MatView<const T> Entries() const {
    return tile.num_entries == 0 ? MatView<const T>(nullptr, 0, layout.config.head_dim)
                                 : in.entries.Rows(tile.entry_begin, tile.num_entries);
  }

  // out [rows, columns] = x . rows
  void TimesRows(MatView<const T> x, MatView<T> out, uint8_t* scratch) const {
    const size_t w = tile.window_rows();
    MatView<T> c(out.data, rows(), w, out.stride);
    GemmSerial(
        GemmJobT<T>{
            .a = x, .b = Window(), .c = c, .b_transposed = true, .bf16 = layout.config.bf16},
        scratch, ctx);
    if (tile.num_entries == 0) return;
    c = MatView<T>(out.data + w, rows(), tile.num_entries, out.stride);
    GemmSerial(
        GemmJobT<T>{
            .a = x, .b = Entries(), .c = c, .b_transposed = true, .bf16 = layout.config.bf16},
        scratch, ctx);
  }
  // out [rows, d] = weights [rows, columns] times the rows
  void SumRows(MatView<const T> weights, MatView<T> out, uint8_t* scratch) const {
    const size_t w = tile.window_rows();
    MatView<const T> a(weights.data, rows(), w, weights.stride);
    GemmSerial(GemmJobT<T>{.a = a, .b = Window(), .c = out, .bf16 = layout.config.bf16}, scratch,
               ctx);
    if (tile.num_entries == 0) return;
    a = MatView<const T>(weights.data + w, rows(), tile.num_entries, weights.stride);
    GemmSerial(
        GemmJobT<T>{
            .a = a, .b = Entries(), .c = out, .accumulate = true, .bf16 = layout.config.bf16},
        scratch, ctx);
  }
  // d_rows += weights^T x
  void AddToRows(MatView<const T> weights, MatView<const T> x, MatView<T> d_kv,
                 MatView<T> d_entries, uint8_t* scratch) const {
    const size_t w = tile.window_rows();
    MatView<const T> a(weights.data, rows(), w, weights.stride);
    MatView<T> c = d_kv.Rows(tile.window_begin, w);
    GemmSerial(GemmJobT<T>{.a = a,
                           .b = x,
                           .c = c,
                           .a_transposed = true,
                           .accumulate = true,
                           .bf16 = layout.config.bf16},
               scratch, ctx);
    if (tile.num_entries == 0) return;
    a = MatView<const T>(weights.data + w, rows(), tile.num_entries, weights.stride);
    c = d_entries.Rows(tile.entry_begin, tile.num_entries);
    GemmSerial(GemmJobT<T>{.a = a,
                           .b = x,
                           .c = c,
                           .a_transposed = true,
                           .accumulate = true,
                           .bf16 = layout.config.bf16},
               scratch, ctx);
  }

  // Window columns [first, first + count) that token t sees.
  size_t WindowFirst(size_t t) const {
    const size_t back = std::min(layout.config.window - 1, t - tile.sample_begin);
    return t - back - tile.window_begin;
  }
  size_t WindowCount(size_t t) const {
    return std::min(layout.config.window, t - tile.sample_begin + 1);
  }
  // Calls run(first, count) for the columns token t sees, ascending: the window, then runs of
  // neighboring entries.
  template <typename Run>
  void ForColumns(size_t t, Run&& run) const {
    run(WindowFirst(t), WindowCount(t));
    const size_t base = tile.window_rows();
    if (layout.selection.dense()) {
      const size_t visible = VisibleEntries(layout.plan, t - tile.sample_begin);
      if (visible > 0) run(base, visible);
      return;
    }
    const uint32_t* ids = layout.selection.ids.data();
    size_t i = layout.selection.begin[t];
    const size_t end = layout.selection.begin[t + 1];
    while (i < end) {
      size_t next = i + 1;
      while (next < end && ids[next] == ids[next - 1] + 1) ++next;
      run(base + ids[i], next - i);
      i = next;
    }
  }
};

template <typename T>
void SoftmaxTile(const TileOps<T>& ops, const T* sink, MatView<T> scores, MatView<T> lse) {
  const size_t heads = ops.layout.config.heads;
  const T scale = static_cast<T>(ops.layout.config.scale);
  for (size_t row = 0; row < ops.rows(); ++row) {
    const size_t t = ops.tile.begin + row / heads;
    const size_t h = row % heads;
    T* s = scores.Row(row).data();
    T top = -std::numeric_limits<T>::infinity();
    ops.ForColumns(t, [&](size_t first, size_t count) {
      top = std::max(top, scale * MaxRow(s + first, count, ops.ctx));
    });
    T sum = std::exp(sink[h] - top);
    // Columns between the runs are masked: zero, so that products over whole rows are right.
    size_t at = 0;
    ops.ForColumns(t, [&](size_t first, size_t count) {
      std::fill(s + at, s + first, T{0});
      sum += ExpRow(s + first, count, scale, top, ops.ctx);
      at = first + count;
    });
    std::fill(s + at, s + ops.tile.columns(), T{0});
    const T inverse = T{1} / sum;
    for (size_t i = 0; i < ops.tile.columns(); ++i) s[i] *= inverse;
    lse.Row(t)[h] = top + std::log(sum);
  }
}

template <typename T>
void AddMass(const TileOps<T>& ops, MatView<const T> p, MatView<T> entry_mass) {
  const size_t heads = ops.layout.config.heads;
  for (size_t t = ops.tile.begin; t < ops.tile.end; ++t) {
    const std::span<T> mass = entry_mass.Row(t);
    std::ranges::fill(mass, T{0});
    for (size_t h = 0; h < heads; ++h) {
      const T* row = p.Row((t - ops.tile.begin) * heads + h).data() + ops.tile.window_rows();
      for (size_t j = 0; j < ops.tile.num_entries; ++j) mass[j] += row[j];
    }
  }
}

// scores -> probabilities from lse, and d_p -> d_s = p (d_p - delta) scale; masked columns zero.
template <typename T>
void SoftmaxBackwardTile(const TileOps<T>& ops, MatView<const T> lse, MatView<const T> delta,
                         MatView<T> scores, MatView<T> d_scores) {
  const size_t heads = ops.layout.config.heads;
  const T scale = static_cast<T>(ops.layout.config.scale);
  for (size_t row = 0; row < ops.rows(); ++row) {
    const size_t t = ops.tile.begin + row / heads;
    const size_t h = row % heads;
    T* p = scores.Row(row).data();
    T* d = d_scores.Row(row).data();
    const T shift = delta.Row(t)[h];
    size_t at = 0;
    ops.ForColumns(t, [&](size_t first, size_t count) {
      std::fill(p + at, p + first, T{0});
      std::fill(d + at, d + first, T{0});
      ExpRow(p + first, count, scale, lse.Row(t)[h], ops.ctx);
      for (size_t i = first; i < first + count; ++i) d[i] = p[i] * (d[i] - shift) * scale;
      at = first + count;
    });
    std::fill(p + at, p + ops.tile.columns(), T{0});
    std::fill(d + at, d + ops.tile.columns(), T{0});
  }
}

// d lse / d sink = exp(sink - lse), and raising lse takes delta of it from every output.
template <typename T>
void SinkBackward(const Weight<T>& sink, MatView<const T> lse, MatView<const T> delta,
                  const kernels::Context& ctx) {
  const size_t heads = lse.cols;
  SumOverTokens(lse.rows, heads, sink.grad.data, ctx,
                [&](size_t begin, size_t end, T* partial, size_t) {
                  for (size_t t = begin; t < end; ++t) {
                    for (size_t h = 0; h < heads; ++h) {
                      const T p = std::exp(sink.value.data[h] - lse.Row(t)[h]);
                      partial[h] -= p * delta.Row(t)[h];
                    }
                  }
                });
}

}  // namespace

template <typename T>
void AttentionForward(const AttentionInputs<T>& in, const Weight<T>& sink,
                      const AttentionLayout& layout, MatView<T> out, AttentionSaved<T>& saved,
                      MatView<T> entry_mass, const kernels::Context& ctx) {
  saved.lse.Resize(in.q.rows, layout.config.heads);
  std::vector<std::pair<size_t, size_t>> tasks;  // (sample, tile)
  for (size_t s = 0; s < layout.batch.num_samples(); ++s) {
    for (size_t i = 0; i < NumTiles(layout.batch, s); ++i) tasks.emplace_back(s, i);
  }
  ctx.pool->ParallelFor(tasks.size(), [&](size_t task, size_t worker) {
    const TileOps<T> ops{in, layout, ctx, MakeTile(layout, tasks[task].first, tasks[task].second)};
    const TileScratch<T> scratch(ctx, worker, ops.rows(), ops.tile.columns());
    ops.TimesRows(ops.HeadRows(in.q), scratch.first(), scratch.gemm());
    SoftmaxTile(ops, sink.value.data, scratch.first(), saved.lse.view());
    ops.SumRows(scratch.first(), ops.HeadRows(out), scratch.gemm());
    if (entry_mass.data != nullptr) AddMass<T>(ops, scratch.first(), entry_mass);
  });
}

template <typename T>
void AttentionBackward(const AttentionInputs<T>& in, const Weight<T>& sink,
                       const AttentionLayout& layout, const AttentionSaved<T>& saved,
                       MatView<const T> delta, const AttentionGradients<T>& gradients,
                       const kernels::Context& ctx) {
  ctx.pool->ParallelFor(layout.batch.num_samples(), [&](size_t sample, size_t worker) {
    const auto clear = [&](MatView<T> d, size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) std::ranges::fill(d.Row(r), T{0});
    };
    clear(gradients.d_kv, layout.batch.sample_begin[sample], layout.batch.sample_begin[sample + 1]);
    clear(gradients.d_entries, layout.plan.entry_begin[sample],
          layout.plan.entry_begin[sample + 1]);
    for (size_t i = 0; i < NumTiles(layout.batch, sample); ++i) {
      const TileOps<T> ops{in, layout, ctx, MakeTile(layout, sample, i)};
      const TileScratch<T> scratch(ctx, worker, ops.rows(), ops.tile.columns());
      const MatView<T> p = scratch.first();
      const MatView<T> d_s = scratch.second();
      const MatView<const T> q = ops.HeadRows(in.q);
      const MatView<const T> d_out = ops.HeadRows(gradients.d_out);
      ops.TimesRows(q, p, scratch.gemm());
      ops.TimesRows(d_out, d_s, scratch.gemm());
      SoftmaxBackwardTile<T>(ops, saved.lse.view(), delta, p, d_s);
      ops.SumRows(d_s, ops.HeadRows(gradients.d_q), scratch.gemm());
      ops.AddToRows(d_s, q, gradients.d_kv, gradients.d_entries, scratch.gemm());
      ops.AddToRows(p, d_out, gradients.d_kv, gradients.d_entries, scratch.gemm());
    }
  });
  SinkBackward(sink, saved.lse.view(), delta, ctx);
}

#define CACHALOT_INSTANTIATE(T)                                                          \
  template void AttentionForward(const AttentionInputs<T>&, const Weight<T>&,            \
                                 const AttentionLayout&, MatView<T>, AttentionSaved<T>&, \
                                 MatView<T>, const kernels::Context&);                   \
  template void AttentionBackward(const AttentionInputs<T>&, const Weight<T>&,           \
                                  const AttentionLayout&, const AttentionSaved<T>&,      \
                                  MatView<const T>, const AttentionGradients<T>&,        \
                                  const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
