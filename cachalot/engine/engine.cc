// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/threading/topology.h"

namespace cachalot::engine {
namespace {

constexpr uint32_t kDefaultContext = 32768;
constexpr uint32_t kMaxThreads = 1024;

// How often the mapped shards are looked at: reading past the end of a file that shrank would kill
// the process, and an fstat a shard and second costs nothing.
constexpr auto kFileCheckInterval = std::chrono::seconds(1);

// A request from Submit to its last event, and the sequence it leaves behind.
struct Task {
  RequestId id{};
  Request request;
  std::vector<uint32_t> tokens;  // prompt, then generated; reserved to the end of the context
  size_t prompt_size = 0;
  size_t max_tokens = 0;                        // prompt and generated together
  std::unique_ptr<kvcache::Sequence> sequence;  // null while queued
  bool cancelled = false;

  size_t fed() const { return sequence->position(); }
  bool decoding() const { return fed() + 1 == tokens.size() && tokens.size() > prompt_size; }
};

// Length of the common prefix of what a sequence has seen and a new prompt, leaving at least one
// token to feed.
size_t CommonPrefix(std::span<const uint32_t> seen, std::span<const uint32_t> prompt) {
  const size_t limit = std::min(seen.size(), prompt.size() - 1);
  size_t n = 0;
  while (n < limit && seen[n] == prompt[n]) ++n;
  return n;
}

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
  return {};
}

struct Engine::Impl {
  Impl(std::shared_ptr<const model::Weights> w, const EngineOptions& o, uint32_t context,
       uint32_t threads)
      : weights(std::move(w)),
        options(o),
        max_context(context),
        pool(threads),
        sampler(weights->config.vocab_size) {}

  void Admit();
  Result<std::unique_ptr<kvcache::Sequence>> SequenceFor(Task& task);
  void PlanStep();
  Status RunStep();
  void SampleRow(Task& task, std::span<float> logits);
  void Finish(Task& task, FinishReason reason);
  void RemoveFinished();
  Task* FindTask(RequestId id);
  Status CheckFiles();

  std::shared_ptr<const model::Weights> weights;
  EngineOptions options;
  uint32_t max_context;
  kernels::Target target = kernels::Target::kScalar;
  ThreadPool pool;
  std::unique_ptr<kvcache::BlockPool> blocks;
  std::unique_ptr<model::Forward> forward;
  Sampler sampler;

  uint64_t next_id = 1;
  std::deque<std::unique_ptr<Task>> waiting;
  std::vector<std::unique_ptr<Task>> running;  // in order of arrival
  std::vector<std::unique_ptr<Task>> kept;     // oldest first
  std::vector<Event> events;
  std::vector<RequestId> finished;

  // One step.
  struct Part {
    Task* task;
    uint32_t count;  // tokens fed
  };
  std::vector<Part> parts;
  std::vector<model::SequenceInput> inputs;
  std::vector<uint32_t> logit_rows;
  std::vector<float> logits;  // [max_sequences, V]
  std::chrono::steady_clock::time_point next_file_check{};
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
  const uint32_t step_tokens = std::max(options.prefill_chunk, options.max_sequences);
  const kernels::Context ctx{.pool = &impl->pool, .target = target};
  CACHALOT_TRY(impl->forward, model::Forward::Create(impl->weights,
                                                     {.numerics = options.numerics,
                                                      .max_step_tokens = step_tokens,
                                                      .max_step_sequences = options.max_sequences},
                                                     ctx));
  const kvcache::KvSpec spec =
      impl->weights->config.kv_spec(model::KvFormatOf(options.numerics), /*with_mtp=*/false);
  const size_t blocks_each = (size_t{context} + kvcache::kBlockTokens - 1) / kvcache::kBlockTokens;
  CACHALOT_TRY(impl->blocks, kvcache::BlockPool::Create(spec, blocks_each * options.max_sequences));
  impl->logits.resize(size_t{options.max_sequences} * impl->weights->config.vocab_size);
  impl->parts.reserve(options.max_sequences);
  impl->inputs.reserve(options.max_sequences);
  impl->logit_rows.reserve(options.max_sequences);
  impl->running.reserve(options.max_sequences);
  impl->events.reserve(4 * size_t{options.max_sequences});
  impl->finished.reserve(options.max_sequences);
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<RequestId> Engine::Submit(Request request) {
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
  const size_t prompt_size = request.prompt.size();
  if (prompt_size >= impl_->max_context) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("the prompt has ", prompt_size, " tokens, the context ", impl_->max_context,
                        " with room for an answer; raise --max-context (this model: up to ",
                        impl_->weights->config.max_position_embeddings, ")")};
  }
  auto task = std::make_unique<Task>();
  task->id = static_cast<RequestId>(impl_->next_id++);
  task->prompt_size = prompt_size;
  const size_t room = impl_->max_context - prompt_size;
  task->max_tokens =
      prompt_size +
      (request.max_new_tokens > 0 ? std::min<size_t>(room, request.max_new_tokens) : room);
  task->tokens = request.prompt;
  task->tokens.reserve(task->max_tokens);
  task->request = std::move(request);
  const RequestId id = task->id;
  impl_->waiting.push_back(std::move(task));
  return id;
}

