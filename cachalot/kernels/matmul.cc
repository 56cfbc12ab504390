// SPDX-License-Identifier: Apache-2.0
// Checks the jobs, cuts them into panels of rows and runs the code of ctx.target on each.
#include "cachalot/kernels/matmul.h"

#include <algorithm>
#include <array>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/kernels/elementwise_simd.h"
#include "cachalot/kernels/matmul_panel.h"
#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/traffic.h"

namespace cachalot::kernels {
namespace {

template <typename X>
void ReferencePanel(const MatMulPanel<X>& panel) {
  ref::MatMulRows(*panel.job, panel.begin, panel.count,
                  {reinterpret_cast<float*>(panel.scratch), panel.job->w.cols});
}

PanelFn<float>* ChoosePanelFn(const Context& ctx, const MatMulJob<float>*) {
  return ctx.path == Path::kReference ? nullptr : HighwayPanelF32(ctx.target);
}

PanelFn<BF16>* ChoosePanelFn(const Context& ctx, const MatMulJob<BF16>*) {
  if (ctx.path == Path::kReference) return nullptr;
  if (ctx.target == Target::kAmxBf16) return AmxPanelBF16();
  return ctx.target == Target::kAvx512Bf16 ? X86PanelBF16() : HighwayPanelBF16(ctx.target);
}

template <typename X>
void CheckJob(const MatMulJob<X>& job) {
  const WeightView& w = job.w;
  CACHALOT_CHECK(job.y.cols == w.rows);
  CACHALOT_CHECK(job.y.rows == 0 || job.x.cols == w.cols);
  CACHALOT_CHECK(w.kind != WeightKind::kFP4 || w.cols % kFP4Block == 0);
  CACHALOT_CHECK((!std::is_same_v<X, BF16>) || w.kind != WeightKind::kF32);
  CACHALOT_CHECK(w.kind == WeightKind::kF32 || w.kind == WeightKind::kBF16 || w.scales != nullptr ||
                 w.rows == 0 || w.cols == 0);
  if (job.x_rows == nullptr) {
    CACHALOT_CHECK(job.y.rows <= job.x.rows);
  } else {
    for (size_t m = 0; m < job.y.rows; ++m) CACHALOT_CHECK(job.x_rows[m] < job.x.rows);
  }
}

template <typename X>
size_t NumPanels(const MatMulJob<X>& job) {
  const uint32_t rows = PanelRows(job.w.cols);
  return job.y.rows == 0 ? 0 : (size_t{job.w.rows} + rows - 1) / rows;
}

// Panels are numbered memory node after node, in a node job after job, in a job row after row: a
// worker's range of tasks is rows of its own node, and neighbors. [threading/placement.h]
// A step of many tokens has hundreds of jobs (two matrices an expert), and walking them all took a
// fifth of a panel's time: this remembers the first panel of every `stride`th stretch (a job in a
// node), on the stack.
template <typename X>
class PanelIndex {
 public:
  PanelIndex(std::span<const MatMulJob<X>> jobs, const NodeParts& parts)
      : jobs_(jobs), parts_(parts), stride_(jobs.size() * parts.num() / kEntries + 1) {
    for (size_t s = 0; s < jobs.size() * parts.num(); ++s) {
      if (s % stride_ == 0) starts_[used_++] = num_panels_;
      num_panels_ += PanelsOf(s).count;
    }
  }

  size_t num_panels() const { return num_panels_; }

  MatMulPanel<X> Find(size_t panel) const {
    const auto end = starts_.begin() + static_cast<ptrdiff_t>(used_);
    const auto entry = std::upper_bound(starts_.begin(), end, panel) - starts_.begin() - 1;
    panel -= starts_[static_cast<size_t>(entry)];
    size_t s = static_cast<size_t>(entry) * stride_;
    Stretch stretch = PanelsOf(s);
    for (; panel >= stretch.count; stretch = PanelsOf(++s)) panel -= stretch.count;
    const MatMulJob<X>& job = jobs_[s % jobs_.size()];
    const uint32_t rows = PanelRows(job.w.cols);
    const uint32_t begin = static_cast<uint32_t>(stretch.first + panel) * rows;
    return {&job, begin, std::min(rows, job.w.rows - begin)};
  }

