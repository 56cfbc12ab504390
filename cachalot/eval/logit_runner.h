// SPDX-License-Identifier: Apache-2.0
// Logits of every position of one id sequence, handed out chunk by chunk: what `logits`,
// `perplexity` and the golden tests are made of. [docs/design/cli.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/model/forward.h"
#include "cachalot/threading/placement.h"

namespace cachalot::eval {

struct RunnerOptions {
  model::Numerics numerics = model::Numerics::kFast;
  std::optional<kernels::Target> target;  // default: the best this CPU has
  uint32_t num_threads = 0;               // 0: one per physical core
  Pinning pinning = Pinning::kAuto;
  uint32_t chunk = 0;       // tokens of one step; 0: 512, fewer where logit rows are large
  uint32_t max_tokens = 1;  // ids of the longest sequence
  bool with_mtp = false;    // MtpLogits wanted; needs weights.mtp
  bool with_hidden = false;
  bool window_only = false;  // see model::ForwardOptions
};

// Outputs of the tokens [first, first + num_tokens) of the sequence. Views live until the callback
// returns; rows are [num_tokens, ...].
struct ChunkOutputs {
  uint32_t first = 0;
  uint32_t num_tokens = 0;
  MatView<const float> logits;      // [rows, V]: all tokens, or only the last of the sequence
  MatView<const float> mtp_logits;  // [num_tokens, V] or empty
  MatView<const float> hidden;      // [num_tokens, D] or empty
};
using ChunkSink = std::function<Status(const ChunkOutputs&)>;

enum class LogitPositions : uint8_t { kAll, kLast };

class LogitRunner {
 public:
  // kInvalidArgument for more tokens than the model's positions, an unsupported target, or MTP
  // asked of a checkpoint without it; kResourceExhausted without memory.
  static Result<std::unique_ptr<LogitRunner>> Create(std::shared_ptr<const model::Weights> weights,
                                                     const RunnerOptions& options);

  // Runs `ids` from position 0, calling `sink` after each chunk; a sink's error ends the run.
  // `mtp_next` is empty or as long as `ids`. With kLast, only the last chunk has a logits row.
  Status Run(std::span<const uint32_t> ids, std::span<const uint32_t> mtp_next,
             LogitPositions positions, const ChunkSink& sink);

  const model::Weights& weights() const { return *weights_; }
  uint32_t chunk() const { return chunk_; }

 private:
  LogitRunner() = default;
  Status RunChunk(std::span<const uint32_t> ids, std::span<const uint32_t> mtp_next, uint32_t first,
                  bool is_last, LogitPositions positions, const ChunkSink& sink);

  std::shared_ptr<const model::Weights> weights_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<model::Forward> forward_;
  std::unique_ptr<kvcache::BlockPool> blocks_;
  std::unique_ptr<kvcache::Sequence> sequence_;
  uint32_t chunk_ = 0;
  std::vector<uint32_t> rows_;
  std::vector<float> logits_, mtp_logits_, hidden_;
};

}  // namespace cachalot::eval
