// SPDX-License-Identifier: Apache-2.0
// What was learned about experts, kept from one run to the next. [formats/expert-profile.md]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/stream/expert_cache.h"

namespace cachalot::stream {

// Uses by layer and expert, [num_layers * num_experts]. kDataCorruption for a text that is no
// profile, kInvalidArgument for one of another model, both with the remedy; `path` names it.
Result<std::vector<uint64_t>> ParseProfile(std::string_view text, const std::string& path,
                                           uint32_t num_layers, uint32_t num_experts);

// Reads the profile at `path` and lets the cache learn from it: the most used experts are read into
// its slots. No file is no experience, and no error; a bad one as ParseProfile has it.
Status LoadProfile(const std::string& path, ExpertCache& cache);

// Writes what this run used, and half of what the file said before: habits fade.
Status SaveProfile(const std::string& path, const ExpertCache& cache);

}  // namespace cachalot::stream
