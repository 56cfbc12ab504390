// SPDX-License-Identifier: Apache-2.0
// Weights of which only the dense part stays in memory. [design/streaming.md]
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/model/weights.h"
#include "cachalot/stream/expert_cache.h"

namespace cachalot::stream {

// What streaming a model takes of memory.
struct StreamSizes {
  uint64_t dense_bytes = 0;  // read and kept, in whole pages
  uint64_t small_bytes = 0;  // vectors, hash tables, names and places of tensors; estimated
  uint64_t slot_bytes = 0;   // of the largest expert, in whole pages
  uint64_t num_experts = 0;  // of all layers and the MTP block
  uint64_t num_layers = 0;   // that have them
};
StreamSizes MeasureStream(const model::Weights& mapped);

struct StreamOptions {
  ExpertCacheOptions cache;
  std::string mirror_dir;     // a second copy of the files, on another drive; empty: none
  io::ByteProgress progress;  // of reading the dense part; may be empty
};

// Weights like `mapped` (bound to a mapped checkpoint), their dense matrices read into memory,
// their experts behind an ExpertCache, the maps' pages given back. kUnsupported for weights that
// are not from files; kInvalidArgument for a mirror whose files are not the same size; kIo,
// kCancelled and kResourceExhausted as for any reading.
Result<std::shared_ptr<const model::Weights>> StreamWeights(const model::Weights& mapped,
                                                            const StreamOptions& options);

// The cache behind streamed weights, or null.
ExpertCache* CacheOf(const model::Weights& weights);

}  // namespace cachalot::stream
