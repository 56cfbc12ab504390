// SPDX-License-Identifier: Apache-2.0
// What a model will take of the machine's memory, said before a long load.
#pragma once

#include <cstdint>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/model/config.h"

namespace cachalot::cli {

struct LoadPlan {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;       // of what runs at once, at its longest
  uint64_t scratch_bytes = 0;  // estimated
  uint64_t available_bytes = 0;
  uint64_t memory_bytes = 0;  // of the machine
  uint32_t context = 0;
  uint32_t sequences = 0;
  bool must_stay = false;  // weights are copied or locked: what does not fit cannot run

  uint64_t private_bytes() const { return kv_bytes + scratch_bytes; }
  bool fits() const { return weight_bytes + private_bytes() <= available_bytes; }
  // One line: parts, what is available, and what follows.
  std::string Describe() const;
  // kResourceExhausted with the figures and the remedy where it cannot run at all.
  Status Check() const;
};

// Bytes of the safetensors shards in `dir`, by their sizes.
uint64_t ShardBytes(const std::string& dir);

// Scratch of a step of `tokens` tokens: the buffers that grow with it (streams, experts' rows,
// queries of a tile), within a fifth of what Forward takes.
uint64_t EstimateScratchBytes(const model::Config& config, uint32_t tokens);

}  // namespace cachalot::cli
