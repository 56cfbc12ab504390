// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/cache_first_token.h"

#include <chrono>

namespace cachalot::cli {
namespace {

Result<std::unique_ptr<engine::Engine>> MakeEngine(std::shared_ptr<const model::Weights> weights,
                                                   const engine::DiskOptions& disk,
                                                   uint32_t max_context) {
  return engine::Engine::Create(
      std::move(weights),
      {.max_context = max_context, .speculation = engine::Speculation::kOff, .disk = disk});
}

// Steps until the token; how many prompt tokens were found.
Result<uint32_t> StepToFirstToken(engine::Engine& engine) {
  uint32_t reused = 0;
  while (engine.HasWork()) {
    CACHALOT_TRY(const auto events, engine.Step());
    for (const engine::Event& event : events) {
      if (event.error) return *event.error;
      reused = std::max(reused, event.reused);
      if (event.token) return reused;
    }
  }
  return Error{ErrorCode::kInternal, "the engine ended without a token"};
}

}  // namespace

Result<std::string> StoreIdentity(std::shared_ptr<const model::Weights> weights,
                                  const engine::DiskOptions& disk, uint32_t max_context) {
  CACHALOT_TRY(const auto engine, MakeEngine(std::move(weights), disk, max_context));
  return engine->cache_identity();
}

Result<FirstToken> MeasureFirstToken(std::shared_ptr<const model::Weights> weights,
                                     const engine::DiskOptions& disk, std::span<const uint32_t> ids,
                                     kvcache::CacheScope scope, uint32_t repeats) {
  FirstToken out;
  for (uint32_t i = 0; i < repeats; ++i) {
    CACHALOT_TRY(const auto engine,
                 MakeEngine(weights, disk, static_cast<uint32_t>(ids.size() + 1)));
    engine::Request request{
        .prompt = {ids.begin(), ids.end()}, .max_new_tokens = 1, .cache = scope};
    const auto begin = std::chrono::steady_clock::now();
    CACHALOT_TRY([[maybe_unused]] const auto id, engine->Submit(std::move(request)));
    CACHALOT_TRY(const uint32_t reused, StepToFirstToken(*engine));
    out.seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    out.computed = static_cast<uint32_t>(ids.size()) - reused;
  }
  return out;
}

}  // namespace cachalot::cli
