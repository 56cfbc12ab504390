// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/engine.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/engine/engine_internal.h"
#include "cachalot/io/checksum.h"

namespace cachalot::engine {
namespace {

constexpr uint32_t kDefaultContext = 32768;
// Of a place's prefixes when no KV memory is given: a conversation has two a turn, long prompts
// more.
constexpr uint32_t kDefaultCheckpoints = 8;

// How often the mapped shards are looked at: reading past the end of a file that shrank would kill
// the process, and an fstat a shard and second costs nothing.
constexpr auto kFileCheckInterval = std::chrono::seconds(1);

Result<kernels::Target> ChooseTarget(std::optional<kernels::Target> wanted) {
  const std::vector<kernels::Target> supported = kernels::SupportedTargets();
  if (!wanted) return supported.front();
  if (std::ranges::find(supported, *wanted) != supported.end()) return *wanted;
  std::string names;
  for (const kernels::Target target : supported) {
    names += StrCat(names.empty() ? "" : ", ", kernels::TargetName(target));
  }
  return Error{ErrorCode::kInvalidArgument, StrCat("target ", kernels::TargetName(*wanted),
                                                   " is not supported by this CPU, only ", names)};
}

// Everything that the bits of a cache depend on. [docs/design/disk-cache.md, Identity]
std::string CacheIdentity(const model::Weights& weights, const EngineOptions& options,
                          kernels::Target target, bool with_mtp) {
  const std::string config = model::ConfigToJson(weights.config);
  const std::string files = weights.storage->Fingerprint();
  return StrCat("layers=", weights.config.num_hidden_layers, " hidden=", weights.config.hidden_size,
                " config=", io::Checksum64(config.data(), config.size()),
                " weights=", io::Checksum64(files.data(), files.size()), "/", weights.version,
                " numerics=", model::NumericsName(options.numerics), "/", model::kNumericsRevision,
                " target=", kernels::TargetName(target), " mtp=", with_mtp ? 1 : 0);
}

Result<bool> WantsMtp(const EngineOptions& options, const model::Weights& weights) {
  if (options.speculation == Speculation::kOn && !weights.mtp) {
    return Error{ErrorCode::kInvalidArgument,
                 "speculation was asked for, but this checkpoint has no MTP block (mtp.0)"};
  }
  return options.speculation != Speculation::kOff && weights.mtp.has_value();
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<const model::Weights> weights,
                                               const EngineOptions& options) {
  CACHALOT_RETURN_IF_ERROR(options.Validate());
  CACHALOT_TRY(const kernels::Target target, ChooseTarget(options.target));
  const uint32_t limit = weights->config.max_position_embeddings;
  if (options.max_context > limit) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("max context ", options.max_context, ", this model was made for ", limit)};
  }
  const uint32_t context =
      options.max_context > 0 ? options.max_context : std::min(limit, kDefaultContext);

  auto impl = std::make_unique<Impl>(std::move(weights), options, context,
                                     PlaceWorkers(options.num_threads, options.pinning));
  impl->target = target;
  CACHALOT_TRY(const bool with_mtp, WantsMtp(options, *impl->weights));
  const uint32_t decode_rows = with_mtp ? 2 : 1;  // of a sequence: its token and an MTP guess
  const uint32_t step_tokens = std::max(options.prefill_chunk, options.max_sequences * decode_rows);
  const kernels::Context ctx{.pool = &impl->pool, .target = target};
  CACHALOT_TRY(impl->forward, model::Forward::Create(impl->weights,
                                                     {.numerics = options.numerics,
                                                      .max_step_tokens = step_tokens,
                                                      .max_step_sequences = options.max_sequences,
                                                      .with_mtp = with_mtp},
                                                     ctx));
  const kvcache::KvSpec spec =
      impl->weights->config.kv_spec(model::KvFormatOf(options.numerics), with_mtp);
  const size_t blocks_each = (size_t{context} + kvcache::kBlockTokens - 1) / kvcache::kBlockTokens;
  const uint64_t context_bytes = blocks_each * spec.block_bytes();
  uint64_t& memory = impl->options.kv_memory_bytes;
  if (memory == 0) {
    memory = options.max_sequences *
             (2 * context_bytes + (1 + kDefaultCheckpoints) * spec.state_bytes());
  }
  const size_t most_blocks = spec.block_bytes() > 0 ? memory / spec.block_bytes()
                                                    : 2 * blocks_each * options.max_sequences;
  CACHALOT_TRY(impl->blocks, kvcache::BlockPool::Create(spec, most_blocks));
  impl->cache = std::make_unique<kvcache::PrefixCache>(*impl->blocks, memory);
  impl->stats.kv_memory_bytes = memory;
  if (options.disk.store != nullptr) {
    if (impl->weights->storage == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   "a KV cache on disk needs weights that come from files"};
    }
    impl->disk = std::make_unique<DiskTier>(
        options.disk, CacheIdentity(*impl->weights, options, target, with_mtp), *impl->blocks,
        impl->weights->config.num_hidden_layers);
  }
  if (with_mtp) {
    impl->drafter = MakeMtpDrafter(*impl->forward, step_tokens, options.max_sequences);
  }
  const size_t logit_rows = size_t{options.max_sequences} * decode_rows;
  impl->logits.resize(logit_rows * impl->weights->config.vocab_size);
  impl->logit_rows.reserve(logit_rows);
  impl->parts.reserve(options.max_sequences);
  impl->feeds.resize(options.max_sequences);
  impl->draft_requests.reserve(options.max_sequences);
  impl->draft_tasks.reserve(options.max_sequences);
  impl->inputs.reserve(options.max_sequences);
  impl->running.reserve(options.max_sequences);
  impl->failed.reserve(options.max_sequences);
  impl->events.reserve((2 + 2 * decode_rows) * size_t{options.max_sequences});
  impl->finished.reserve(options.max_sequences);
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

