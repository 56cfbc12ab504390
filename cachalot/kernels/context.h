// SPDX-License-Identifier: Apache-2.0
// What every kernel gets besides its operands.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cachalot/threading/thread_pool.h"

namespace cachalot::kernels {

// Which implementation runs. kReference is scalar, float32, the same bits on every machine; kSimd
// is the best code for the active target.
enum class Path : uint8_t { kReference, kSimd };

// An instruction set with its own code. Bits may differ between targets, never within one.
enum class Target : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmxBf16, kNeon };

// What the names stand for: kAmxBf16 is kAvx512Bf16 with matrix tiles, and so on down.
constexpr bool HasBf16Dot(Target t) { return t == Target::kAvx512Bf16 || t == Target::kAmxBf16; }
constexpr bool HasVnni(Target t) { return t == Target::kAvx512Vnni || HasBf16Dot(t); }
constexpr bool HasAvx512(Target t) { return t == Target::kAvx512 || HasVnni(t); }

std::string_view TargetName(Target target);  // "avx512-bf16"
std::optional<Target> TargetFromName(std::string_view name);
std::vector<Target> SupportedTargets();  // of this CPU, best first

struct TrafficCounters;

// Plain data, copied freely; the pool outlives it.
struct Context {
  ThreadPool* pool = nullptr;
  Path path = Path::kSimd;
  Target target = Target::kScalar;
  TrafficCounters* traffic = nullptr;  // not null: products add what they read [traffic.h]
};

}  // namespace cachalot::kernels
