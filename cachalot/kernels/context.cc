// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/context.h"

#include <array>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace cachalot::kernels {
namespace {

// Indexed by Target.
constexpr std::array<std::string_view, 7> kNames = {
    "scalar", "avx2", "avx512", "avx512-vnni", "avx512-bf16", "amx-bf16", "neon"};

#if defined(__x86_64__)
// What Highway's code for AVX2, AVX3 and AVX3_DL uses and some CPU of the kind lacks. Asked of the
// CPU here and not of libhwy, of which nothing else is needed: its loader hook runs an instruction
// that valgrind does not know, and other processors need no library at all.
bool CpuHasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool CpuHasAvx512() {
  return CpuHasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}
bool CpuHasVnni() {  // AVX3_DL
  return CpuHasAvx512() && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("gfni") && __builtin_cpu_supports("vpclmulqdq");
}
bool CpuHasBf16Dot() { return CpuHasVnni() && __builtin_cpu_supports("avx512bf16"); }

// Tiles are 8 KiB of state of a thread; Linux gives them to processes that ask.
bool AskForTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // of the state components of xsave
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
// Sapphire Rapids and later. Leaf 7: compilers' __builtin_cpu_supports do not all know the names.
bool CpuHasAmxBf16() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!CpuHasBf16Dot() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  return (d & kAmxBf16) != 0 && (d & kAmxTile) != 0 && AskForTiles();
}
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
  if (CpuHasAmxBf16()) targets.push_back(Target::kAmxBf16);
  if (CpuHasBf16Dot()) targets.push_back(Target::kAvx512Bf16);
  if (CpuHasVnni()) targets.push_back(Target::kAvx512Vnni);
  if (CpuHasAvx512()) targets.push_back(Target::kAvx512);
  if (CpuHasAvx2()) targets.push_back(Target::kAvx2);
#elif defined(__aarch64__)
  targets.push_back(Target::kNeon);  // every 64-bit Arm has it
#endif
  targets.push_back(Target::kScalar);
  return targets;
}

}  // namespace cachalot::kernels
