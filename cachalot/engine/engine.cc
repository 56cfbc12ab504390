// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/engine.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/engine/disk_tier.h"
#include "cachalot/engine/drafter.h"
#include "cachalot/engine/speculation_gauge.h"
#include "cachalot/engine/step_budget.h"
#include "cachalot/io/checksum.h"
#include "cachalot/threading/topology.h"

namespace cachalot::engine {
namespace {

constexpr uint32_t kDefaultContext = 32768;
constexpr uint32_t kMaxDraft = kvcache::kMaxRewind;  // rejected ones are rewound
// Of a place's prefixes when no KV memory is given: a conversation has two a turn, long prompts
// more.
constexpr uint32_t kDefaultCheckpoints = 8;

// How often the mapped shards are looked at: reading past the end of a file that shrank would kill
// the process, and an fstat a shard and second costs nothing.
constexpr auto kFileCheckInterval = std::chrono::seconds(1);

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A request from Submit to its last event.
struct Task {
  RequestId id{};
  Request request;
  std::vector<uint32_t> tokens;  // prompt, then generated; reserved to the end of the context
  size_t prompt_size = 0;
  size_t max_tokens = 0;                        // prompt and generated together
  std::unique_ptr<kvcache::Sequence> sequence;  // null while queued
  uint64_t kv_bytes = 0;                        // reserved while running: its longest
  uint32_t reused = 0;
  bool cancelled = false;
  std::unique_ptr<Restore> restore;  // while its prefix is read from disk: not to be stepped
  Clock::time_point restore_begin{};
  bool approximate = false;  // went on from an approximate state: nothing of it may be saved
  SavedPath saved;
  std::array<uint32_t, kMaxDraft> draft{};  // guesses of what follows tokens.back()
  uint32_t num_drafted = 0;

  size_t fed() const { return sequence->position(); }
  bool ready() const { return restore == nullptr; }
  bool decoding() const { return fed() + 1 == tokens.size() && tokens.size() > prompt_size; }
};

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

struct Engine::Impl {
  class Chooser final : public TokenChooser {
   public:
    explicit Chooser(Impl& engine) : engine_(engine) {}
    uint32_t Choose(size_t request, uint32_t ahead, std::span<float> logits) override;

   private:
    Impl& engine_;
  };

  Impl(std::shared_ptr<const model::Weights> w, const EngineOptions& o, uint32_t context,
       uint32_t threads)
      : weights(std::move(w)),
        options(o),
        max_context(context),
        pool(threads),
        sampler(weights->config.vocab_size),
        budget(*weights, o.prefill_slack) {}

  size_t MaxTokens(const Request& request) const;  // prompt and answer
  uint64_t KvBytes(size_t num_tokens) const;
  void EndCancelled();
  void Admit();
  Status Start(Task& task);
  Status GoOnFromCache(Task& task);
  Status PollRestores();
  Status PollRestore(Task& task, bool wait);
  void Reserve(int64_t bytes);
  void PlanStep();
  void PlanPrompts(uint32_t decodes);
  uint32_t PromptPart(const Task& task, uint32_t share) const;
  Status RunStep();
  void PlanInputs();
  void TakeOutputs();
  Status Draft();
  void CollectDraftRequests();
  void AdvanceParts();
  uint32_t SampleLogits(Task& task, std::span<float> logits, size_t ahead,
                        TokenConstraint* constraint);
  uint32_t SampleRow(Task& task, std::span<float> logits);
  void Finish(Task& task, FinishReason reason);
  void Remember(Task& task, bool end);
  void SaveToDisk(Task& task, bool end);
  void RemoveFinished();
  Task* FindTask(RequestId id);
  Status CheckFiles();

  std::shared_ptr<const model::Weights> weights;
  EngineOptions options;
  uint32_t max_context;
  kernels::Target target = kernels::Target::kScalar;
  ThreadPool pool;
  std::unique_ptr<kvcache::BlockPool> blocks;
  std::unique_ptr<kvcache::PrefixCache> cache;
  std::unique_ptr<DiskTier> disk;  // null: none
  std::unique_ptr<model::Forward> forward;
  std::unique_ptr<Drafter> drafter;  // null: no speculation
  SpeculationGauge gauge;
  Sampler sampler;
  StepBudget budget;
  EngineStats stats;

  uint64_t next_id = 1;
  std::deque<std::unique_ptr<Task>> waiting;   // by priority, then arrival
  std::vector<std::unique_ptr<Task>> running;  // in order of admission
  std::vector<Event> events;
  std::vector<RequestId> finished;

  // One step.
  struct Part {
    Task* task;
    uint32_t count;     // tokens fed
    bool decode;        // the token sampled last, then guesses; else a part of the prompt
    uint32_t kept = 0;  // of those fed, how many stay
    bool finished = false;

