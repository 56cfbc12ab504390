// SPDX-License-Identifier: Apache-2.0
// What `--memory` is spent on, said before a long load. [design/streaming.md]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/model/config.h"
#include "cachalot/stream/load.h"

namespace cachalot::cli {

// "24G", "1.5G", "800M": powers of 1024. kInvalidArgument with an example.
Result<uint64_t> ParseMemory(std::string_view text);
Result<std::vector<uint64_t>> ParseMemoryList(std::string_view text);  // "4G,6G,8G"

struct StreamPlan {
  uint64_t memory_bytes = 0;  // of the process
  stream::StreamSizes sizes;
  uint64_t kv_bytes = 0;
  uint64_t scratch_bytes = 0;   // of a step, with its logits
  uint64_t reserved_bytes = 0;  // what the process has already, code, heap and tokenizer
  uint32_t chunk = 0;           // prompt tokens of a step
  // For the forecast; 0 where it is not known.
  uint64_t routed_bytes = 0;  // experts that a token reads, as read
  uint64_t dense_bytes = 0;   // weights that it reads besides, from memory
  double disk_bytes_per_s = 0;
  double memory_bytes_per_s = 0;

  uint64_t fixed_bytes() const {
    return sizes.dense_bytes + sizes.small_bytes + kv_bytes + scratch_bytes + reserved_bytes;
  }
  uint64_t num_slots() const;
  // Tokens a second if every expert is chosen as often: what a skewed choice can only better.
  double tokens_per_s() const;
  // Of a token at that speed, what the disk and the memory take beside each other; 0: not known.
  double disk_seconds() const;
  double memory_seconds() const;
  std::string Describe() const;
  // kResourceExhausted with the figures and the remedy.
  Status Check() const;
};

// The largest power of two up to 2,048 whose scratch is at most an eighth of the memory: a chunk
// reads nearly all experts of a layer whatever its size, so a large one reads them less often.
uint32_t StreamChunk(const model::Config& config, uint64_t memory_bytes);

}  // namespace cachalot::cli
