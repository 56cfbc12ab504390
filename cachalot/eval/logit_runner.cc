// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/logit_runner.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::eval {
namespace {

constexpr uint32_t kDefaultChunk = 512;
// A chunk's logit rows stay within this: V = 129,280 gives 129 tokens a step, still enough rows
// for a matrix product to read each weight once for many tokens.
constexpr size_t kMaxLogitBytes = size_t{64} << 20;
constexpr uint32_t kMinChunk = 16;

uint32_t ChooseChunk(uint32_t wanted, uint32_t vocab_size, uint32_t max_tokens) {
  uint32_t chunk = wanted;
  if (chunk == 0) {
    const size_t rows = kMaxLogitBytes / (sizeof(float) * std::max<size_t>(1, vocab_size));
    chunk = static_cast<uint32_t>(std::clamp<size_t>(rows, kMinChunk, kDefaultChunk));
  }
  return std::min(chunk, std::max<uint32_t>(1, max_tokens));
}

Result<kernels::Target> ChooseTarget(std::optional<kernels::Target> wanted) {
  const std::vector<kernels::Target> supported = kernels::SupportedTargets();
  if (!wanted.has_value()) return supported.front();
  if (std::find(supported.begin(), supported.end(), *wanted) != supported.end()) return *wanted;
  std::string names;
  for (const kernels::Target t : supported) {
    names += StrCat(names.empty() ? "" : ", ", kernels::TargetName(t));
  }
  return Error{ErrorCode::kUnsupported, StrCat("target ", kernels::TargetName(*wanted),
                                               ": this CPU does not have it; it has ", names)};
}

Status CheckOptions(const model::Weights& weights, const RunnerOptions& options) {
  const uint32_t positions = weights.config.max_position_embeddings;
  if (options.max_tokens == 0 || options.max_tokens > positions) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("sequence of ", options.max_tokens, " tokens: expected 1 to ", positions,
                        ", the model's max_position_embeddings")};
  }
  if (options.with_mtp && !weights.mtp.has_value()) {
    return Error{ErrorCode::kInvalidArgument,
                 "MTP logits: this checkpoint has no MTP block; leave out --mtp-next"};
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<LogitRunner>> LogitRunner::Create(
    std::shared_ptr<const model::Weights> weights, const RunnerOptions& options) {
  CACHALOT_RETURN_IF_ERROR(CheckOptions(*weights, options));
  CACHALOT_TRY(const kernels::Target target, ChooseTarget(options.target));
  const model::Config& config = weights->config;
  auto runner = std::unique_ptr<LogitRunner>(new LogitRunner());
  runner->weights_ = weights;
  runner->chunk_ = ChooseChunk(options.chunk, config.vocab_size, options.max_tokens);
  runner->pool_ = std::make_unique<ThreadPool>(PlaceWorkers(options.num_threads, options.pinning));
  const kernels::Context ctx{
      .pool = runner->pool_.get(), .path = kernels::Path::kSimd, .target = target};
  CACHALOT_TRY(runner->forward_, model::Forward::Create(weights,
                                                        {.numerics = options.numerics,
                                                         .max_step_tokens = runner->chunk_,
                                                         .max_step_sequences = 1,
                                                         .with_mtp = options.with_mtp,
                                                         .window_only = options.window_only},
                                                        ctx));
  const kvcache::KvSpec spec =
      config.kv_spec(model::KvFormatOf(options.numerics), options.with_mtp);
  const size_t blocks = options.max_tokens / kvcache::kBlockTokens + 1;
  CACHALOT_TRY(runner->blocks_, kvcache::BlockPool::Create(spec, blocks));
  CACHALOT_TRY(runner->sequence_, kvcache::Sequence::Create(*runner->blocks_));
  try {
    runner->rows_.resize(runner->chunk_);
    std::iota(runner->rows_.begin(), runner->rows_.end(), 0u);
    runner->logits_.resize(size_t{runner->chunk_} * config.vocab_size);
    if (options.with_mtp) runner->mtp_logits_.resize(runner->logits_.size());
    if (options.with_hidden) runner->hidden_.resize(size_t{runner->chunk_} * config.hidden_size);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for logits of ", runner->chunk_, " tokens; lower --chunk")};
  }
  return runner;
}

Status LogitRunner::Run(std::span<const uint32_t> ids, std::span<const uint32_t> mtp_next,
                        LogitPositions positions, const ChunkSink& sink) {
  CACHALOT_CHECK(mtp_next.empty() || mtp_next.size() == ids.size());
  CACHALOT_CHECK(mtp_next.empty() || !mtp_logits_.empty());
  sequence_->Reset();
  const auto num_ids = static_cast<uint32_t>(ids.size());
  for (uint32_t first = 0; first < num_ids; first += chunk_) {
    const uint32_t count = std::min(chunk_, num_ids - first);
    const auto next = mtp_next.empty() ? mtp_next : mtp_next.subspan(first, count);
    CACHALOT_RETURN_IF_ERROR(RunChunk(ids.subspan(first, count), next, first,
                                      first + count == num_ids, positions, sink));
  }
  return {};
}

Status LogitRunner::RunChunk(std::span<const uint32_t> ids, std::span<const uint32_t> mtp_next,
                             uint32_t first, bool is_last, LogitPositions positions,
                             const ChunkSink& sink) {
  const auto count = static_cast<uint32_t>(ids.size());
  const size_t vocab = weights_->config.vocab_size;
  std::span<const uint32_t> rows(rows_.data(), count);
  if (positions == LogitPositions::kLast) rows = rows.last(is_last ? 1 : 0);
  CACHALOT_RETURN_IF_ERROR(sequence_->Reserve(count));
  const model::SequenceInput input{
      .sequence = sequence_.get(), .tokens = ids, .mtp_next = mtp_next};
  model::ForwardOutputs outputs;
  outputs.logit_rows = rows;
  outputs.logits = {logits_.data(), rows.size(), vocab};
  if (!mtp_next.empty()) outputs.mtp_logits = {mtp_logits_.data(), count, vocab};
  if (!hidden_.empty()) outputs.hidden = {hidden_.data(), count, weights_->config.hidden_size};
  CACHALOT_RETURN_IF_ERROR(forward_->Step({&input, 1}, outputs));
  sequence_->Advance(count);
  return sink({.first = first,
               .num_tokens = count,
               .logits = outputs.logits,
               .mtp_logits = outputs.mtp_logits,
               .hidden = outputs.hidden});
}

}  // namespace cachalot::eval
