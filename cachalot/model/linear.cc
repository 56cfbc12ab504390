// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/linear.h"

#include "cachalot/base/check.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::model {
namespace {

// BF16 rows lie a line more than their columns apart: at a multiple of 4 KiB, those of 8 tokens
// would share the sets of L1 [kernels/matmul_x86.cc].
constexpr size_t kLineElements = kCacheLineBytes / sizeof(BF16);
size_t RowElements(size_t cols) {
  return (cols + kLineElements - 1) / kLineElements * kLineElements + kLineElements;
}
// A dealt row is up to 128 - 32 columns longer (FP4 has K % 32 == 0) and has its line, too.
constexpr size_t kMaxRowPadding = 6 * kLineElements;

// Room for all inputs of a Run(): rounded and dealt, or a float32 round trip.
size_t ScratchBytes(Numerics numerics, size_t rows, size_t elements) {
  if (numerics == Numerics::kOfficial) return elements * sizeof(float);
  if (numerics != Numerics::kFast) return 0;
  return 2 * (elements + rows * kMaxRowPadding) * sizeof(BF16);
}

size_t RoundUpToLine(size_t bytes) {
  return (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
}

// Inputs one group of products may have (MoE: tokens and shared expert); each wastes at most a
// line.
constexpr size_t kMaxInputs = 4;

}  // namespace

Linear::Linear(Numerics numerics, const kernels::Context& ctx, size_t max_rows, size_t max_elements,
               size_t max_jobs)
    : numerics_(numerics),
      ctx_(ctx),
      scratch_(RoundUpToLine(ScratchBytes(numerics, max_rows, max_elements)) +
               kMaxInputs * kCacheLineBytes) {
  float_jobs_.reserve(max_jobs);
  bf16_jobs_.reserve(max_jobs);
}

Linear::Input Linear::Input::Rows(size_t begin, size_t count) const {
  const auto rows = [&](const auto& all) {
    return all.data == nullptr ? all : all.Rows(begin, count);
  };
  return {.x = rows(x), .rounded = rows(rounded), .dealt = rows(dealt)};
}

uint8_t* Linear::Take(size_t bytes) {
  uint8_t* p = scratch_.data() + used_;
  used_ += RoundUpToLine(bytes);
  CACHALOT_CHECK(used_ <= scratch_.size());
  return p;
}

MatView<BF16> Linear::TakeRows(size_t rows, size_t cols) {
  const size_t stride = RowElements(cols);
  return {reinterpret_cast<BF16*>(Take(rows * stride * sizeof(BF16))), rows, cols, stride};
}

Linear::Input Linear::Prepare(MatView<const float> x, InputKind kind) {
  Input input{.x = x, .rounded = {}, .dealt = {}};
  if (numerics_ == Numerics::kFast && kind != InputKind::kFloat) {
    const MatView<BF16> rounded = TakeRows(x.rows, x.cols);
    const size_t dealt_cols =
        kind == InputKind::kExperts ? kernels::DealtCols(x.cols, ctx_) : size_t{0};
    const MatView<BF16> dealt = dealt_cols > 0 ? TakeRows(x.rows, dealt_cols) : MatView<BF16>();
    kernels::RoundRowsToBF16(x, rounded, ctx_, dealt);
    input.rounded = rounded;
    input.dealt = dealt;
  } else if (numerics_ == Numerics::kOfficial && kind != InputKind::kFloat &&
             kind != InputKind::kBf16) {
    MatView<float> trip(reinterpret_cast<float*>(Take(x.rows * x.cols * sizeof(float))), x.rows,
                        x.cols);
    kernels::RoundTripFp8(x, trip, ctx_);
    input.x = trip;
  }
  return input;
}

void Linear::Add(const Input& input, const WeightView& w, MatView<float> y,
                 const uint32_t* x_rows) {
  // float32 weights (trained and golden checkpoints) take float32 inputs: rounding to BF16 would
  // cost accuracy and buy nothing.
  if (input.rounded.data != nullptr && w.kind != WeightKind::kF32) {
    CACHALOT_DCHECK(bf16_jobs_.size() < bf16_jobs_.capacity());
    bf16_jobs_.push_back(
        {.x = input.rounded, .x_rows = x_rows, .w = w, .y = y, .dealt = input.dealt});
  } else {
    CACHALOT_DCHECK(float_jobs_.size() < float_jobs_.capacity());
    float_jobs_.push_back({.x = input.x, .x_rows = x_rows, .w = w, .y = y});
  }
}

void Linear::Run() {
  if (!bf16_jobs_.empty()) kernels::MatMul(bf16_jobs_, ctx_);
  if (!float_jobs_.empty()) kernels::MatMul(float_jobs_, ctx_);
  bf16_jobs_.clear();
  float_jobs_.clear();
  used_ = held_;
}

}  // namespace cachalot::model
