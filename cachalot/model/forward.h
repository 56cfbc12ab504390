// SPDX-License-Identifier: Apache-2.0
// The forward pass: one step of any mix of prefill and decode over several sequences.
// [V4 2; model.md 3-6; docs/design/model.md]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kernels/context.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/model/step_profile.h"
#include "cachalot/model/weights.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::model {

// design.md 3. `fast` is the default and the only one that is not scalar.
enum class Numerics : uint8_t { kReference, kExact, kFast, kOfficial };
std::string_view NumericsName(Numerics numerics);
std::optional<Numerics> NumericsFromName(std::string_view name);
// kExact keeps float32 entries, all others the native format.
KvFormat KvFormatOf(Numerics numerics);

// Bumped whenever a committed hash of the tiny model's logits changes; part of a cache's identity.
inline constexpr uint32_t kNumericsRevision = 1;

// Tokens of one sequence in this step, appended at its position. `tokens` < V, at least one.
// The caller has reserved room (Sequence::Reserve) and advances the sequence after the step.
struct SequenceInput {
  kvcache::Sequence* sequence = nullptr;
  std::span<const uint32_t> tokens;
  // Empty, or one per token: the token that follows it, for the MTP block (section 6.1).
  std::span<const uint32_t> mtp_next;
};

// Which positions get outputs; all views are [rows, ...] in step order (sequences one after
// another).
struct ForwardOutputs {
  // Step-wide token indices (0 .. T-1, ascending) whose logits are wanted.
  std::span<const uint32_t> logit_rows;
  MatView<float> logits;      // [logit_rows.size(), V]
  MatView<float> mtp_logits;  // [T, V] or empty; needs mtp_next of every sequence and weights.mtp
  MatView<float> hidden;      // [T, D] or empty: after the final norm, before head
  // Per main layer, or empty: streams after layer l, [T, M D]. Tests and MTP drafts.
  std::span<const MatView<float>> layer_streams;
  // Per main layer, or empty: chosen experts [T, A] ascending.
  std::span<const MatView<uint32_t>> experts;
  // Empty, or one per input: set to whether a token of it needed an expert that could not be read.
  // Its outputs are wrong and its sequence must not be stepped again; the other inputs are as they
  // should be. Without, such a step is an error, and all its sequences are lost.
  std::span<uint8_t> failed;
};

struct ForwardOptions {
  Numerics numerics = Numerics::kFast;
  uint32_t max_step_tokens = 512;  // T of the largest step
  uint32_t max_step_sequences = 16;
  bool with_mtp = false;  // room for the MTP block
  // Attention sees no compressed entries, only its window: to measure what they carry.
  bool window_only = false;
  StepProfile* profile = nullptr;  // not null: every step adds its times; outlives the Forward
};

// Owns the scratch of a step; weights and cache are passed in. One Forward = one step at a time.
class Forward {
 public:
  // kResourceExhausted without memory for the scratch, which is `scratch_bytes()`.
  static Result<std::unique_ptr<Forward>> Create(std::shared_ptr<const Weights> weights,
                                                 const ForwardOptions& options,
                                                 const kernels::Context& ctx);
  ~Forward();

  // Runs the step: writes KV state, compressed entries and the outputs. Sum of tokens <=
  // max_step_tokens. Token ids >= V or positions beyond max_position_embeddings are
  // kInvalidArgument, checked before anything is written. Allocates nothing. Bits of a token's
  // outputs do not depend on the other tokens of the step beyond those its sequence's past defines.
  // kIo where streamed experts could not be read and outputs.failed does not take it.
  Status Step(std::span<const SequenceInput> inputs, const ForwardOutputs& outputs);

  // Runs the MTP block after a step, when the tokens that follow are known: on the `rows` of that
  // step (ascending) whose tokens stay, with next[i] the token after row rows[i]. Writes their MTP
  // window; logits row i is what the block makes of row rows[logit_rows[i]], i.e. of the token
  // after next. [model.md 6.1] Needs with_mtp; at most once a step, before its sequences advance.
  // Allocates nothing. next >= V is kInvalidArgument, anything else wrong a bug.
  Status Draft(std::span<const uint32_t> rows, std::span<const uint32_t> next,
               std::span<const uint32_t> logit_rows, MatView<float> logits);

  const Weights& weights() const;
  const ForwardOptions& options() const;
  size_t scratch_bytes() const;

 private:
  struct Impl;
  explicit Forward(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::model
