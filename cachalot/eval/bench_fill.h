// SPDX-License-Identifier: Apache-2.0
// A KV cache as if `tokens` tokens had been read: reading a million takes hours here, and the time
// of the next token depends on how many entries there are, not on what they say.
#pragma once

#include <cstdint>
#include <functional>

#include "cachalot/base/error.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/threading/thread_pool.h"

namespace cachalot::eval {

// Takes an empty sequence to position `tokens`. Entries, keys and raw compressor rows are normal
// numbers of variance 1, which is what the norms before them leave (their weights are near 1), so
// scores and softmax are as spread as those of real text. Deterministic in (seed, layer, row).
// kResourceExhausted without blocks.
Status FillSequence(kvcache::Sequence& sequence, const kvcache::KvSpec& spec, uint32_t tokens,
                    uint64_t seed, ThreadPool& pool);

}  // namespace cachalot::eval
