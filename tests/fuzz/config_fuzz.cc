// SPDX-License-Identifier: Apache-2.0
// config.json from any bytes: refused, or consistent enough to walk, to size a cache and to write
// back to the same configuration.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cachalot/model/config.h"
#include "cachalot/model/inventory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cachalot::model;  // NOLINT: one function
  const auto config = ParseConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!config.ok()) {
    // One line whatever the bytes were.
    if (config.error().message.find('\n') != std::string::npos) std::abort();
    return 0;
  }
  const std::string json = ConfigToJson(*config);
  const auto again = ParseConfig(json, "fuzz");
  if (!again.ok() || ConfigToJson(*again) != json) std::abort();
  if (config->kv_spec(cachalot::KvFormat::kNative, false).Validate().ok()) {
    if (config->kv_spec(cachalot::KvFormat::kNative, false).state_bytes() == 0) std::abort();
  }
  // A walk of a quarter million experts is fine once, not a thousand times a second.
  if (uint64_t{config->num_hidden_layers} * config->n_routed_experts > 512) return 0;
  const Totals totals = ComputeTotals(*config);
  if (totals.tensors == 0 || totals.activated > totals.parameters) std::abort();
  return 0;
}
