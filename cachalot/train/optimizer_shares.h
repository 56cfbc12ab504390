// SPDX-License-Identifier: Apache-2.0
// Which rank takes the optimizer's step of which parameter, holds its master and moments, and, of
// a routed expert, computes with it. [V4 3.4.1; report.md 6.4]
//
// Muon needs whole matrices, so whole parameters are dealt out, by what their step costs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/train/optimizer.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

// Of one step of each parameter, in flop: Newton-Schulz's for Muon, for AdamW the memory it moves
// in place of flop; 0 for what has no optimizer.
std::vector<double> StepCosts(const ParameterSet& set, std::span<const OptimizerRule> rules);

inline constexpr uint32_t kAnyRank = UINT32_MAX;

// The owner of each parameter: those of `fixed` (empty: all kAnyRank), then in order of falling
// cost, each to the rank that has least so far. The fullest rank then has at most 4/3 of what the
// best division would give it [Graham 1969]. A pure function, so that all ranks agree without a
// word.
std::vector<uint32_t> AssignOwners(std::span<const double> costs, uint32_t ranks,
                                   std::vector<uint32_t> fixed = {});

enum class ExpertPlacement : uint8_t {
  kReplicated,   // every rank computes with all routed experts
  kDistributed,  // each is on one rank, which other ranks send its tokens' rows to
};

struct RankShares {
  std::vector<uint32_t> owners;  // of each parameter
  // 1: all ranks compute with the parameter, its gradients go to the owner and its values come from
  // there; 0: only the owner does.
  std::vector<uint8_t> replicated;
};

// `num_experts` routed experts a layer, distributed by ExpertRank. With one rank everything is
// replicated.
RankShares ShareParameters(const ParameterSet& set, std::span<const OptimizerRule> rules,
                           size_t num_experts, uint32_t ranks, ExpertPlacement placement);

}  // namespace cachalot::train
