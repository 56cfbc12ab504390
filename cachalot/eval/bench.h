// SPDX-License-Identifier: Apache-2.0
// The benchmark: prefill and decode of a model at context frontiers and batch sizes, each with the
// bytes, flops and machine limits that explain it. [docs/benchmarks.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/eval/bench_limits.h"
#include "cachalot/eval/machine_info.h"
#include "cachalot/eval/speculation_speed.h"
#include "cachalot/model/forward.h"
#include "cachalot/threading/placement.h"

namespace cachalot::eval {

struct BenchOptions {
  model::Numerics numerics = model::Numerics::kFast;
  kernels::Target target = kernels::Target::kScalar;
  uint32_t num_threads = 1;
  Pinning pinning = Pinning::kAuto;
  std::vector<uint32_t> contexts = {512, 2048, 8192};  // ascending
  // Contexts beyond this many tokens are filled with random entries (bench_fill.h), not read.
  uint32_t fill_beyond = 8192;
  std::vector<uint32_t> batches = {1};  // at the first context; more than one sequence: filled
  uint32_t decode_tokens = 32;          // steps timed in a run, rounded up to whole rewinds of 16
  uint32_t runs = 5;                    // of each prompt; one more before them warms up
  uint32_t chunk = 512;                 // prompt tokens of one step
  uint64_t limit_buffer_bytes = size_t{256} << 20;  // read to measure bandwidth
};

// One token of each of `batch` sequences at a context, sampled at temperature 1.
struct DecodeFigures {
  uint32_t context = 0;
  uint32_t batch = 1;
  bool filled = false;
  std::vector<double> step_s;
  double distinct_experts = 0;  // a layer and step, counted
  model::StepCost cost;         // of a step
  model::StepProfile profile;
  model::ExpertStats experts;  // of all steps; empty unless they are streamed

  double tokens_per_s() const;  // of all sequences together, from the median step
};

// `tokens` tokens of one sequence that end at `context`: all of it, or the last ones behind a
// filled cache. Includes the logits of the last token, so the median run is the time to the first
// token of an answer.
struct PrefillFigures {
  uint32_t context = 0;
  uint32_t tokens = 0;
  std::vector<double> run_s;
  double distinct_experts = 0;  // a layer and step of `chunk` tokens, counted
  model::StepCost cost;         // of all its tokens
  model::StepProfile profile;   // of all runs
  model::ExpertStats experts;   // of all runs; empty unless they are streamed

  bool filled() const { return tokens < context; }
  double tokens_per_s() const;
};

struct Bench {
  kernels::MachineLimits limits;                    // the best of before and after the model ran
  std::vector<double> read_bytes_per_s_by_threads;  // [0]: one thread
  kernels::WideningRates widening;
  std::vector<PrefillFigures> prefill;  // by context
  std::vector<DecodeFigures> decode;    // by context, then by batch
  // If the checkpoint has an MTP block and its experts are not streamed.
  std::optional<SpeculationFigures> speculation;
  MemoryUse memory;              // mapped and private: the most after any part
  uint64_t kv_bytes_in_use = 0;  // the most at any time: blocks and state slots
  uint64_t scratch_bytes = 0;
};

// Done, in all; false cancels. Units are about as long as each other, no more.
using BenchProgress = std::function<bool(uint64_t done, uint64_t total)>;

// kInvalidArgument for a context beyond the model's positions or a batch of 0; kCancelled when
// `progress` says so; kResourceExhausted without memory. Random token ids, the same in every run.
Result<Bench> RunBench(std::shared_ptr<const model::Weights> weights, const BenchOptions& options,
                       const BenchProgress& progress);

}  // namespace cachalot::eval