std::string Engine::cache_identity() const {
  return CacheIdentity(*impl_->weights, impl_->options, impl_->target, impl_->drafter != nullptr);
}

Status Engine::Check(const Request& request) const {
  const uint32_t vocab = impl_->weights->config.vocab_size;
  if (request.prompt.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the prompt is empty, at least one token is needed"};
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] >= vocab) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat("prompt token ", i, " has id ", request.prompt[i],
                          ", the vocabulary has ", vocab)};
    }
  }
  CACHALOT_RETURN_IF_ERROR(request.sampling.Validate(vocab));
  if (request.prompt.size() >= impl_->max_context) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("the prompt has ", request.prompt.size(), " tokens, the context ",
                        impl_->max_context,
                        " with room for an answer; raise --max-context (this model: up to ",
                        impl_->weights->config.max_position_embeddings, ")")};
  }
  const size_t most = impl_->MaxTokens(request);
  const uint64_t bytes = impl_->KvBytes(most);
  if (bytes > impl_->options.kv_memory_bytes) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("prompt and answer of ", most, " tokens need ", bytes,
                        " bytes of KV memory, there are ", impl_->options.kv_memory_bytes,
                        "; ask for fewer tokens or raise --kv-memory")};
  }
  return {};
}

Result<RequestId> Engine::Submit(Request request) {
  CACHALOT_RETURN_IF_ERROR(Check(request));
  auto task = std::make_unique<Task>();
  task->id = static_cast<RequestId>(impl_->next_id++);
  task->prompt_size = request.prompt.size();
  task->max_tokens = impl_->MaxTokens(request);
  task->kv_bytes = impl_->KvBytes(task->max_tokens);
  task->tokens = std::move(request.prompt);
  task->request = std::move(request);
  const RequestId id = task->id;
  auto& waiting = impl_->waiting;
  const auto later = std::ranges::upper_bound(waiting, -task->request.priority, {},
                                              [](const auto& t) { return -t->request.priority; });
  waiting.insert(later, std::move(task));
  return id;
}

void Engine::Cancel(RequestId id) {
  if (Task* task = impl_->FindTask(id)) task->cancelled = true;
}

bool Engine::HasWork() const { return !impl_->waiting.empty() || !impl_->running.empty(); }

Result<std::span<const Event>> Engine::Step() {
  impl_->events.clear();
  impl_->finished.clear();
  const Clock::time_point begin = Clock::now();
  CACHALOT_RETURN_IF_ERROR(impl_->CheckFiles());
  impl_->EndCancelled();
  impl_->Admit();
  CACHALOT_RETURN_IF_ERROR(impl_->PollRestores());
  impl_->PlanStep();
  if (!impl_->parts.empty()) CACHALOT_RETURN_IF_ERROR(impl_->RunStep());
  impl_->RemoveFinished();
  impl_->stats.step_seconds += SecondsSince(begin);
  return std::span<const Event>(impl_->events);
}

const model::Weights& Engine::weights() const { return *impl_->weights; }
uint32_t Engine::max_context() const { return impl_->max_context; }
uint32_t Engine::num_threads() const { return static_cast<uint32_t>(impl_->pool.num_threads()); }
kernels::Target Engine::target() const { return impl_->target; }

