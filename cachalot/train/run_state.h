// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a training run: all that the next step depends on. [docs/formats/run_state.md]
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/train/optimizer.h"
#include "cachalot/train/packed_reader.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

// Beside parameters and optimizer state. Random draws are functions of (seed, step, index), so the
// recipe's seed and `step` are all the random state there is.
struct RunState {
  std::string recipe;  // text of the recipe file
  uint64_t step = 0;   // the next one to take
  uint64_t tokens = 0;
  DataPosition data;
  // Whatever else the trainer must not forget, by its own names; doubles as their bits.
  std::map<std::string, uint64_t> numbers;
};

// Writes a file that appears whole or not at all: float32 masters, hash tables, optimizer moments
// and step counts, `state`, each under a checksum. Streams: no copy in memory.
Status SaveRun(const std::string& path, const RunState& state, const ParameterSet& set,
               const Optimizer& optimizer);

// Checks the whole file, then overwrites the values, tables and optimizer state of a set and an
// optimizer of the same model; they keep their content on any error. Gradients are not touched.
// kDataCorruption, kVersionMismatch; kInvalidArgument if the file is of another model or optimizer,
// naming the first tensor that differs.
Result<RunState> LoadRun(const std::string& path, ParameterSet& set, Optimizer& optimizer);
// The same from memory; `name` starts every message.
Result<RunState> ParseRun(std::string_view name, const uint8_t* data, uint64_t size,
                          ParameterSet& set, Optimizer& optimizer);

// DIR/step-000000001200.run
std::string RunPath(const std::string& dir, uint64_t step);
// The highest step in DIR; kNotFound if there is none.
Result<std::string> LatestRun(const std::string& dir);
// Removes all but the newest `keep` of DIR, and temporary files that a killed process left.
Status PruneRuns(const std::string& dir, uint32_t keep);

}  // namespace cachalot::train
