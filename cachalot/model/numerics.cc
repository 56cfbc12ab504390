// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "cachalot/model/forward.h"

namespace cachalot::model {
namespace {

// Indexed by Numerics.
constexpr std::array<std::string_view, 4> kNames = {"reference", "exact", "fast", "official"};

}  // namespace

std::string_view NumericsName(Numerics numerics) { return kNames[static_cast<size_t>(numerics)]; }

std::optional<Numerics> NumericsFromName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Numerics>(i);
  }
  return std::nullopt;
}

KvFormat KvFormatOf(Numerics numerics) {
  return numerics == Numerics::kExact ? KvFormat::kF32 : KvFormat::kNative;
}

}  // namespace cachalot::model
