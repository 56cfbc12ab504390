// SPDX-License-Identifier: Apache-2.0
// Which optimizer a tensor gets, by its released name. [V4 2.4; docs/design/train.md]
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "cachalot/model/config.h"

namespace cachalot::train {

enum class OptimizerKind : uint8_t {
  kNone,  // router biases: moved by the load balance, not by a gradient
  kMuon,
  kAdamW,
};

struct OptimizerRule {
  OptimizerKind kind = OptimizerKind::kAdamW;
  bool decay = true;  // weight decay applies
  // kMuon: rows of each logically independent matrix, in order; they add up to the tensor's rows.
  std::vector<size_t> blocks;
};

// Arrays of a parameter's size that its optimizer remembers.
inline uint32_t NumMoments(const OptimizerRule& rule) {
  if (rule.kind == OptimizerKind::kNone) return 0;
  return rule.kind == OptimizerKind::kMuon ? 1 : 2;
}

// The paper names embedding, prediction head, norms, static biases and gating factors of mHC for
// AdamW, everything else Muon. Where it is silent we choose:
//   sinks, position biases (ape)   AdamW: biases by their role, whatever their shape
//   router weights, indexer        Muon
//   wo_a                           one matrix a group; CSA's wkv, wgate one a stream;
//                                  mHC's fn one each for pre, post and res
//   weight decay                   matrices, embedding and head; not norms, biases, sinks, scales
OptimizerRule RuleFor(const model::Config& config, std::string_view name, size_t rows, size_t cols);

}  // namespace cachalot::train
