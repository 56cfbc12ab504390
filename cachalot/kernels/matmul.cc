// SPDX-License-Identifier: Apache-2.0
// Checks the jobs, cuts them into panels of rows and runs the code of ctx.target on each.
#include "cachalot/kernels/matmul.h"

#include <algorithm>

#include "cachalot/base/check.h"
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

// Panels are numbered job after job. Walking the jobs is cheap next to a panel: a step has at most
// a few hundred experts.
template <typename X>
MatMulPanel<X> FindPanel(std::span<const MatMulJob<X>> jobs, size_t task) {
  for (const MatMulJob<X>& job : jobs) {
    const size_t num_panels = NumPanels(job);
    if (task < num_panels) {
      const uint32_t rows = PanelRows(job.w.cols);
      const uint32_t begin = static_cast<uint32_t>(task) * rows;
      return {&job, begin, std::min(rows, job.w.rows - begin), nullptr};
    }
    task -= num_panels;
  }
  return {};
}

template <typename X>
void RunJobs(std::span<const MatMulJob<X>> jobs, const Context& ctx) {
  PanelFn<X>* run = ChoosePanelFn(ctx, jobs.data());
  if (run == nullptr) run = &ReferencePanel<X>;
  size_t num_tasks = 0;
  for (const MatMulJob<X>& job : jobs) {
    CheckJob(job);
    num_tasks += NumPanels(job);
  }
  ctx.pool->ParallelFor(num_tasks, [&](size_t task, size_t worker) {
    MatMulPanel<X> panel = FindPanel(jobs, task);
    panel.scratch = ctx.pool->WorkerScratch(worker, PanelScratchBytes(panel.job->w.cols));
    if (ctx.traffic != nullptr) ctx.traffic->Add(panel.job->w, panel.count, panel.job->y.rows);
    run(panel);
  });
}

}  // namespace

void MatMul(std::span<const MatMulJob<float>> jobs, const Context& ctx) { RunJobs(jobs, ctx); }
void MatMul(std::span<const MatMulJob<BF16>> jobs, const Context& ctx) { RunJobs(jobs, ctx); }

void RoundRowsToBF16(MatView<const float> x, MatView<BF16> out, const Context& ctx) {
  CACHALOT_CHECK(x.rows == out.rows && x.cols == out.cols);
  // Tasks of about 16k elements: rounding moves 6 bytes an element, so they last microseconds.
  const size_t rows = std::max<size_t>(1, 16384 / std::max<size_t>(1, x.cols));
  ctx.pool->ParallelFor((x.rows + rows - 1) / rows, [&](size_t task, size_t) {
    const size_t end = std::min(x.rows, (task + 1) * rows);
    for (size_t r = task * rows; r < end; ++r) {
      const std::span<const float> from = x.Row(r);
      const std::span<BF16> to = out.Row(r);
      for (size_t i = 0; i < from.size(); ++i) to[i] = ToBF16(from[i]);
    }
  });
}

}  // namespace cachalot::kernels
