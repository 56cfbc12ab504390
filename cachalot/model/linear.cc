// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/linear.h"

#include "cachalot/base/check.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::model {
namespace {

// Bytes of one rounded element; 0 where nothing is rounded.
size_t RoundedBytes(Numerics numerics) {
  if (numerics == Numerics::kFast) return sizeof(BF16);
  return numerics == Numerics::kOfficial ? sizeof(float) : 0;
}

size_t RoundUpToLine(size_t bytes) {
  return (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
}

// Inputs one group of products may have (MoE: tokens and shared expert); each wastes at most a
// line.
constexpr size_t kMaxInputs = 4;

}  // namespace

Linear::Linear(Numerics numerics, const kernels::Context& ctx, size_t max_input_elements,
               size_t max_jobs)
    : numerics_(numerics),
      ctx_(ctx),
      scratch_(RoundUpToLine(max_input_elements * RoundedBytes(numerics)) +
               kMaxInputs * kCacheLineBytes) {
  float_jobs_.reserve(max_jobs);
  bf16_jobs_.reserve(max_jobs);
}

uint8_t* Linear::Take(size_t bytes) {
  uint8_t* p = scratch_.data() + used_;
  used_ += RoundUpToLine(bytes);
  CACHALOT_CHECK(used_ <= scratch_.size());
  return p;
}

Linear::Input Linear::Prepare(MatView<const float> x, InputKind kind) {
  Input input{.x = x, .rounded = {}};
  const size_t elements = x.rows * x.cols;
  if (numerics_ == Numerics::kFast && kind != InputKind::kFloat) {
    MatView<BF16> rounded(reinterpret_cast<BF16*>(Take(elements * sizeof(BF16))), x.rows, x.cols);
    kernels::RoundRowsToBF16(x, rounded, ctx_);
    input.rounded = rounded;
  } else if (numerics_ == Numerics::kOfficial && kind == InputKind::kQuantized) {
    MatView<float> trip(reinterpret_cast<float*>(Take(elements * sizeof(float))), x.rows, x.cols);
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
    bf16_jobs_.push_back({.x = input.rounded, .x_rows = x_rows, .w = w, .y = y});
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
