// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/context.h"

#include <array>

namespace cachalot::kernels {
namespace {

// Indexed by Target.
constexpr std::array<std::string_view, 6> kNames = {"scalar",      "avx2",        "avx512",
                                                    "avx512-vnni", "avx512-bf16", "neon"};

}  // namespace

std::string_view TargetName(Target target) { return kNames[static_cast<size_t>(target)]; }

std::optional<Target> TargetFromName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Target>(i);
  }
  return std::nullopt;
}

}  // namespace cachalot::kernels
