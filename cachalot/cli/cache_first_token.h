// SPDX-License-Identifier: Apache-2.0
// cachalot cache bench --first-token: a request whose prompt is on disk, through the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/engine.h"

namespace cachalot::cli {

struct FirstToken {
  std::vector<double> seconds;  // from Submit to the token, each in an engine of its own
  uint32_t computed = 0;        // prompt tokens that the forward pass ran on
};

// Under what an engine of these weights stores its prefixes.
Result<std::string> StoreIdentity(std::shared_ptr<const model::Weights> weights,
                                  const engine::DiskOptions& disk, uint32_t max_context);

// The prompt is all of `ids`; what of it `disk.store` has is not computed.
Result<FirstToken> MeasureFirstToken(std::shared_ptr<const model::Weights> weights,
                                     const engine::DiskOptions& disk, std::span<const uint32_t> ids,
                                     kvcache::CacheScope scope, uint32_t repeats);

}  // namespace cachalot::cli
