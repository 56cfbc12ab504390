// SPDX-License-Identifier: Apache-2.0
// Recipes from outside: refused with an error that names the file, or one whose schedule and memory
// plan can be computed.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cachalot/train/memory_plan.h"
#include "cachalot/train/recipe.h"

namespace {
void Require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto recipe = cachalot::train::ParseRecipe(text, "fuzz.toml");
  if (!recipe.ok()) {
    Require(recipe.error().message.starts_with("fuzz.toml"));
    return 0;
  }
  const auto& s = recipe->schedule;
  for (const uint64_t step : {uint64_t{0}, s.warmup_steps, s.steps / 2, s.steps - 1, s.steps}) {
    Require(std::isfinite(cachalot::train::LearningRate(s, step)));
    Require(cachalot::train::BatchSequences(s, step) >= 1);
    Require(cachalot::train::MicroBatchSequences(s, step) >= 1);
    cachalot::train::MtpWeight(s, step);
  }
  // A walk over every tensor: only for models whose number of them is not absurd.
  const uint64_t experts =
      uint64_t{recipe->model.num_hidden_layers} * recipe->model.n_routed_experts;
  if (experts < 2000) cachalot::train::PlanMemory(*recipe, 2).total_bytes();
  return 0;
}