void Engine::Cancel(RequestId id) {
  if (Task* task = impl_->FindTask(id)) task->cancelled = true;
}

void Engine::Drop(RequestId id) {
  std::erase_if(impl_->kept, [&](const auto& task) { return task->id == id; });
}

bool Engine::HasWork() const { return !impl_->waiting.empty() || !impl_->running.empty(); }

Result<std::span<const Event>> Engine::Step() {
  impl_->events.clear();
  impl_->finished.clear();
  CACHALOT_RETURN_IF_ERROR(impl_->CheckFiles());
  impl_->Admit();
  impl_->PlanStep();
  if (!impl_->parts.empty()) CACHALOT_RETURN_IF_ERROR(impl_->RunStep());
  impl_->RemoveFinished();
  return std::span<const Event>(impl_->events);
}

const model::Weights& Engine::weights() const { return *impl_->weights; }
uint32_t Engine::max_context() const { return impl_->max_context; }
uint32_t Engine::num_threads() const { return static_cast<uint32_t>(impl_->pool.num_threads()); }
kernels::Target Engine::target() const { return impl_->target; }

uint32_t Engine::context_used(RequestId id) const {
  const Task* task = impl_->FindTask(id);
  return task != nullptr && task->sequence ? task->sequence->position() : 0;
}

Task* Engine::Impl::FindTask(RequestId id) {
  for (auto* list : {&running, &kept}) {
    for (const auto& task : *list) {
      if (task->id == id) return task.get();
    }
  }
  for (const auto& task : waiting) {
    if (task->id == id) return task.get();
  }
  return nullptr;
}

Status Engine::Impl::CheckFiles() {
  const auto now = std::chrono::steady_clock::now();
  if (weights->storage == nullptr || now < next_file_check) return {};
  CACHALOT_RETURN_IF_ERROR(weights->storage->CheckUnchanged());
  next_file_check = now + kFileCheckInterval;  // only now: after a failure every step looks again
  return {};
}

// Moves waiting requests to free places, in order of arrival. Cancelled ones end wherever they
// stand; one for which there is no memory ends alone.
void Engine::Impl::Admit() {
  for (const auto& task : waiting) {
    if (task->cancelled) Finish(*task, FinishReason::kCancelled);
  }
  std::erase_if(waiting, [](const auto& task) { return task->cancelled; });
  while (!waiting.empty() && running.size() < options.max_sequences) {
    std::unique_ptr<Task> task = std::move(waiting.front());
    waiting.pop_front();
    auto sequence = SequenceFor(*task);
    if (!sequence.ok()) {
      Finish(*task, FinishReason::kError);
      events.back().error = sequence.error();
      continue;
    }
    task->sequence = std::move(sequence).value();
    running.push_back(std::move(task));
  }
}

