// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/context.h"

#include <array>

namespace cachalot::kernels {
namespace {

// Indexed by Target.
constexpr std::array<std::string_view, 6> kNames = {"scalar",      "avx2",        "avx512",
                                                    "avx512-vnni", "avx512-bf16", "neon"};

#if defined(__x86_64__)
// What Highway's code for AVX2, AVX3 and AVX3_DL uses and some CPU of the kind lacks. Asked of the
// CPU here and not of libhwy, of which nothing else is needed: its loader hook runs an instruction
// that valgrind does not know, and other processors need no library at all.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}
bool HasAvx512Vnni() {  // AVX3_DL
  return HasAvx512() && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("gfni") && __builtin_cpu_supports("vpclmulqdq");
}
bool HasAvx512Bf16() { return HasAvx512Vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif

}  // namespace

std::string_view TargetName(Target target) { return kNames[static_cast<size_t>(target)]; }

std::optional<Target> TargetFromName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Target>(i);
  }
  return std::nullopt;
}

std::vector<Target> SupportedTargets() {
  std::vector<Target> targets;
#if defined(__x86_64__)
  if (HasAvx512Bf16()) targets.push_back(Target::kAvx512Bf16);
  if (HasAvx512Vnni()) targets.push_back(Target::kAvx512Vnni);
  if (HasAvx512()) targets.push_back(Target::kAvx512);
  if (HasAvx2()) targets.push_back(Target::kAvx2);
#elif defined(__aarch64__)
  targets.push_back(Target::kNeon);  // every 64-bit Arm has it
#endif
  targets.push_back(Target::kScalar);
  return targets;
}

}  // namespace cachalot::kernels
