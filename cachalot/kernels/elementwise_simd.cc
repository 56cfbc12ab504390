// SPDX-License-Identifier: Apache-2.0
// SwiGLU, the stream update of mHC and rounding to BF16 for every Highway target. One file for all,
// as each file that is compiled for all targets costs seconds of build time. Rows end in a masked
// vector, which runs the same code as a full one: bits do not depend on the place in the row.
#include "cachalot/kernels/elementwise_simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/elementwise_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                                    // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
#include "hwy/contrib/math/math-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

void SwiGluRow(const SwiGluArgs& /*args*/) {}
void HcPostRow(const HcPostArgs& /*args*/) {}
void RoundBF16Row(const RoundBF16Args& /*args*/) {}

#else

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
constexpr DF kF32;

// silu(g) = g / (1 + exp(-g)). hn::Exp ends at 88: below -88, silu is under 1e-36 in magnitude.
VF SwiGlu(VF g, VF u, VF limit, VF weight) {
  // A NaN in g or u has to stay one: comparisons that fail keep it.
  const VF low = hn::Neg(limit);
  g = hn::IfThenElse(hn::Gt(g, limit), limit, g);
  u = hn::IfThenElse(hn::Gt(u, limit), limit, u);
  u = hn::IfThenElse(hn::Lt(u, low), low, u);
  const VF one = hn::Set(kF32, 1.0f);
  const VF floor = hn::Set(kF32, -88.0f);
  const VF exponent = hn::Neg(hn::IfThenElse(hn::Lt(g, floor), floor, g));
  const VF silu = hn::Div(g, hn::Add(one, hn::Exp(kF32, exponent)));
  // hn::Exp of NaN is some number; g / number is NaN again.
  return hn::Mul(weight, hn::Mul(silu, u));
}

void SwiGluRow(const SwiGluArgs& args) {
  const size_t lanes = hn::Lanes(kF32);
  const VF limit = hn::Set(kF32, args.limit);
  const VF weight = hn::Set(kF32, args.weight);
  size_t i = 0;
  for (; i + lanes <= args.size; i += lanes) {
    const VF g = hn::LoadU(kF32, args.g + i);
    const VF u = hn::LoadU(kF32, args.u + i);
    hn::StoreU(SwiGlu(g, u, limit, weight), kF32, args.h + i);
  }
  if (i == args.size) return;
  HWY_ALIGN float g[hn::MaxLanes(DF())] = {};
  HWY_ALIGN float u[hn::MaxLanes(DF())] = {};
  for (size_t k = i; k < args.size; ++k) {
    g[k - i] = args.g[k];
    u[k - i] = args.u[k];
  }
  hn::Store(SwiGlu(hn::Load(kF32, g), hn::Load(kF32, u), limit, weight), kF32, g);
  for (size_t k = i; k < args.size; ++k) args.h[k] = g[k - i];
}

void HcPostRow(const HcPostArgs& args) {
  const size_t lanes = hn::Lanes(kF32);
  size_t i = 0;
  for (; i + lanes <= args.size; i += lanes) {
    float* x = args.x + i;
    const VF z = hn::LoadU(kF32, args.z + i);
    VF old[kVectorStreams];
    HWY_UNROLL(4)
    for (size_t j = 0; j < kVectorStreams; ++j) old[j] = hn::LoadU(kF32, x + j * args.stride);
    HWY_UNROLL(4)
    for (size_t k = 0; k < kVectorStreams; ++k) {
      VF sum = hn::Mul(hn::Set(kF32, args.post[k]), z);
      HWY_UNROLL(4)
      for (size_t j = 0; j < kVectorStreams; ++j) {
        const VF weight = hn::Set(kF32, args.comb[j * kVectorStreams + k]);
        sum = hn::Add(sum, hn::Mul(weight, old[j]));
      }
      hn::StoreU(sum, kF32, x + k * args.stride);
    }
  }
  for (; i < args.size; ++i) {
    float old[kVectorStreams];
    for (size_t j = 0; j < kVectorStreams; ++j) old[j] = args.x[j * args.stride + i];
    for (size_t k = 0; k < kVectorStreams; ++k) {
      float sum = args.post[k] * args.z[i];
      for (size_t j = 0; j < kVectorStreams; ++j) sum += args.comb[j * kVectorStreams + k] * old[j];
      args.x[k * args.stride + i] = sum;
    }
  }
}

// As ToBF16 says: to nearest even, a NaN keeps its upper bits and gets the quiet one.
void RoundBF16Row(const RoundBF16Args& args) {
  const hn::RebindToUnsigned<DF> u32;
  const hn::RebindToSigned<DF> i32;
  const hn::Rebind<uint16_t, DF> u16;
  const size_t lanes = hn::Lanes(kF32);
  size_t i = 0;
  for (; i + lanes <= args.size; i += lanes) {
    const auto bits = hn::BitCast(u32, hn::LoadU(kF32, args.x + i));
    const auto upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(u32, 1));
    const auto nearest = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(u32, 0x7FFFu)), odd));
    const auto is_nan = hn::Gt(hn::And(bits, hn::Set(u32, 0x7FFFFFFFu)), hn::Set(u32, 0x7F800000u));
    const auto rounded = hn::IfThenElse(is_nan, hn::Or(upper, hn::Set(u32, 0x40u)), nearest);
    // 16 bits at most, so nothing saturates.
    const auto words = hn::DemoteTo(u16, hn::BitCast(i32, rounded));
    hn::StoreU(words, u16, reinterpret_cast<uint16_t*>(args.out + i));
  }
  for (; i < args.size; ++i) args.out[i] = ToBF16(args.x[i]);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {
namespace {

// The portable target is the reference: emulated vectors would only be slower.
bool IsPortable(Target target) {
#if HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128
  return target == Target::kScalar;
#else
  static_cast<void>(target);
  return false;
#endif
}

}  // namespace

SwiGluFn* HighwaySwiGlu(Target target) {
  return IsPortable(target) ? nullptr : CACHALOT_TARGET_FN(SwiGluRow, target);
}
HcPostFn* HighwayHcPost(Target target) {
  return IsPortable(target) ? nullptr : CACHALOT_TARGET_FN(HcPostRow, target);
}
RoundBF16Fn* HighwayRoundBF16(Target target) {
  return IsPortable(target) ? nullptr : CACHALOT_TARGET_FN(RoundBF16Row, target);
}

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
