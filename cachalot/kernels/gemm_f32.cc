// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/gemm_f32.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/kernels/gemm_f32_simd.h"

namespace cachalot::kernels {
namespace {

void CheckShapes(const GemmF32Args& args) {
  const bool transposed = args.b_layout == GemmB::kTransposed;
  CACHALOT_CHECK(args.a.rows == args.c.rows);
  CACHALOT_CHECK((transposed ? args.b.rows : args.b.cols) == args.c.cols);
  CACHALOT_CHECK((transposed ? args.b.cols : args.b.rows) == args.a.cols);
  CACHALOT_CHECK(!args.symmetric || args.c.rows == args.c.cols);
  CACHALOT_CHECK(args.c.data != args.a.data);
  CACHALOT_CHECK(args.beta == 0.0f || (args.d.rows == args.c.rows && args.d.cols == args.c.cols));
}

}  // namespace

size_t GemmF32ScratchFloats(const GemmF32Args& args) {
  return GemmPanels(args.c.cols) * kGemmPanel * args.a.cols;
}

void GemmF32Serial(const GemmF32Args& args, float* scratch, Target target) {
  CheckShapes(args);
  for (size_t p = 0; p < GemmPanels(args.c.cols); ++p) PackGemmPanel(args, p, scratch, target);
  for (size_t begin = 0; begin < args.c.rows; begin += kGemmRows) {
    GemmRows(args, begin, std::min(kGemmRows, args.c.rows - begin), scratch, target);
  }
}

void GemmF32(const GemmF32Args& args, float* scratch, const Context& ctx) {
  CheckShapes(args);
  ctx.pool->ParallelFor(GemmPanels(args.c.cols),
                        [&](size_t p, size_t) { PackGemmPanel(args, p, scratch, ctx.target); });
  ctx.pool->ParallelFor((args.c.rows + kGemmRows - 1) / kGemmRows, [&](size_t task, size_t) {
    const size_t begin = task * kGemmRows;
    GemmRows(args, begin, std::min(kGemmRows, args.c.rows - begin), scratch, ctx.target);
  });
}

}  // namespace cachalot::kernels
