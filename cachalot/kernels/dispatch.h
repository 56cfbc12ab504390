// SPDX-License-Identifier: Apache-2.0
// Chooses between the copies of a function that Highway compiled, by Context::target instead of
// Highway's process-wide state, so that two contexts with different targets can live side by side.
//
//   HWY_BEFORE_NAMESPACE(); namespace cachalot::kernels { namespace HWY_NAMESPACE {
//   void Impl(const Args&) { ... }
//   }}  HWY_AFTER_NAMESPACE();
//   #if HWY_ONCE
//   void Op(const Args& args, const Context& ctx) { CACHALOT_TARGET_FN(Impl, ctx.target)(args); }
//   #endif
#pragma once

// After hwy/foreach_target.h of the including file. No includes here but plain ones.
#include "cachalot/kernels/context.h"
#include "hwy/highway.h"

namespace cachalot::kernels {

// One entry for each kind of code Highway makes here; null if not compiled for this architecture.
template <typename Fn>
struct TargetFns {
  Fn* portable = nullptr;
  Fn* avx2 = nullptr;
  Fn* avx3 = nullptr;
  Fn* avx3_dl = nullptr;

  Fn* Choose(Target target) const {
    Fn* fn = nullptr;
    if (target == Target::kAvx2) fn = avx2;
    if (target == Target::kAvx512) fn = avx3;
    if (HasVnni(target)) fn = avx3_dl;
    return fn != nullptr ? fn : portable;  // kScalar; on Arm the static target is NEON
  }
};

}  // namespace cachalot::kernels

#if HWY_TARGETS & HWY_AVX2
#define CACHALOT_AVX2_FN(fn) &N_AVX2::fn
#else
#define CACHALOT_AVX2_FN(fn) nullptr
#endif
#if HWY_TARGETS & HWY_AVX3
#define CACHALOT_AVX3_FN(fn) &N_AVX3::fn
#else
#define CACHALOT_AVX3_FN(fn) nullptr
#endif
#if HWY_TARGETS & HWY_AVX3_DL
#define CACHALOT_AVX3_DL_FN(fn) &N_AVX3_DL::fn
#else
#define CACHALOT_AVX3_DL_FN(fn) nullptr
#endif

// The copy of `fn` for `target`. Use in the HWY_ONCE section.
#define CACHALOT_TARGET_FN(fn, target)                                      \
  (::cachalot::kernels::TargetFns<decltype(HWY_STATIC_DISPATCH(fn))>{       \
      &HWY_STATIC_DISPATCH(fn), CACHALOT_AVX2_FN(fn), CACHALOT_AVX3_FN(fn), \
      CACHALOT_AVX3_DL_FN(fn)}                                              \
       .Choose(target))
