// SPDX-License-Identifier: Apache-2.0
#include "cachalot/base/strings.h"
#include "cachalot/engine/engine.h"

namespace cachalot::engine {
namespace {

constexpr uint32_t kMaxThreads = 1024;

}  // namespace

Status EngineOptions::Validate() const {
  if (num_threads > kMaxThreads) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("threads is ", num_threads, ", expected at most ", kMaxThreads)};
  }
  if (max_sequences == 0 || prefill_chunk == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "max_sequences and the prefill chunk must be at least 1"};
  }
  constexpr uint32_t kMaxChunk = 1u << 16;  // scratch grows with it
  if (prefill_chunk > kMaxChunk || max_sequences > kMaxChunk) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("prefill chunk ", prefill_chunk, " or ", max_sequences,
                        " sequences: more than ", kMaxChunk)};
  }
  if (!(prefill_slack >= 1.0)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("prefill slack is ", prefill_slack, ", expected at least 1")};
  }
  constexpr uint32_t kMaxShareReads = 1000;  // a prompt must go on within sight
  if (share_reads > kMaxShareReads) {
    return Error{ErrorCode::kInvalidArgument, StrCat("share reads is ", share_reads,
                                                     " steps, expected at most ", kMaxShareReads)};
  }
  if (checkpoint_interval == 0 || checkpoint_interval % kvcache::kBlockTokens != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("checkpoint interval is ", checkpoint_interval,
                        ", expected a positive multiple of ", kvcache::kBlockTokens)};
  }
  return disk.Validate();
}

}  // namespace cachalot::engine
