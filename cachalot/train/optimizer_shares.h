// SPDX-License-Identifier: Apache-2.0
// Which rank takes the optimizer's step of which parameter, and holds its master and moments.
// [V4 3.4.1; report.md 6.4]
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

// The owner of each parameter: in order of falling cost, each to the rank that has least so far.
// The fullest rank then has at most 4/3 of what the best division would give it [Graham 1969]. A
// pure function, so that all ranks agree without a word.
std::vector<uint32_t> AssignOwners(std::span<const double> costs, uint32_t ranks);

}  // namespace cachalot::train
