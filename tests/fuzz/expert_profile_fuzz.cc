// SPDX-License-Identifier: Apache-2.0
// Expert profiles from outside: refused with an error that names the file, or a count for every
// expert of the model, whose sum does not overflow.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cachalot/stream/profile.h"

namespace {
void Require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint32_t kLayers = 2, kExperts = 4;  // what the corpus is of
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto uses = cachalot::stream::ParseProfile(text, "fuzz.json", kLayers, kExperts);
  if (!uses.ok()) {
    Require(uses.error().message.starts_with("fuzz.json"));
    return 0;
  }
  Require(uses->size() == size_t{kLayers} * kExperts);
  uint64_t sum = 0;
  for (const uint64_t count : *uses) {
    Require(sum + count >= sum);
    sum += count;
  }
  return 0;
}
