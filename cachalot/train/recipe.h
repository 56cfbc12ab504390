// SPDX-License-Identifier: Apache-2.0
// A training run, written down: recipes/*.toml. [docs/design/train.md; V4 4.2]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/model/config.h"
#include "cachalot/train/network.h"
#include "cachalot/train/optimizer.h"
#include "cachalot/train/recompute.h"
#include "cachalot/train/schedule.h"
#include "cachalot/train/stability.h"

namespace cachalot::train {

struct DataOptions {
  std::string train;       // folder of token shards
  std::string validation;  // the same; empty: no evaluation
  std::string tokenizer;  // folder of the tokenizer they come from: copied beside an exported model
  bool chat = false;      // the data teaches to chat: the exported model says so
};

struct LossOptions {
  float balance_weight = 1e-4f;  // sequence-wise balance loss [V4 4.2.2]
  float bias_speed = 1e-3f;      // of router biases, a step
};

struct PrecisionOptions {
  Precision products = Precision::kFloat32;  // operands of matrix products in forward and backward
  // From qat_from_step on, weights and cached activations pass through their formats of inference.
  bool qat = false;
  uint64_t qat_from_step = 0;
};

struct MemoryOptions {
  // What of a layer is made again in the backward pass instead of kept: less memory, more time.
  RecomputeSet recompute;
};

struct CheckpointOptions {
  uint64_t every_steps = 500;
  uint32_t keep_last = 3;
};

struct EvaluationOptions {
  uint64_t every_steps = 100;
  uint64_t tokens = 65536;  // of the validation shards, from their beginning
};

struct Recipe {
  std::string name;
  uint64_t seed = 1;
  // A run folder: its newest checkpoint's parameters and optimizer state are where this run begins,
  // at a step 0 of its own. Empty: random ones, by the seed.
  std::string start_from;
  model::Config model;  // unquantized: masters are float32
  DataOptions data;
  Schedule schedule;
  OptimizerOptions optimizer;
  float clip_norm = 1.0f;                         // of the whole gradient; 0: off
  ResidualMap residual = ResidualMap::kSinkhorn;  // others: for comparison, no export, no qat
  LossOptions loss;
  PrecisionOptions precision;
  MemoryOptions memory;
  StabilityOptions stability;
  CheckpointOptions checkpoint;
  EvaluationOptions evaluation;
};

// The folder of token shards that `step` reads: of its stage, or what that stage goes on with.
const std::string& TrainDataAt(const Recipe& recipe, uint64_t step);

// Parses TOML text; `file` starts every message. Strict: an unknown table or key is refused by name
// and line with what is known there, a value by what it is and what was expected. [model] holds
// config.json's fields; architecture constants may be left out. kInvalidArgument.
Result<Recipe> ParseRecipe(std::string_view text, std::string_view file);
Result<Recipe> LoadRecipe(const std::string& path);

}  // namespace cachalot::train
