// SPDX-License-Identifier: Apache-2.0
// Linear layers under the four numerics: rounds each input once as its kind asks, then runs all
// products of a group in one parallel region. [model.md 3.5; design.md 3]
#pragma once

#include <cstddef>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/kernels/matmul.h"
#include "cachalot/model/forward.h"
#include "cachalot/tensor/matrix.h"
#include "cachalot/threading/aligned_buffer.h"

namespace cachalot::model {

// What the released code does to the input of a product.
enum class InputKind : uint8_t {
  kQuantized,  // FP8 / FP4 matrices: FP8 1x128 in `official`, BF16 in `fast`
  kExperts,    // the same, also in the order in which FP4 matrices read it
  kBf16,       // wo_a: BF16 in `fast`
  kFloat,      // compressors, router, indexer weights, mHC, head: float32 always
};

class Linear {
 public:
  // `max_rows` and `max_elements`: the largest sums over the inputs Prepare()d between two Run()s;
  // `max_jobs` the largest number of Add()s. Allocates here and never again.
  Linear(Numerics numerics, const kernels::Context& ctx, size_t max_rows, size_t max_elements,
         size_t max_jobs);

  struct Input {
    MatView<const float> x;
    MatView<const BF16> rounded;  // empty unless `fast` rounds this kind
    MatView<const BF16> dealt;    // kernels::MatMulJob::dealt; empty where nothing wants it

    Input Rows(size_t begin, size_t count) const;
  };

  // The input as the products read it. Valid until Run(), or Release() if it is held; x must stay
  // until then as well.
  Input Prepare(MatView<const float> x, InputKind kind);
  // y = x W^T; with x_rows, row m of y reads row x_rows[m] of the input (kept until Run()).
  void Add(const Input& input, const WeightView& w, MatView<float> y,
           const uint32_t* x_rows = nullptr);
  void Run();

  // Inputs prepared so far outlive Run() until Release(): for one input of many groups of products.
  void Hold() { held_ = used_; }
  void Release() { held_ = used_ = 0; }

  size_t scratch_bytes() const { return scratch_.size(); }

 private:
  uint8_t* Take(size_t bytes);
  MatView<BF16> TakeRows(size_t rows, size_t cols);

  Numerics numerics_;
  kernels::Context ctx_;
  AlignedBuffer<uint8_t> scratch_;  // rounded inputs, a bump allocator emptied by Run()
  size_t used_ = 0;
  size_t held_ = 0;  // of used_
  std::vector<kernels::MatMulJob<float>> float_jobs_;
  std::vector<kernels::MatMulJob<BF16>> bf16_jobs_;
};

}  // namespace cachalot::model
