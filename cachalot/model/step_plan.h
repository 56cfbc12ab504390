// SPDX-License-Identifier: Apache-2.0
// How a step's tokens are laid out: built once a step, the same for every layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/model/config.h"
#include "cachalot/model/forward.h"

namespace cachalot::model {

// Tokens whose attention half runs together: bounds the scratch that grows with H * d (queries).
inline constexpr uint32_t kAttentionTile = 128;

// One token of the step.
struct StepToken {
  uint32_t id = 0;
  uint32_t position = 0;
  kvcache::Sequence* sequence = nullptr;
};

// Up to kMaxRewind consecutive tokens of each sequence of a tile. A wave's KV is written before any
// of its tokens attends; the window ring has W + kMaxRewind rows and the compressor tails as much
// slack, so a wave never overwrites a row that one of its own tokens still reads.
struct Wave {
  uint32_t begin = 0;  // into StepPlan::wave_rows
  uint32_t count = 0;
};

struct Tile {
  uint32_t begin = 0;  // step row of the first token
  uint32_t count = 0;
  uint32_t first_wave = 0;  // into StepPlan::waves
  uint32_t num_waves = 0;
};

struct StepPlan {
  std::vector<StepToken> tokens;    // in step order
  std::vector<uint32_t> positions;  // of tokens
  std::vector<uint32_t> mtp_next;   // per token, empty without MTP
  std::vector<Tile> tiles;
  std::vector<Wave> waves;
  std::vector<uint32_t> wave_rows;  // step rows, wave after wave, sequences in order

  void Reserve(uint32_t max_tokens, uint32_t max_sequences);
  // Checks the inputs against the model and limits, then fills the plan; on error nothing ran.
  Status Build(std::span<const SequenceInput> inputs, const Config& config,
               const ForwardOptions& options);
  // Leaves only these rows (ascending), with the token that follows each.
  Status Keep(std::span<const uint32_t> rows, std::span<const uint32_t> next, const Config& config);

 private:
  void AppendTiles();
  void AppendTile(uint32_t begin, uint32_t count);
};

}  // namespace cachalot::model
