// SPDX-License-Identifier: Apache-2.0
// A trained model as an official-layout checkpoint, which run, serve and other V4 engines load.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/kernels/context.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

enum class ExportFormat : uint8_t {
  kReleased,  // experts FP4 1 x 32, dense matrices FP8 128 x 128, the rest BF16 and F32 as released
  kBFloat16,  // matrices and norms BF16, what is released as F32 stays F32
  kFloat32,   // the masters, to the bit
};

struct ExportOptions {
  std::string out;        // created; must not exist
  std::string tokenizer;  // folder whose tokenizer.json and tokenizer_config.json are copied; or ""
  ExportFormat format = ExportFormat::kReleased;
  bool chat = false;  // writes generation_config.json, which marks a model as trained to chat
};

// The configuration of the exported checkpoint: `config` with the format's quantization.
model::Config ExportConfig(const model::Config& config, ExportFormat format);

// kInvalidArgument with the size that is to blame if no engine would load `config` exported as
// `format`: to be asked before hours of training.
Status CheckExport(const model::Config& config, ExportFormat format);

// The value of parameter i of a set; of one that is not held here, as its rank gives it. Valid
// until the next call.
using ValueSource = std::function<std::span<const float>(size_t parameter)>;

// Writes shards, index, config.json and tokenizer files into a temporary folder beside `out` and
// renames it. Values are those of `set`, or come from `values`, which is asked once for each of the
// set's parameters, in the set's order. kInvalidArgument if `out` exists, if a tensor is missing
// or has another shape than `config` implies, or if the format cannot hold the model (FP4 needs
// multiples of 32).
Status ExportCheckpoint(const model::Config& config, const ParameterSet& set,
                        const ExportOptions& options, const kernels::Context& ctx,
                        const ValueSource& values = nullptr);

}  // namespace cachalot::train
