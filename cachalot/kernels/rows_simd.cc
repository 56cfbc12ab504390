// SPDX-License-Identifier: Apache-2.0
// Rows of rows.h for every Highway target. A row ends in a padded vector that runs the same code as
// a full one.
#include "cachalot/kernels/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/rows_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                             // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
constexpr DF kF32;
constexpr size_t kLanes = hn::MaxLanes(DF());
// Chains of a sum: enough to hide the latency of an addition.
constexpr size_t kChains = 4;

// Lanes [0, count) of p, `fill` behind.
HWY_INLINE VF LoadFirst(const float* p, size_t count, float fill) {
  if (HWY_LIKELY(count >= kLanes)) return hn::LoadU(kF32, p);
  HWY_ALIGN float lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = i < count ? p[i] : fill;
  return hn::Load(kF32, lanes);
}

HWY_INLINE void StoreFirst(VF v, size_t count, float* p) {
  if (HWY_LIKELY(count >= kLanes)) return hn::StoreU(v, kF32, p);
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, kF32, lanes);
  for (size_t i = 0; i < count; ++i) p[i] = lanes[i];
}

HWY_INLINE float Finish(VF (&sums)[kChains]) {
  const VF low = hn::Add(sums[0], sums[1]);
  return hn::GetLane(hn::SumOfLanes(kF32, hn::Add(low, hn::Add(sums[2], sums[3]))));
}

float DotRow(const float* a, const float* b, size_t n) {
  VF sums[kChains];
  HWY_UNROLL(4)
  for (size_t c = 0; c < kChains; ++c) sums[c] = hn::Zero(kF32);
  size_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    HWY_UNROLL(4)
    for (size_t c = 0; c < kChains; ++c) {
      const size_t at = i + c * kLanes;
      sums[c] = hn::MulAdd(hn::LoadU(kF32, a + at), hn::LoadU(kF32, b + at), sums[c]);
    }
  }
  for (; i < n; i += kLanes) {
    sums[0] = hn::MulAdd(LoadFirst(a + i, n - i, 0.0f), LoadFirst(b + i, n - i, 0.0f), sums[0]);
  }
  return Finish(sums);
}

float MaxRow(const float* x, size_t n) {
  VF top = hn::Set(kF32, x[0]);
  for (size_t i = 0; i < n; i += kLanes) top = hn::Max(top, LoadFirst(x + i, n - i, x[0]));
  return hn::GetLane(hn::MaxOfLanes(kF32, top));
}

// hn::Exp ends at 88, and of NaN it is some number.
HWY_INLINE VF ExpOf(VF v) {
  const VF floor = hn::Set(kF32, -87.0f);
  const VF e = hn::Exp(kF32, hn::Max(v, floor));
  return hn::IfThenElse(hn::IsNaN(v), v, hn::IfThenZeroElse(hn::Lt(v, floor), e));
}

float ExpRow(float* x, size_t n, float scale, float shift) {
  const VF scales = hn::Set(kF32, scale);
  const VF shifts = hn::Set(kF32, shift);
  VF sum = hn::Zero(kF32);
  for (size_t i = 0; i < n; i += kLanes) {
    const VF v = hn::MulSub(scales, LoadFirst(x + i, n - i, 0.0f), shifts);
    VF e = ExpOf(v);
    if (n - i < kLanes) e = hn::IfThenElseZero(hn::FirstN(kF32, n - i), e);
    StoreFirst(e, n - i, x + i);
    sum = hn::Add(sum, e);
  }
  return hn::GetLane(hn::SumOfLanes(kF32, sum));
}

float SwiGluBackwardRow(const SwiGluBackwardArgs& args) {
  const VF one = hn::Set(kF32, 1.0f);
  const VF high = hn::Set(kF32, args.limit);
  const VF low = hn::Neg(high);
  const VF weight = hn::Set(kF32, args.weight);
  VF sum = hn::Zero(kF32);
  for (size_t i = 0; i < args.size; i += kLanes) {
    const size_t left = args.size - i;
    const VF g = LoadFirst(args.g + i, left, 0.0f);
    const VF u = LoadFirst(args.u + i, left, 0.0f);
    const VF d = LoadFirst(args.d_h + i, left, 0.0f);
    const auto g_over = hn::Gt(g, high);
    const auto u_over = hn::Gt(u, high);
    const auto u_under = hn::Lt(u, low);
    const VF gate = hn::IfThenElse(g_over, high, g);
    const VF up = hn::IfThenElse(u_over, high, hn::IfThenElse(u_under, low, u));
    // exp(87) is finite and 1 / (1 + it) is zero for every purpose here.
    const VF exponent = hn::Min(hn::Neg(gate), hn::Set(kF32, 87.0f));
    const VF sigmoid = hn::Div(one, hn::Add(one, ExpOf(exponent)));
    const VF silu = hn::Mul(gate, sigmoid);
    sum = hn::MulAdd(d, hn::Mul(silu, up), sum);
    // silu' = sigmoid (1 + g (1 - sigmoid)).
    const VF slope = hn::Mul(sigmoid, hn::MulAdd(gate, hn::Sub(one, sigmoid), one));
    const VF dw = hn::Mul(d, weight);
    const VF d_g = hn::IfThenZeroElse(g_over, hn::Mul(hn::Mul(dw, up), slope));
    const VF d_u = hn::IfThenZeroElse(u_over, hn::IfThenZeroElse(u_under, hn::Mul(dw, silu)));
    StoreFirst(d_g, left, args.d_g + i);
    StoreFirst(d_u, left, args.d_u + i);
  }
  return hn::GetLane(hn::SumOfLanes(kF32, sum));
}

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

RowFns RowsFor(Target target) {
  return {.dot = CACHALOT_TARGET_FN(DotRow, target),
          .max = CACHALOT_TARGET_FN(MaxRow, target),
          .exp = CACHALOT_TARGET_FN(ExpRow, target),
          .swiglu_backward = CACHALOT_TARGET_FN(SwiGluBackwardRow, target)};
}

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
