// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/linear.h"

#include "cachalot/kernels/gemm.h"

namespace cachalot::train {

using kernels::Gemm;
using kernels::GemmJobT;

template <typename T>
void LinearForward(MatView<const T> x, const Weight<T>& w, MatView<T> y,
                   const kernels::Context& ctx) {
  Gemm(GemmJobT<T>{.a = x, .b = w.value, .c = y, .b_transposed = true, .bf16 = w.bf16}, ctx);
}

template <typename T>
void LinearBackward(MatView<const T> x, const Weight<T>& w, MatView<const T> d_y, MatView<T> d_x,
                    const kernels::Context& ctx, Write write) {
  if (d_x.data != nullptr) {
    Gemm(
        GemmJobT<T>{
            .a = d_y, .b = w.value, .c = d_x, .accumulate = write == Write::kAdd, .bf16 = w.bf16},
        ctx);
  }
  Gemm(
      GemmJobT<T>{
          .a = d_y, .b = x, .c = w.grad, .a_transposed = true, .accumulate = true, .bf16 = w.bf16},
      ctx);
}

#define CACHALOT_INSTANTIATE(T)                                                                  \
  template void LinearForward(MatView<const T>, const Weight<T>&, MatView<T>,                    \
                              const kernels::Context&);                                          \
  template void LinearBackward(MatView<const T>, const Weight<T>&, MatView<const T>, MatView<T>, \
                               const kernels::Context&, Write);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
