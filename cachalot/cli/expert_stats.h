// SPDX-License-Identifier: Apache-2.0
// What streamed experts cost, in words.
#pragma once

#include <cstdint>
#include <string>

#include "cachalot/model/expert_source.h"

namespace cachalot::cli {

// "5 53 46 70 %": of the experts that a layer asked for, how many were in memory.
std::string HitsByLayer(const model::ExpertStats& stats);

// One line about `tokens` tokens that took `seconds`: "experts 57.8 % in memory (by layer 5 53 46
// 70 %), 354.8 MB read a token, 44.7 reads in flight, 0.92 of 2.05 s waiting".
std::string FormatExpertStats(const model::ExpertStats& stats, uint64_t tokens, double seconds);

}  // namespace cachalot::cli