EngineStats Engine::stats() const {
  EngineStats stats = impl_->stats;
  stats.running = static_cast<uint32_t>(impl_->running.size());
  stats.waiting = static_cast<uint32_t>(impl_->waiting.size());
  stats.mask_seconds = impl_->sampler.mask_seconds() + impl_->accept_seconds;
  stats.cache = impl_->cache->stats();
  stats.restoring = static_cast<uint32_t>(
      std::ranges::count_if(impl_->running, [](const auto& task) { return !task->ready(); }));
  if (impl_->disk != nullptr) stats.disk = impl_->disk->stats();
  if (const model::ExpertSource* source = impl_->weights->expert_source.get()) {
    stats.experts = source->stats();
  }
  return stats;
}

void Engine::PurgeCache(kvcache::CacheScope scope) {
  impl_->cache->Purge(scope);
  if (impl_->disk != nullptr) impl_->disk->Purge(scope);
}

Task* Engine::Impl::FindTask(RequestId id) {
  for (const auto& task : running) {
    if (task->id == id) return task.get();
  }
  for (const auto& task : waiting) {
    if (task->id == id) return task.get();
  }
  return nullptr;
}

Status Engine::Impl::CheckFiles() {
  const auto now = Clock::now();
  // Streamed weights are not touched through the map: a file that shrank is a read that fails, and
  // ends who needed it.
  const bool mapped = weights->storage != nullptr && weights->expert_source == nullptr;
  if (!mapped || now < next_file_check) return {};
  CACHALOT_RETURN_IF_ERROR(weights->storage->CheckUnchanged());
  next_file_check = now + kFileCheckInterval;  // only now: after a failure every step looks again
  return {};
}

size_t Engine::Impl::MaxTokens(const Request& request) const {
  const size_t room = max_context - request.prompt.size();
  return request.prompt.size() +
         (request.max_new_tokens > 0 ? std::min<size_t>(room, request.max_new_tokens) : room);
}

uint64_t Engine::Impl::KvBytes(size_t num_tokens) const {
  const kvcache::KvSpec& spec = blocks->spec();
  const size_t num_blocks = (num_tokens + kvcache::kBlockTokens - 1) / kvcache::kBlockTokens;
  return num_blocks * spec.block_bytes() + spec.state_bytes();
}

// Before others are admitted: these may take their places, and go on from what they have read.
void Engine::Impl::EndCancelled() {
  const auto end = [this](const auto& task) {
    if (task->cancelled) Finish(*task, FinishReason::kCancelled);
  };
  std::ranges::for_each(waiting, end);
  std::ranges::for_each(running, end);
  std::erase_if(waiting, [](const auto& task) { return task->cancelled; });
  RemoveFinished();
}

// Moves waiting requests to free places while their memory lasts; none overtakes another of its
// priority. One for which there is no memory ends alone.
void Engine::Impl::Admit() {
  while (!waiting.empty() && running.size() < options.max_sequences) {
    if (stats.kv_reserved_bytes + waiting.front()->kv_bytes > options.kv_memory_bytes) break;
    std::unique_ptr<Task> task = std::move(waiting.front());
    waiting.pop_front();
    if (const Status started = Start(*task); !started.ok()) {
      Finish(*task, FinishReason::kError);
      events.back().error = started.error();
      continue;
    }
    running.push_back(std::move(task));
  }
}

// Gives the request its sequence, at the end of what is remembered of its prompt.
Status Engine::Impl::Start(Task& task) {
  CACHALOT_TRY(task.sequence, kvcache::Sequence::Create(*blocks));
  task.tokens.reserve(task.max_tokens);  // not before: a queue of thousands must stay small
  Reserve(static_cast<int64_t>(task.kv_bytes));
  if (!task.request.cache) return {};
  return GoOnFromCache(task);
}

// What running sequences do not need is for remembered prefixes.
void Engine::Impl::Reserve(int64_t bytes) {
  stats.kv_reserved_bytes += static_cast<uint64_t>(bytes);
  cache->SetMaxBytes(options.kv_memory_bytes - stats.kv_reserved_bytes);
}

void Engine::Impl::Finish(Task& task, FinishReason reason) {
  if (!events.empty() && events.back().request == task.id) {
    events.back().finish = reason;
  } else {
    events.push_back({.request = task.id, .finish = reason});
  }
  finished.push_back(task.id);
}

void Engine::Impl::RemoveFinished() {
  if (finished.empty()) return;
  for (auto& task : running) {
    if (std::ranges::find(finished, task->id) == finished.end()) continue;
    Remember(*task, /*end=*/true);
    Reserve(-static_cast<int64_t>(task->kv_bytes));
    task.reset();
  }
  std::erase(running, nullptr);
}

}  // namespace cachalot::engine