// The kept sequence the request continues, cut back to what both have in common, or a new one. Old
// kept sequences make room.
Result<std::unique_ptr<kvcache::Sequence>> Engine::Impl::SequenceFor(Task& task) {
  if (task.request.continue_from) {
    const auto it = std::ranges::find_if(
        kept, [&](const auto& k) { return k->id == *task.request.continue_from; });
    if (it != kept.end()) {
      std::unique_ptr<Task> old = std::move(*it);
      kept.erase(it);
      const std::span<const uint32_t> seen(old->tokens.data(), old->fed());
      const size_t common = CommonPrefix(seen, task.request.prompt);
      // Beyond a short rewind the state is gone: start over.
      if (!old->sequence->Rewind(static_cast<uint32_t>(old->fed() - common)).ok()) {
        old->sequence->Reset();
      }
      return std::move(old->sequence);
    }
  }
  while (!kept.empty() && running.size() + kept.size() >= options.max_sequences) {
    kept.erase(kept.begin());
  }
  return kvcache::Sequence::Create(*blocks);
}

// Decodes first, then prefill in order of arrival up to prefill_chunk tokens.
void Engine::Impl::PlanStep() {
  parts.clear();
  uint32_t used = 0;
  for (const auto& task : running) {
    if (task->cancelled) {
      Finish(*task, FinishReason::kCancelled);
    } else if (task->decoding()) {
      parts.push_back({task.get(), 1});
      ++used;
    }
  }
  for (const auto& task : running) {
    if (task->cancelled || task->decoding() || used >= options.prefill_chunk) continue;
    const size_t left = task->tokens.size() - task->fed();
    const auto count = static_cast<uint32_t>(std::min<size_t>(left, options.prefill_chunk - used));
    parts.push_back({task.get(), count});
    used += count;
  }
}

Status Engine::Impl::RunStep() {
  inputs.clear();
  logit_rows.clear();
  uint32_t row = 0;
  for (const Part& part : parts) {
    Task& task = *part.task;
    CACHALOT_RETURN_IF_ERROR(task.sequence->Reserve(part.count));
    inputs.push_back({.sequence = task.sequence.get(),
                      .tokens = std::span(task.tokens).subspan(task.fed(), part.count)});
    row += part.count;
    if (task.fed() + part.count == task.tokens.size()) logit_rows.push_back(row - 1);
  }
  const size_t vocab = weights->config.vocab_size;
  CACHALOT_RETURN_IF_ERROR(forward->Step(
      inputs, {.logit_rows = logit_rows, .logits = {logits.data(), logit_rows.size(), vocab}}));
  size_t sampled = 0;
  for (const Part& part : parts) {
    Task& task = *part.task;
    task.sequence->Advance(part.count);
    const auto prompt_done = static_cast<uint32_t>(std::min(task.fed(), task.prompt_size));
    events.push_back({.request = task.id, .prompt_done = prompt_done});
    if (task.fed() == task.tokens.size()) {
      SampleRow(task, {logits.data() + sampled++ * vocab, vocab});
    }
  }
  return {};
}

void Engine::Impl::SampleRow(Task& task, std::span<float> row) {
  const std::span<const uint32_t> tokens = task.tokens;
  const TokenHistory history{.prompt = tokens.first(task.prompt_size),
                             .generated = tokens.subspan(task.prompt_size)};
  const uint32_t token =
      sampler.Sample(row, history, task.request.sampling, tokens.size(), task.request.constraint);
  if (task.request.constraint != nullptr) task.request.constraint->Accept(token);
  task.tokens.push_back(token);
  events.back().token = token;
  if (std::ranges::find(task.request.stop_tokens, token) != task.request.stop_tokens.end()) {
    Finish(task, FinishReason::kStop);
  } else if (task.tokens.size() >= task.max_tokens) {
    Finish(task, FinishReason::kLength);
  }
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
    if (task->request.keep) {
      kept.push_back(std::move(task));
    } else {
      task.reset();
    }
  }
  std::erase(running, nullptr);
}

}  // namespace cachalot::engine
