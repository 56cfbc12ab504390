// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tensor/dtype.h"

#include <array>

namespace cachalot {
namespace {

// Indexed by DType.
constexpr std::array<std::string_view, 7> kNames = {"F32", "BF16", "F8_E4M3", "F8_E8M0",
                                                    "I8",  "I32",  "I64"};

}  // namespace

std::string_view DTypeName(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace cachalot
