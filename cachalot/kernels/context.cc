// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/context.h"

#include <array>

#include "hwy/targets.h"

namespace cachalot::kernels {
namespace {

// Indexed by Target.
constexpr std::array<std::string_view, 6> kNames = {"scalar",      "avx2",        "avx512",
                                                    "avx512-vnni", "avx512-bf16", "neon"};

// Highway 1.0.3 knows AVX3_DL (VBMI, VNNI, ...) but not BF16.
bool HasBf16Dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512vbmi") != 0;
#else
  return false;
#endif
}

}  // namespace

std::string_view TargetName(Target target) { return kNames[static_cast<size_t>(target)]; }

std::optional<Target> TargetFromName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Target>(i);
  }
  return std::nullopt;
}

std::vector<Target> SupportedTargets() {
#if HWY_ARCH_X86
  const int64_t supported = hwy::SupportedTargets();
#else
  const int64_t supported = HWY_STATIC_TARGET;  // the only copy there is; nothing to ask the CPU
#endif
  std::vector<Target> targets;
  if ((supported & HWY_AVX3_DL) != 0) {
    if (HasBf16Dot()) targets.push_back(Target::kAvx512Bf16);
    targets.push_back(Target::kAvx512Vnni);
  }
  if ((supported & HWY_AVX3) != 0) targets.push_back(Target::kAvx512);
  if ((supported & HWY_AVX2) != 0) targets.push_back(Target::kAvx2);
  if ((supported & HWY_NEON) != 0) targets.push_back(Target::kNeon);
  targets.push_back(Target::kScalar);
  return targets;
}

}  // namespace cachalot::kernels
