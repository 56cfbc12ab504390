// SPDX-License-Identifier: Apache-2.0
// Checkpoints of real dimensions with random weights, in the official layout: what benchmarks and
// tests run on where the released weights are not at hand.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/model/config.h"
#include "cachalot/threading/thread_pool.h"

namespace cachalot::model {

enum class SynthRouting : uint8_t {
  kUniform,  // every expert about equally often
  kZipf,     // expert e about in proportion to 1 / (e + 1): something for a cache to win
};

struct SynthOptions {
  Config config;
  std::string out;  // created; must be empty or absent
  uint64_t seed = 0;
  SynthRouting routing = SynthRouting::kUniform;
};

// `base` cut to its first `layers` layers, `vocab` tokens, with or without the MTP block.
// kInvalidArgument if the base has fewer layers or the vocabulary is too small for the bytes and
// V4's special tokens.
Result<Config> SynthConfig(const Config& base, uint32_t layers, uint32_t vocab, bool mtp);

// Called with (bytes written, bytes in all) from the calling thread; returns false to stop.
using SynthProgress = std::function<bool(uint64_t, uint64_t)>;

// Writes shards (one a layer), index, config, generation_config, tokenizer and tokenizer_config.
// The same options give the same bytes on any number of threads. Values are scaled so that
// activations keep the size of a trained model's. kResourceExhausted with needed and available
// bytes before anything is written if the disk is short; kCancelled or an error remove what was
// written.
Status WriteSynthCheckpoint(const SynthOptions& options, ThreadPool& pool,
                            const SynthProgress& progress);

// A byte-level BPE tokenizer.json of exactly `vocab` entries: V4's special tokens, the 256 bytes
// and made-up merges of letters. Pre: vocab >= MinSynthVocab().
std::string SynthTokenizerJson(uint32_t vocab);
uint32_t MinSynthVocab();

}  // namespace cachalot::model
