// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a training run: all that the next step depends on. [docs/formats/run_state.md]
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/io/atomic_file.h"
#include "cachalot/io/checksum.h"
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
// and step counts, `state`, each under a checksum. Streams: no copy in memory, so that what other
// ranks hold can be brought here one array at a time.
class RunWriter {
 public:
  // `set` and `optimizer` are described, whether or not they hold what they describe.
  static Result<RunWriter> Create(const std::string& path, const RunState& state,
                                  const ParameterSet& set, const Optimizer& optimizer);
  // The next array: of each parameter in order its value, then its moments.
  Status Append(std::span<const float> array);
  // After the last one: the tables of `set`, and the file appears.
  Status Finish(const ParameterSet& set);

 private:
  RunWriter(io::AtomicFile file, std::string meta);
  Status AppendBytes(const void* data, uint64_t bytes);

  io::AtomicFile file_;
  std::string meta_;
  std::unique_ptr<io::Checksum> checksum_;  // is not moved
  uint64_t body_bytes_ = 0;
};

// Checks the whole file, then overwrites the values, tables and optimizer state that a set and an
// optimizer of the same model hold; they keep their content on any error. Gradients are not
// touched. kDataCorruption, kVersionMismatch; kInvalidArgument if the file is of another model or
// optimizer, naming the first tensor that differs.
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
