// SPDX-License-Identifier: Apache-2.0
// Records of the KV cache on disk: any bytes are refused or consistent with themselves.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "cachalot/diskcache/record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cachalot::diskcache;  // NOLINT: one function
  const auto record = ParseRecord({data, size});
  if (!record.ok()) return 0;
  std::vector<uint8_t> again;
  EncodeRecord(record->name(), record->key, record->payload, again);
  if (!DecodeRecord(again, record->key, record->name()).ok()) std::abort();
  return 0;
}
