// SPDX-License-Identifier: Apache-2.0
// Sequences in, token ids out: prefill in chunks, decode, several requests in one step.
// Knows ids only; text, stop strings and sockets live above. [docs/design/engine.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/sampler.h"
#include "cachalot/model/forward.h"

namespace cachalot::engine {

struct EngineOptions {
  model::Numerics numerics = model::Numerics::kFast;
  std::optional<kernels::Target> target;  // default: the best this CPU has
  uint32_t num_threads = 0;               // 0: one per physical core
  uint32_t max_context = 0;               // tokens of the longest sequence; 0: min(model, 32768)
  uint32_t max_sequences = 1;             // running at once
  uint32_t prefill_chunk = 512;           // tokens of one step at most

  Status Validate() const;
};

enum class RequestId : uint64_t {};

struct Request {
  std::vector<uint32_t> prompt;       // at least one id, all < V
  uint32_t max_new_tokens = 0;        // 0: to the end of the context
  std::vector<uint32_t> stop_tokens;  // ends the request; the stop token is reported, not fed
  SamplingParams sampling;
  TokenConstraint* constraint = nullptr;  // outlives the request
  // Continue from this engine's kept sequence (chat): prompt starts with the tokens it has seen.
  std::optional<RequestId> continue_from;
  bool keep = false;  // keep the sequence after the end for a later continue_from
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kError };

// What a step did for one request.
struct Event {
  RequestId request;
  uint32_t prompt_done = 0;       // prompt tokens in the cache by now (progress)
  std::optional<uint32_t> token;  // newly sampled
  std::optional<FinishReason> finish;
  std::optional<Error> error;  // with kError: why
};

// Thread-safety: none; one thread calls everything, also Cancel. The engine's own threads work
// inside Step only. Tokens do not depend on what ran beside a request, nor on threads or chunks.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Create(std::shared_ptr<const model::Weights> weights,
                                                const EngineOptions& options);
  ~Engine();

  // Queues a request. kInvalidArgument for bad ids or parameters; kResourceExhausted with the
  // figures if the prompt does not fit the context.
  Result<RequestId> Submit(Request request);
  // Ends a request before its next step; its event comes with the next Step.
  void Cancel(RequestId id);
  // Frees a kept sequence. Kept sequences also make room, oldest first, when new requests need it;
  // a request that continues from one that is gone starts over.
  void Drop(RequestId id);
  bool HasWork() const;
  // Runs one forward step over all running sequences (decodes first, then prefill chunks in order
  // of arrival up to prefill_chunk tokens) and samples. The events stay valid until the next call.
  // What concerns one request is an event; an error concerns the step (a file of the weights
  // changed): nothing was fed, all requests are still there.
  Result<std::span<const Event>> Step();

  const model::Weights& weights() const;
  uint32_t max_context() const;
  uint32_t num_threads() const;
  kernels::Target target() const;
  // Positions a request's (kept or running) sequence holds.
  uint32_t context_used(RequestId id) const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::engine
