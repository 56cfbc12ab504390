// SPDX-License-Identifier: Apache-2.0
// Guesses of the tokens that follow, to be verified in one step. A guess costs time and never
// changes the output: it is accepted iff it is the token that would have been sampled anyway.
// [V4 2.5; design.md 4, Sampling; docs/design/engine.md]
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cachalot/base/error.h"
#include "cachalot/model/forward.h"

namespace cachalot::engine {

// One sequence of the step that just ran and has not advanced yet.
struct DraftRequest {
  uint32_t first_row = 0;          // step row of the first token below
  std::span<const uint32_t> next;  // the token that follows each of these rows; at least one
  // Where the guesses go, at most this many; empty: only keep the draft's own state going, as for
  // the chunks of a prompt.
  std::span<uint32_t> draft;
  uint32_t num_drafted = 0;  // out
};

// Turns a draft's logits into a token as the engine would: `request` is an index into the call's,
// `ahead` counts from 0 (the token after the last of `next`). Non-owning.
class TokenChooser {
 public:
  virtual ~TokenChooser() = default;
  virtual uint32_t Choose(size_t request, uint32_t ahead, std::span<float> logits) = 0;
};

// Two kinds are foreseen: the MTP block of Flash and Pro (one token), and the DSpark stages of
// later checkpoints (several tokens; model.md 6.2).
class Drafter {
 public:
  virtual ~Drafter() = default;
  virtual uint32_t max_draft_tokens() const = 0;  // at most kvcache::kMaxRewind
  // After Forward::Step and before its sequences advance. Requests ascend by first_row.
  virtual Status Propose(std::span<DraftRequest> requests, TokenChooser& chooser) = 0;
};

// The MTP block: one token. `forward` was made with_mtp and outlives it; `max_tokens` and
// `max_requests` bound a call.
std::unique_ptr<Drafter> MakeMtpDrafter(model::Forward& forward, uint32_t max_tokens,
                                        uint32_t max_requests);

}  // namespace cachalot::engine
