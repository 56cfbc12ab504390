// SPDX-License-Identifier: Apache-2.0
// The flags that every command which runs a model shares, and their way into the modules' options.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/engine.h"
#include "cachalot/eval/logit_runner.h"

namespace cachalot::cli {

// -m, --numerics, --threads, --cpu-list, --pin, --target, --chunk, --max-context, and how weights
// come into memory: --mmap, --huge-pages, --preload, --lock.
struct EngineFlags {
  std::string model;
  std::string numerics = "fast";
  std::string target;
  uint32_t threads = 0;
  uint32_t chunk = 0;  // 0: the module's default
  uint32_t max_context = 0;
  std::string speculate = "auto";
  std::string cpu_list;
  std::string pin = "auto";
  bool mmap = false;  // the default, said aloud
  bool huge_pages = false;
  bool preload = false;
  bool lock = false;
  std::string memory;  // of the process: the experts that do not fit are streamed
  std::string expert_policy = "lfu";
  std::string expert_profile;
  std::string expert_prefetch = "on";
  std::string weights_mirror;
  bool record_experts = false;  // not a flag: a trace of what steps ask for

  model::Numerics numerics_value() const;  // pre: parsed by CLI11, so one of the names
  std::optional<kernels::Target> target_value() const;
  Pinning pinning() const;
  // The chunk follows the weights where no flag says it: streamed ones want large ones.
  engine::EngineOptions ToEngineOptions(const model::Weights& weights) const;
  eval::RunnerOptions ToRunnerOptions(uint32_t max_tokens) const;
};
// `with_context` adds --max-context and --speculate. Bad values are usage errors (exit code 2).
void AddEngineFlags(CLI::App& command, EngineFlags& flags, bool with_context);

// What runs on the weights, for the plan of a long load.
struct LoadUse {
  uint32_t sequences = 1;
  uint64_t kv_bytes = 0;     // 0: as many full contexts as sequences
  uint32_t context = 0;      // 0: --max-context or its default
  uint64_t other_bytes = 0;  // that the command will take besides
};
// Writes --expert-profile, if there is one and experts were streamed. At the end of a command.
Status SaveExperience(const EngineFlags& flags, const model::Weights& weights);
// Restricts the process to --cpu-list, then loads `dir` as the flags say, with a progress bar. Says
// on standard error beforehand what will fit, if the load will take long or something does not fit.
Result<std::shared_ptr<const model::Weights>> LoadModelWeights(const EngineFlags& flags,
                                                               const std::string& dir,
                                                               const LoadUse& use);

// Bytes a second of direct reads from the largest file of the model; 0 where they were not
// measured.
double MeasureDisk(const std::string& dir, double seconds);

// Sampling, maximum length and stop strings: everything about one completion.
struct SamplingFlags {
  engine::SamplingParams params;
  std::optional<uint64_t> seed;         // default: a fresh one each run
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::vector<std::string> stops;
  std::optional<uint32_t> max_tokens;
  bool ignore_eos = false;

  // The parameters with a seed, biases parsed and all ranges checked.
  Result<engine::SamplingParams> Params(uint32_t vocab_size) const;
};
void AddSamplingFlags(CLI::App& command, SamplingFlags& flags);

// Text under "Examples:" at the end of --help; one command a line.
void SetExamples(CLI::App& command, const std::string& examples);

}  // namespace cachalot::cli
