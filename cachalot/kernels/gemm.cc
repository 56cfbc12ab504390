// SPDX-License-Identifier: Apache-2.0
// Checks the jobs, cuts their outputs into tiles and runs the code of ctx.target on each.
#include "cachalot/kernels/gemm.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/kernels/gemm_tile.h"

namespace cachalot::kernels {
namespace {

// Tiles smaller than this spend more on packing B than they gain by keeping a thread busy.
constexpr size_t kMinTileRows = 64;
// Equal tiles: two a thread keep the threads level unless one is taken away for long.
constexpr size_t kTilesPerThread = 2;

size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

template <typename T>
void CheckJob(const GemmJobT<T>& job) {
  const size_t m = job.a_transposed ? job.a.cols : job.a.rows;
  const size_t a_depth = job.a_transposed ? job.a.rows : job.a.cols;
  const size_t b_depth = job.b_transposed ? job.b.cols : job.b.rows;
  const size_t n = job.b_transposed ? job.b.rows : job.b.cols;
  CACHALOT_CHECK(m == job.c.rows && n == job.c.cols && a_depth == b_depth);
}

// The code of each kind of job.
struct TileFns {
  explicit TileFns(const Context& ctx) {
    if (ctx.path == Path::kReference) return;
    if (GemmTileFn* fn = HighwayGemmTile(ctx.target); fn != nullptr) f32 = bf16 = fn;
    GemmTileFn* fn = nullptr;
    if (ctx.target == Target::kAvx512Bf16) fn = X86GemmTileBF16();
    if (ctx.target == Target::kAmxBf16) fn = AmxGemmTileBF16();
    if (fn != nullptr) bf16 = fn;
  }
  // Sums of nothing are left to the reference: the others have K >= 1.
  void Run(const GemmTile& tile) const {
    if (tile.depth() == 0) return ref::GemmTileReference(tile);
    tile.job->bf16 ? bf16(tile) : f32(tile);
  }

  GemmTileFn* f32 = &ref::GemmTileReference;
  GemmTileFn* bf16 = &ref::GemmTileReference;
};

// Tiles of one job: all have `rows` rows but the last ones.
struct Cut {
  size_t rows = kGemmMaxTileRows;
  size_t row_tiles(const GemmJob& job) const { return CeilDiv(job.c.rows, rows); }
  size_t col_tiles(const GemmJob& job) const { return CeilDiv(job.c.cols, kGemmMaxTileCols); }
  size_t tiles(const GemmJob& job) const { return row_tiles(job) * col_tiles(job); }

  GemmTile Tile(const GemmJob& job, size_t i) const {
    const size_t m = i / col_tiles(job) * rows;
    const size_t n = i % col_tiles(job) * kGemmMaxTileCols;
    return {.job = &job,
            .m = m,
            .rows = std::min(rows, job.c.rows - m),
            .n = n,
            .cols = std::min(kGemmMaxTileCols, job.c.cols - n)};
  }
};

size_t NumTiles(std::span<const GemmJob> jobs, const Cut& cut) {
  size_t total = 0;
  for (const GemmJob& job : jobs) total += cut.tiles(job);
  return total;
}

}  // namespace

void Gemm(std::span<const GemmJob> jobs, const Context& ctx) {
  for (const GemmJob& job : jobs) CheckJob(job);
  // The cut may depend on the number of threads: no bit does.
  Cut cut;
  const size_t threads = ctx.pool->num_threads();
  while (threads > 1 && cut.rows > kMinTileRows &&
         NumTiles(jobs, cut) < kTilesPerThread * threads) {
    cut.rows /= 2;
  }
  const TileFns fns(ctx);
  ctx.pool->ParallelFor(NumTiles(jobs, cut), [&](size_t task, size_t worker) {
    size_t j = 0;
    for (; task >= cut.tiles(jobs[j]); ++j) task -= cut.tiles(jobs[j]);
    GemmTile tile = cut.Tile(jobs[j], task);
    tile.scratch = reinterpret_cast<float*>(ctx.pool->WorkerScratch(worker, kGemmScratchBytes));
    fns.Run(tile);
  });
}

void GemmSerial(const GemmJob& job, uint8_t* scratch, const Context& ctx) {
  CheckJob(job);
  const TileFns fns(ctx);
  const Cut cut;
  for (size_t i = 0; i < cut.tiles(job); ++i) {
    GemmTile tile = cut.Tile(job, i);
    tile.scratch = reinterpret_cast<float*>(scratch);
    fns.Run(tile);
  }
}

void Gemm(std::span<const GemmJobT<double>> jobs, const Context& ctx) {
  ctx.pool->ParallelFor(jobs.size(), [&](size_t i, size_t) { GemmSerial(jobs[i], nullptr, ctx); });
}

void GemmSerial(const GemmJobT<double>& job, uint8_t* /*scratch*/, const Context& /*ctx*/) {
  CheckJob(job);
  const size_t depth = job.a_transposed ? job.a.rows : job.a.cols;
  for (size_t m = 0; m < job.c.rows; ++m) {
    const std::span<double> c = job.c.Row(m);
    if (!job.accumulate) std::ranges::fill(c, 0.0);
    for (size_t k = 0; k < depth; ++k) {
      const double a = job.a_transposed ? job.a.Row(k)[m] : job.a.Row(m)[k];
      const double* b = job.b_transposed ? job.b.data + k : job.b.Row(k).data();
      const size_t step = job.b_transposed ? job.b.stride : 1;
      for (size_t n = 0; n < c.size(); ++n) c[n] += a * b[n * step];
    }
  }
}

namespace ref {

void GemmTileReference(const GemmTile& tile) {
  const GemmJob& job = *tile.job;
  const size_t depth = tile.depth();
  for (size_t m = tile.m; m < tile.m + tile.rows; ++m) {
    for (size_t n = tile.n; n < tile.n + tile.cols; ++n) {
      float sum = job.accumulate ? job.c.Row(m)[n] : 0.0f;
      for (size_t k0 = 0; k0 < depth; k0 += kGemmBlockK) {
        float block = 0.0f;
        for (size_t k = k0; k < std::min(depth, k0 + kGemmBlockK); ++k) {
          const float a = job.a_transposed ? job.a.Row(k)[m] : job.a.Row(m)[k];
          const float b = job.b_transposed ? job.b.Row(n)[k] : job.b.Row(k)[n];
          block += a * b;
        }
        sum += block;
      }
      job.c.Row(m)[n] = sum;
    }
  }
}

}  // namespace ref
}  // namespace cachalot::kernels