    size_t end() const { return task->fed() + kept; }  // before the sequence advances
  };
  std::vector<Part> parts;
  std::vector<std::array<uint32_t, 1 + kMaxDraft>> feeds;  // of the decodes, in order
  std::vector<DraftRequest> draft_requests;
  std::vector<Task*> draft_tasks;
  std::vector<model::SequenceInput> inputs;
  std::vector<uint32_t> logit_rows;
  std::vector<float> logits;      // [max_sequences (1 + drafts), V]
  std::vector<float> raw_logits;  // [V]: a row as the model gave it, for logprobs
  double accept_seconds = 0;      // of all steps: constraints following the tokens
  Clock::time_point next_file_check{};
};

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
  const uint32_t threads = options.num_threads > 0 ? options.num_threads : NumPhysicalCores();

  auto impl = std::make_unique<Impl>(std::move(weights), options, context, threads);
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
  impl->events.reserve((2 + 2 * decode_rows) * size_t{options.max_sequences});
  impl->finished.reserve(options.max_sequences);
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

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
  if (weights->storage == nullptr || now < next_file_check) return {};
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

// From memory, or from disk where that saves a block's worth of tokens more.
Status Engine::Impl::GoOnFromCache(Task& task) {
  const kvcache::CacheScope scope = *task.request.cache;
  if (disk != nullptr) {
    const uint32_t in_memory = cache->Find(scope, task.tokens);
    DiskPlan plan = disk->Find(scope, task.tokens);
    if (plan.begin >= in_memory + kvcache::kBlockTokens) {
      auto restore = disk->Start(std::move(plan), task.tokens, *task.sequence);
      if (restore.ok()) {
        task.restore = std::move(*restore);
        task.restore_begin = Clock::now();
        return {};
      }
      // A file that is gone, no memory: it is a cache, the prompt can be computed.
      ++stats.disk_failures;
      task.sequence->Reset();
    }
  }
  task.reused = cache->Restore(scope, task.tokens, *task.sequence);
  stats.reused_tokens += task.reused;
  return {};
}

// Takes what has come from disk. Waits for it only when there is nothing else to do.
Status Engine::Impl::PollRestores() {
  if (disk == nullptr) return {};
  const bool wait = std::ranges::none_of(running, [](const auto& task) { return task->ready(); });
  for (const auto& task : running) {
    if (!task->ready()) CACHALOT_RETURN_IF_ERROR(PollRestore(*task, wait));
  }
  return {};
}

Status Engine::Impl::PollRestore(Task& task, bool wait) {
  // Each failure removes a record from the store, so this ends.
  while (!task.ready()) {
    const Result<bool> done = task.restore->Poll(wait);
    if (done.ok() && !*done) return {};
    stats.restore_seconds += SecondsSince(task.restore_begin);
    if (done.ok()) {
      task.reused = task.restore->plan().begin;
      task.approximate = task.restore->plan().approximate;
      stats.reused_tokens += task.reused;
      stats.disk_tokens += task.reused;
      ++stats.disk_restores;
      task.restore.reset();
      return {};
    }
    ++stats.disk_failures;
    task.restore.reset();
    task.sequence->Reset();
    CACHALOT_RETURN_IF_ERROR(GoOnFromCache(task));
  }
  return {};
}

// What running sequences do not need is for remembered prefixes.
void Engine::Impl::Reserve(int64_t bytes) {
  stats.kv_reserved_bytes += static_cast<uint64_t>(bytes);
  cache->SetMaxBytes(options.kv_memory_bytes - stats.kv_reserved_bytes);
}

// Every decode, then what the budget allows of the prompts.
void Engine::Impl::PlanStep() {
  parts.clear();
  uint32_t rows = 0;
  for (const auto& task : running) {
    if (!task->ready() || !task->decoding()) continue;
    parts.push_back({task.get(), 1 + task->num_drafted, /*decode=*/true});
    rows += parts.back().count;
  }
  PlanPrompts(rows);
}

// An even share for each prompt; what a short one leaves goes to those after it.
void Engine::Impl::PlanPrompts(uint32_t decodes) {
  auto prompts = static_cast<uint32_t>(std::ranges::count_if(
      running, [](const auto& task) { return task->ready() && !task->decoding(); }));
  if (prompts == 0 || decodes >= options.prefill_chunk) return;
  uint32_t left = budget.PromptTokens(decodes, options.prefill_chunk - decodes);
  for (const auto& task : running) {
    if (!task->ready() || task->decoding() || left == 0) continue;
    const uint32_t count = PromptPart(*task, (left + prompts - 1) / prompts);
    parts.push_back({task.get(), count, /*decode=*/false});
    left -= count;
    --prompts;
  }
}

// Tokens of a prompt for one step, cut where its state is to be remembered.
uint32_t Engine::Impl::PromptPart(const Task& task, uint32_t share) const {
  const size_t fed = task.fed();
  size_t count = std::min<size_t>(share, task.tokens.size() - fed);
  if (task.request.cache) {
    const size_t interval = options.checkpoint_interval;
    count = std::min(count, (fed / interval + 1) * interval - fed);
    if (disk != nullptr) {
      count = std::min<size_t>(count, disk->NextSave(static_cast<uint32_t>(fed)) - fed);
    }
  }
  return static_cast<uint32_t>(count);
}

Status Engine::Impl::RunStep() {
  PlanInputs();
  for (const Part& part : parts) {
    CACHALOT_RETURN_IF_ERROR(part.task->sequence->Reserve(part.count));
  }
  const size_t vocab = weights->config.vocab_size;
  const Clock::time_point begin = Clock::now();
  CACHALOT_RETURN_IF_ERROR(forward->Step(
      inputs, {.logit_rows = logit_rows, .logits = {logits.data(), logit_rows.size(), vocab}}));
  const double seconds = SecondsSince(begin);
  uint32_t num_tokens = 0;
  for (const Part& part : parts) num_tokens += part.count;
  budget.Measured(num_tokens, seconds);
  stats.forward_seconds += seconds;
  ++stats.steps;
  TakeOutputs();
  const Status drafted = Draft();
  AdvanceParts();
  return drafted;
}

// What each part feeds, and which rows are sampled from: of a decode all, of a prompt its end.
void Engine::Impl::PlanInputs() {
  inputs.clear();
  logit_rows.clear();
  uint32_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    Task& task = *part.task;
    std::span<const uint32_t> tokens = std::span(task.tokens).subspan(task.fed());
    if (part.decode) {
      feeds[i][0] = task.tokens.back();
      std::copy_n(task.draft.begin(), part.count - 1, feeds[i].begin() + 1);
      tokens = feeds[i];
    }
    inputs.push_back({.sequence = task.sequence.get(), .tokens = tokens.first(part.count)});
    const bool ends = task.fed() + part.count == task.tokens.size();
    const uint32_t first = part.decode ? 0 : ends ? part.count - 1 : part.count;
    for (uint32_t r = first; r < part.count; ++r) logit_rows.push_back(row + r);
    row += part.count;
  }
}

// Samples where a token is due. The guesses of a decode stay as long as they are what was sampled.
void Engine::Impl::TakeOutputs() {
  const size_t vocab = weights->config.vocab_size;
  float* row = logits.data();
  for (size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    Task& task = *part.task;
    part.kept = part.decode ? 1 : part.count;
    const auto prompt_done =
        static_cast<uint32_t>(std::min(task.fed() + part.kept, task.prompt_size));
    const Event event{.request = task.id, .prompt_done = prompt_done, .reused = task.reused};
    events.push_back(event);
    if (!part.decode) {
      stats.prompt_tokens += part.count;
      if (task.fed() + part.count < task.tokens.size()) continue;
    }
    uint32_t token = SampleRow(task, {row, vocab});
    while (part.kept < part.count && token == feeds[i][part.kept] && !events.back().finish) {
      events.push_back(event);
      token = SampleRow(task, {row + part.kept++ * vocab, vocab});
    }
    part.finished = events.back().finish.has_value();
    row += (part.decode ? part.count : 1) * vocab;
    if (!part.decode) continue;
    gauge.Verified(part.count - 1, part.kept - 1);
    stats.drafted_tokens += part.count - 1;
    stats.accepted_tokens += part.kept - 1;
  }
}

// Guesses for the next step, where they pay.
Status Engine::Impl::Draft() {
  uint32_t decodes = 0;  // of the next step
  for (const Part& part : parts) {
    part.task->num_drafted = 0;
    if (!part.finished && part.end() + 1 == part.task->tokens.size()) ++decodes;
  }
  if (drafter == nullptr) return {};
  if (options.speculation == Speculation::kAuto &&
      !gauge.Worthwhile(budget, std::max(decodes, 1u))) {
    gauge.Skipped();
    return {};
  }
  CollectDraftRequests();
  if (draft_requests.empty()) return {};
  const Clock::time_point begin = Clock::now();
  Chooser chooser(*this);
  CACHALOT_RETURN_IF_ERROR(drafter->Propose(draft_requests, chooser));
  for (size_t i = 0; i < draft_requests.size(); ++i) {
    draft_tasks[i]->num_drafted = draft_requests[i].num_drafted;
  }
  const double seconds = SecondsSince(begin);
  stats.draft_seconds += seconds;
  // A prompt's rows come once; they are not what a draft costs.
  if (std::ranges::all_of(parts, &Part::decode)) gauge.Drafted(seconds);
  return {};
}

// The rows of a prompt take part as far as the draft's window reaches back from its end.
void Engine::Impl::CollectDraftRequests() {
  draft_requests.clear();
  draft_tasks.clear();
  uint32_t row = 0;
  for (const Part& part : parts) {
    Task& task = *part.task;
    const size_t fed = task.fed();
    const uint32_t first_row = row;
    row += part.count;
    const size_t window = std::min<size_t>(task.prompt_size, weights->config.sliding_window);
    const size_t begin = std::max(fed, task.prompt_size - window);
    if (part.finished || begin >= part.end()) continue;
    size_t most = 0;
    if (part.end() + 1 == task.tokens.size()) {
      // A guess takes a position, and the token sampled after it one more.
      most =
          std::min<size_t>(drafter->max_draft_tokens(), task.max_tokens - task.tokens.size() - 1);
    }
    draft_requests.push_back({.first_row = first_row + static_cast<uint32_t>(begin - fed),
                              .next = std::span(task.tokens).subspan(begin + 1, part.end() - begin),
                              .draft = std::span(task.draft).first(most)});
    draft_tasks.push_back(&task);
  }
}

void Engine::Impl::AdvanceParts() {
  for (const Part& part : parts) {
    Task& task = *part.task;
    task.sequence->Advance(part.count);
    const Status rewound = task.sequence->Rewind(part.count - part.kept);
    CACHALOT_CHECK(rewound.ok());  // at most kMaxDraft tokens
    if (part.decode) continue;
    const size_t fed = task.fed();
    const bool end = fed == task.prompt_size;
    if (end || fed % options.checkpoint_interval == 0) {
      Remember(task, end);
    } else if (disk != nullptr && disk->NextSave(static_cast<uint32_t>(fed) - 1) == fed) {
      SaveToDisk(task, false);
    }
  }
}

uint32_t Engine::Impl::SampleLogits(Task& task, std::span<float> row, size_t ahead,
                                    TokenConstraint* constraint) {
  const std::span<const uint32_t> tokens = task.tokens;
  const TokenHistory history{.prompt = tokens.first(task.prompt_size),
                             .generated = tokens.subspan(task.prompt_size)};
  return sampler.Sample(row, history, task.request.sampling, tokens.size() + ahead, constraint);
}

// With the noise that the position will have: at any temperature the guess is what would be
// sampled if the draft's logits were the model's.
uint32_t Engine::Impl::Chooser::Choose(size_t request, uint32_t ahead, std::span<float> logits) {
  return engine_.SampleLogits(*engine_.draft_tasks[request], logits, ahead, nullptr);
}

uint32_t Engine::Impl::SampleRow(Task& task, std::span<float> row) {
  const Clock::time_point begin = Clock::now();
  if (task.request.logprobs) raw_logits.assign(row.begin(), row.end());
  const uint32_t token = SampleLogits(task, row, 0, task.request.constraint);
  if (task.request.constraint != nullptr) {
    const Clock::time_point sampled = Clock::now();
    task.request.constraint->Accept(token);
    accept_seconds += SecondsSince(sampled);
  }
  stats.sample_seconds += SecondsSince(begin);
  task.tokens.push_back(token);
  events.back().token = token;
  ++stats.generated_tokens;
  if (task.request.logprobs) {
    events.back().logprobs = LogprobsOf(raw_logits, token, task.request.top_logprobs);
  }
  if (std::ranges::find(task.request.stop_tokens, token) != task.request.stop_tokens.end()) {
    Finish(task, FinishReason::kStop);
  } else if (task.tokens.size() >= task.max_tokens) {
    Finish(task, FinishReason::kLength);
  }
  return token;
}

void Engine::Impl::Finish(Task& task, FinishReason reason) {
  if (!events.empty() && events.back().request == task.id) {
    events.back().finish = reason;
  } else {
    events.push_back({.request = task.id, .finish = reason});
  }
  finished.push_back(task.id);
}

// So that a later prompt which begins with what this one has seen goes on from here.
void Engine::Impl::Remember(Task& task, bool end) {
  if (!task.request.cache || task.approximate || !task.ready()) return;
  cache->Save(*task.request.cache, std::span(task.tokens).first(task.fed()), *task.sequence);
  SaveToDisk(task, end);
}

void Engine::Impl::SaveToDisk(Task& task, bool end) {
  if (disk == nullptr || !task.request.cache || task.approximate) return;
  disk->Save(*task.request.cache, std::span(task.tokens).first(task.fed()), *task.sequence, end,
             task.saved);
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
