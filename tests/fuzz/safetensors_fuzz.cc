// SPDX-License-Identifier: Apache-2.0
// The header parser on any bytes: every view handed out lies inside the input, no two overlap.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/checkpoint/header_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cachalot::checkpoint;  // NOLINT: one function
  const auto tensors = ParseSafetensors("fuzz", data, size);
  if (tensors.ok()) {
    std::vector<TensorInfo> official;
    uint64_t total = 0;
    for (const TensorInfo& t : *tensors) {
      if (t.data < data || t.bytes > size || t.data + t.bytes > data + size) std::abort();
      total += t.bytes;
      AppendOfficial(t, official);
    }
    if (total > size) std::abort();
    for (const TensorInfo& t : official) {
      if (t.bytes > 0 && (t.data < data || t.data + t.bytes > data + size)) std::abort();
    }
  }
  const auto map = ReadWeightMap({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (map.ok()) {
    for (const auto& entry : *map) {
      if (entry.shard.find('/') != std::string::npos) std::abort();
    }
  }
  return 0;
}
