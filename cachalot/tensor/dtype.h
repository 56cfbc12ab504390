// SPDX-License-Identifier: Apache-2.0
// Element types of checkpoint tensors, spelled as safetensors spells them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace cachalot {

enum class DType : uint8_t {
  kF32,
  kBF16,
  kF8E4M3,
  kF8E8M0,
  kI8,  // raw bytes; routed experts hold two FP4 (E2M1) codes in each
  kI32,
  kI64,
};

// Bytes of one stored element.
constexpr uint64_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E8M0:
    case DType::kI8:
      return 1;
    case DType::kI64:
      return 8;
  }
  return 0;
}

std::string_view DTypeName(DType dtype);  // "F8_E4M3"
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace cachalot
