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
#include "cachalot/engine/disk_tier.h"
#include "cachalot/engine/logprobs.h"
#include "cachalot/engine/sampler.h"
#include "cachalot/kvcache/prefix_cache.h"
#include "cachalot/model/forward.h"
#include "cachalot/threading/placement.h"

namespace cachalot::engine {

// Drafting tokens with the model's MTP block and verifying them in one step. [drafter.h]
enum class Speculation : uint8_t {
  kOff,
  kOn,    // always; kInvalidArgument from Create if the checkpoint has no MTP block
  kAuto,  // where it is measured to save time
};

struct EngineOptions {
  model::Numerics numerics = model::Numerics::kFast;
  std::optional<kernels::Target> target;  // default: the best this CPU has
  uint32_t num_threads = 0;               // 0: one per physical core
  Pinning pinning = Pinning::kAuto;       // of threads to cores; never changes an answer
  uint32_t max_context = 0;               // tokens of the longest sequence; 0: min(model, 32768)
  uint32_t max_sequences = 1;             // running at once
  uint32_t prefill_chunk = 512;           // tokens of one step at most
  // A step with prompts in it may last this many times one without, so that running streams keep
  // their pace. >= 1; larger reads prompts faster.
  double prefill_slack = 2.5;
  // With streamed experts: prompts let up to so many steps of running streams pass, then take the
  // slack of all of them in one, so that more of their tokens share each expert that is read.
  uint32_t share_reads = 0;
  // KV of running sequences (reserved to their longest) and remembered prefixes together. 0:
  // twice max_sequences full contexts and eight states for each.
  uint64_t kv_memory_bytes = 0;
  // Long prompts are remembered every so many tokens, a multiple of kvcache::kBlockTokens.
  uint32_t checkpoint_interval = 2048;
  Speculation speculation = Speculation::kAuto;  // output is the same with all three
  DiskOptions disk;  // prefixes that outlive the process; without a store: none

  Status Validate() const;
};

enum class RequestId : uint64_t {};

struct Request {
  std::vector<uint32_t> prompt;       // at least one id, all < V
  uint32_t max_new_tokens = 0;        // 0: to the end of the context
  std::vector<uint32_t> stop_tokens;  // ends the request; the stop token is reported, not fed
  SamplingParams sampling;
  TokenConstraint* constraint = nullptr;  // outlives the request
  // Whose prefixes it may go on from and adds to; nullopt: none, and leaves no trace.
  std::optional<kvcache::CacheScope> cache;
  int32_t priority = 0;       // higher ones get a place first
  bool logprobs = false;      // report those of each sampled token
  uint32_t top_logprobs = 0;  // and of so many best ones
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kError };

// What a step did for one request. With speculation a step may have several events of a request,
// one for each token.
struct Event {
  RequestId request;
  uint32_t prompt_done = 0;       // prompt tokens in the cache by now (progress)
  uint32_t reused = 0;            // of those, how many were remembered: their forward did not run
  std::optional<uint32_t> token;  // newly sampled
  std::optional<FinishReason> finish;
  std::optional<TokenLogprobs> logprobs;  // of `token`, if asked for
  std::optional<Error> error;             // with kError: why
};

// A look at the engine between two steps.
struct EngineStats {
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint64_t steps = 0;
  uint64_t held_steps = 0;        // of those, that prompts let pass [share_reads]
  uint64_t prompt_tokens = 0;     // fed
  uint64_t reused_tokens = 0;     // remembered, in memory or on disk
  uint64_t disk_tokens = 0;       // of those, on disk
  uint64_t disk_restores = 0;     // requests that went on from disk
  uint64_t disk_failures = 0;     // reads that found something damaged or gone
  double restore_seconds = 0;     // from the start of a request's reads to their end, all together
  uint32_t restoring = 0;         // requests whose reads are under way
  uint64_t generated_tokens = 0;  // sampled
  uint64_t drafted_tokens = 0;    // verified, right or not
  uint64_t accepted_tokens = 0;   // of those, right
  // Wall time on the calling thread, of steps that ran: drafts; all of Step, of it the forward
  // passes, the sampling with its masks, and of that what constraints cost (masks and following the
  // tokens).
  double draft_seconds = 0;
  double step_seconds = 0;
  double forward_seconds = 0;
  double sample_seconds = 0;
  double mask_seconds = 0;
  uint64_t kv_memory_bytes = 0;
  uint64_t kv_reserved_bytes = 0;  // for running sequences
  kvcache::PrefixCacheStats cache;
  std::optional<diskcache::StoreStats> disk;
  std::optional<model::ExpertStats> experts;  // where they are streamed
};

// Thread-safety: none; one thread calls everything, also Cancel. The engine's own threads work
// inside Step only. Tokens do not depend on what ran beside a request, nor on threads or chunks.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Create(std::shared_ptr<const model::Weights> weights,
                                                const EngineOptions& options);
  ~Engine();

  // What Submit would say of it. Thread-safe.
  Status Check(const Request& request) const;
  // Queues a request. kInvalidArgument for bad ids or parameters; kResourceExhausted with the
  // figures if the prompt does not fit the context.
  Result<RequestId> Submit(Request request);
  // Ends a request before its next step; its event comes with the next Step.
  void Cancel(RequestId id);
  bool HasWork() const;
  // Runs one forward step over all running sequences (every decode, and of the prompts what the
  // budget allows, shared evenly) and samples. The events stay valid until the next call.
  // What concerns one request is an event (also a streamed expert that could not be read: only
  // those whose tokens chose it end); an error concerns the step (a file of the weights changed):
  // nothing was fed, all requests but the cancelled are still there.
  Result<std::span<const Event>> Step();

  const model::Weights& weights() const;
  uint32_t max_context() const;
  uint32_t num_threads() const;
  kernels::Target target() const;
  EngineStats stats() const;
  // Everything that the bits of its cache depend on, under which prefixes are kept on disk.
  std::string cache_identity() const;
  // Forgets the prefixes of a scope, on disk too.
  void PurgeCache(kvcache::CacheScope scope);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::engine