 private:
  struct Stretch {
    size_t first = 0;  // panel of its job
    size_t count = 0;
  };
  Stretch PanelsOf(size_t s) const {
    const size_t all = NumPanels(jobs_[s % jobs_.size()]);
    const size_t part = s / jobs_.size();
    const size_t first = parts_.Begin(all, part);
    return {first, parts_.Begin(all, part + 1) - first};
  }

  static constexpr size_t kEntries = 512;
  std::span<const MatMulJob<X>> jobs_;
  const NodeParts& parts_;
  size_t stride_;
  size_t used_ = 0;
  size_t num_panels_ = 0;
  std::array<size_t, kEntries> starts_;
};

template <typename X>
void RunJobs(std::span<const MatMulJob<X>> jobs, const Context& ctx) {
  PanelFn<X>* run = ChoosePanelFn(ctx, jobs.data());
  if (run == nullptr) run = &ReferencePanel<X>;
  for (const MatMulJob<X>& job : jobs) CheckJob(job);
  const PanelIndex<X> index(jobs, ctx.pool->parts());
  std::array<const MatMulJob<X>*, 256> last{};  // of the first workers
  ctx.pool->ParallelFor(index.num_panels(), [&](size_t task, size_t worker) {
    MatMulPanel<X> panel = index.Find(task);
    if (worker < last.size()) panel.again = std::exchange(last[worker], panel.job) == panel.job;
    panel.scratch = ctx.pool->WorkerScratch(worker, PanelScratchBytes(panel.job->w.cols));
    if (ctx.traffic != nullptr) ctx.traffic->Add(panel.job->w, panel.count, panel.job->y.rows);
    run(panel);
  });
}

}  // namespace

void MultiplyByReference(const MatMulPanel<BF16>& panel, uint64_t rows, float* row) {
  const MatMulJob<BF16>& job = *panel.job;
  for (uint32_t r = 0; r < panel.count; ++r) {
    if ((rows >> r & 1) == 0) continue;
    WidenRow(job.w, panel.begin + r, {row, job.w.cols});
    for (size_t m = 0; m < job.y.rows; ++m) {
      job.y.data[m * job.y.stride + panel.begin + r] =
          ref::Dot({panel.XRow(m), job.w.cols}, {row, job.w.cols});
    }
  }
}

void MatMul(std::span<const MatMulJob<float>> jobs, const Context& ctx) { RunJobs(jobs, ctx); }
void MatMul(std::span<const MatMulJob<BF16>> jobs, const Context& ctx) { RunJobs(jobs, ctx); }

size_t DealtCols(size_t cols, const Context& ctx) {
  const bool deals = ctx.path != Path::kReference && HasBf16Dot(ctx.target);
  return deals ? PaddedCols(cols) : 0;
}

void RoundRowsToBF16(MatView<const float> x, MatView<BF16> out, const Context& ctx,
                     MatView<BF16> dealt) {
  CACHALOT_CHECK(x.rows == out.rows && x.cols == out.cols);
  CACHALOT_CHECK(dealt.data == nullptr ||
                 (dealt.rows == x.rows && dealt.cols == DealtCols(x.cols, ctx)));
  // Tasks of about 16k elements: rounding moves 6 bytes an element, so they last microseconds.
  const size_t rows = std::max<size_t>(1, 16384 / std::max<size_t>(1, x.cols));
  RoundBF16Fn* round = ctx.path == Path::kSimd ? HighwayRoundBF16(ctx.target) : nullptr;
  ctx.pool->ParallelFor((x.rows + rows - 1) / rows, [&](size_t task, size_t) {
    const size_t end = std::min(x.rows, (task + 1) * rows);
    for (size_t r = task * rows; r < end; ++r) {
      const std::span<const float> from = x.Row(r);
      const std::span<BF16> to = out.Row(r);
      if (round != nullptr) {
        round({from.data(), to.data(), from.size()});
      } else {
        for (size_t i = 0; i < from.size(); ++i) to[i] = ToBF16(from[i]);
      }
      if (dealt.data != nullptr) X86DealRow(to.data(), x.cols, dealt.Row(r).data());
    }
  });
}

}  // namespace cachalot::kernels
