// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/gemm_f32_ref.h"

#include <vector>

namespace cachalot::kernels::ref {

void GemmF32(const GemmF32Args& args) {
  const bool transposed = args.b_layout == GemmB::kTransposed;
  std::vector<float> result(args.c.rows * args.c.cols);  // C may be B or D
  for (size_t i = 0; i < args.c.rows; ++i) {
    for (size_t j = 0; j < args.c.cols; ++j) {
      double sum = 0;
      for (size_t k = 0; k < args.a.cols; ++k) {
        sum += double{args.a.Row(i)[k]} * double{transposed ? args.b.Row(j)[k] : args.b.Row(k)[j]};
      }
      sum *= double{args.alpha};
      if (args.beta != 0.0f) sum += double{args.beta} * double{args.d.Row(i)[j]};
      result[i * args.c.cols + j] = static_cast<float>(sum);
    }
  }
  for (size_t i = 0; i < args.c.rows; ++i) {
    for (size_t j = 0; j < args.c.cols; ++j) args.c.Row(i)[j] = result[i * args.c.cols + j];
  }
}

}  // namespace cachalot::kernels::ref
