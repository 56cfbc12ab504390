// SPDX-License-Identifier: Apache-2.0
// One request through the engine, from a prompt's ids to the last token: shared by run and chat.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/engine.h"

namespace cachalot::cli {

struct Generation {
  engine::RequestId id{};
  std::vector<uint32_t> tokens;  // generated, without the token that ended it
  engine::FinishReason finish = engine::FinishReason::kStop;
  uint32_t prompt_tokens = 0;
  uint32_t reused_tokens = 0;    // of the prompt, remembered from before
  double prefill_seconds = 0.0;  // to the first token
  double decode_seconds = 0.0;   // from there to the end
  // Of the same two stretches; without layers unless experts are streamed.
  model::ExpertStats prefill_experts, decode_experts;

  double prefill_per_s() const;
  double decode_per_s() const;  // 0 with fewer than two tokens
};

// Called with each token that is part of the answer; false ends the request (a stop string).
using TokenSink = std::function<bool(uint32_t token)>;

// Runs `request` alone to its end. Ctrl-C (InterruptRequested) ends it as kCancelled. A prompt that
// takes long shows its progress.
Result<Generation> Generate(engine::Engine& engine, engine::Request request, const TokenSink& sink);

// "stop", "length" or "cancelled".
std::string FinishName(engine::FinishReason reason);

// "12 prompt tokens (8 reused), 340.1 tokens/s; 128 generated, 51.3 tokens/s; context 140/8192".
// With streamed experts also what those cost: the answer, or the prompt if that is all there was.
std::string FormatStats(const Generation& generation, uint32_t max_context);

}  // namespace cachalot::cli
