// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/generation.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <utility>

#include "cachalot/serve/answer_text.h"

namespace cachalot::serve {
namespace {

using Clock = std::chrono::steady_clock;

// What a client that names no limit may get. [api.md 4.4]
constexpr uint32_t kDefaultTokens = 8192;
constexpr uint32_t kDefaultThinkingTokens = 65536;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Hard to guess: ids of calls come back from clients.
std::string RandomId() {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::random_device device;
  std::string id;
  for (int i = 0; i < 24; ++i) id += kLetters[device() % kLetters.size()];
  return id;
}

uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

std::string_view SurfaceName(api::Surface surface) {
  switch (surface) {
    case api::Surface::kChat:
      return "chat";
    case api::Surface::kCompletions:
      return "completions";
    case api::Surface::kMessages:
      return "messages";
    case api::Surface::kResponses:
      return "responses";
  }
  return "";
}

std::string_view FinishName(api::Finish finish) {
  switch (finish) {
    case api::Finish::kStop:
    case api::Finish::kStopString:
      return "stop";
    case api::Finish::kLength:
      return "length";
    case api::Finish::kToolCalls:
      return "tool_calls";
    case api::Finish::kAborted:
      return "aborted";
  }
  return "";
}

engine::SamplingParams ParamsOf(const api::Sampling& asked, uint64_t seed) {
  engine::SamplingParams params;
  params.temperature = asked.temperature.value_or(params.temperature);
  params.top_p = asked.top_p.value_or(params.top_p);
  params.top_k = asked.top_k.value_or(params.top_k);
  params.min_p = asked.min_p.value_or(params.min_p);
  params.repetition_penalty = asked.repetition_penalty.value_or(params.repetition_penalty);
  params.presence_penalty = asked.presence_penalty.value_or(params.presence_penalty);
  params.frequency_penalty = asked.frequency_penalty.value_or(params.frequency_penalty);
  params.logit_bias = asked.logit_bias;
  params.seed = seed;
  return params;
}

}  // namespace

// A choice of the reply: one request of the engine.
class Generation::Choice : public EngineClient, public std::enable_shared_from_this<Choice> {
 public:
  Choice(Generation& owner, uint32_t index, const Prompt& prompt)
      : owner_(owner.weak_from_this()),
        loop_(owner.context_.loop),
        index_(index),
        prompt_(prompt),
        constraint_(owner.constraints_(owner.request_, prompt)),
        text_(owner.request_, prompt, owner.context_.model, index) {}

  void OnEvent(const engine::Event& event) override {
    const auto owner = owner_.lock();
    if (owner == nullptr && !event.finish) loop_.Cancel(shared_from_this());  // nobody reads it
    if (owner == nullptr || ended_) return;
    if (!std::exchange(begun_, true)) owner->ChoiceBegun(index_, event);
    const bool stop_token =
        event.token && std::ranges::count(owner->context_.model.stop_tokens, *event.token) > 0;
    if (event.token) TokenSampled(*owner);
    if (event.token && !stop_token) {
      for (const auto& delta : text_.Push(*event.token, event.logprobs)) {
        owner->Write(owner->writer_->Add(delta));
      }
    }
    if (event.finish || text_.done()) {
      End(*owner, event.finish.value_or(engine::FinishReason::kStop), event.finish.has_value());
    }
    owner->Flush();
  }

  void OnFailure(const Error& error) override {
    ended_ = true;
    if (const auto owner = owner_.lock()) owner->Fail(error);
  }

  engine::TokenConstraint* constraint() { return constraint_.get(); }
  void Retire() { ended_ = true; }

 private:
  void TokenSampled(Generation& owner) {
    const Clock::time_point now = Clock::now();
    if (num_sampled_++ == 0) {
      if (owner.record_.first_token_s == 0) {
        owner.record_.first_token_s = SecondsSince(owner.begin_);
      }
      owner.SubmitSiblings(index_);
    } else {
      owner.context_.metrics.TokenInterval(
          std::chrono::duration<double>(now - last_token_).count());
    }
    last_token_ = now;
  }

  void End(Generation& owner, engine::FinishReason reason, bool engine_ended) {
    ended_ = true;
    for (const auto& delta : text_.Finish()) owner.Write(owner.writer_->Add(delta));
    const AnswerEnd end = text_.End(reason);
    owner.usage_.completion_tokens += num_sampled_;
    owner.usage_.reasoning_tokens += text_.num_reasoning_tokens();
    RememberText(owner);
    owner.Write(owner.writer_->End(index_, end.finish, end.stop_string));
    owner.record_.finish = FinishName(end.finish);
    if (!engine_ended) loop_.Cancel(shared_from_this());
    owner.ChoiceEnded();
  }

  // For the turn after this one.
  void RememberText(Generation& owner) {
    if (!prompt_.text.empty()) {
      std::vector<uint32_t> ids = prompt_.ids;
      ids.insert(ids.end(), text_.fed_tokens().begin(), text_.fed_tokens().end());
      owner.context_.transcripts.Add(owner.scope_, prompt_.text + text_.bytes(), std::move(ids));
    }
    std::vector<chat::ToolCall> calls = text_.calls();
    for (uint32_t i = 0; i < calls.size(); ++i) {
      calls[i].id = api::CallId(owner.request_.surface, owner.id_, index_, i);
    }
    owner.context_.call_texts.Add(owner.scope_, std::move(calls), text_.CallsText());
  }

  std::weak_ptr<Generation> owner_;
  EngineLoop& loop_;
  uint32_t index_;
  const Prompt& prompt_;  // of the owner
  std::unique_ptr<engine::TokenConstraint> constraint_;
  AnswerText text_;
  uint32_t num_sampled_ = 0;
  Clock::time_point last_token_{};
  bool begun_ = false;
  bool ended_ = false;
};

Generation::Generation(const GenerationContext& context, api::GenerateRequest request,
                       std::vector<Prompt> prompts, kvcache::CacheScope scope,
                       ConstraintFactory constraints, std::shared_ptr<http::Exchange> exchange)
    : context_(context),
      request_(std::move(request)),
      prompts_(std::move(prompts)),
      scope_(scope),
      constraints_(std::move(constraints)),
      id_(RandomId()),
      seed_(request_.sampling.seed ? *request_.sampling.seed : RandomSeed()),
      begin_(Clock::now()),
      exchange_(std::move(exchange)) {
  record_.id = id_;
  record_.surface = SurfaceName(request_.surface);
  record_.stream = request_.stream;
  record_.finish = "cancelled";
}

Generation::~Generation() {
  if (!finished_) Finish("cancelled", 499);
}

engine::Request Generation::EngineRequest(uint32_t choice) const {
  const Prompt& prompt = prompts_[choice / request_.n];
  const uint32_t fallback = prompt.thinking ? kDefaultThinkingTokens : kDefaultTokens;
  return {.prompt = prompt.ids,
          .max_new_tokens = request_.max_tokens.value_or(fallback),
          .stop_tokens = context_.model.stop_tokens,
          .sampling = ParamsOf(request_.sampling, seed_ + choice % request_.n),
          .cache = scope_,
          .priority = -request_.priority,
          .logprobs = request_.logprobs,
          .top_logprobs = request_.top_logprobs};
}

api::ApiStatus Generation::Start() {
  for (uint32_t i = 0; i < request_.NumChoices(); i += request_.n) {
    const Status possible = context_.loop.Check(EngineRequest(i));
    if (!possible.ok()) {
      finished_ = true;
      // It could never run here, however long it waited: the request is at fault, not the load.
      return api::InvalidRequest("", possible.error().message);
    }
  }
  writer_ = api::MakeReplyWriter(request_, {.id = id_,
                                            .created = std::time(nullptr),
                                            .model = context_.model.name,
                                            .fingerprint = context_.model.fingerprint});
  for (uint32_t i = 0; i < request_.NumChoices(); ++i) {
    choices_.push_back(std::make_shared<Choice>(*this, i, prompts_[i / request_.n]));
  }
  // The connection keeps the generation alive: without it nobody wants the answer.
  exchange_->OnDisconnect([self = shared_from_this()] { self->CancelAll(); });
  if (request_.stream) {
    http::Response head{.status = 200, .content_type = std::string(api::kStreamContentType)};
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    stream_ =
        exchange_->BeginStream(std::move(head), std::string(api::KeepAliveBytes(request_.surface)));
    exchange_.reset();
  }
  for (uint32_t i = 0; i < request_.NumChoices(); i += request_.n) SubmitChoice(i);
  return {};
}

void Generation::SubmitChoice(uint32_t choice) {
  engine::Request request = EngineRequest(choice);
  request.constraint = choices_[choice]->constraint();
  context_.loop.Submit(std::move(request), choices_[choice]);
}

// Further answers to a prompt wait for the first token of the first: then the prompt is remembered.
void Generation::SubmitSiblings(uint32_t choice) {
  if (choice % request_.n != 0) return;
  for (uint32_t i = 1; i < request_.n; ++i) SubmitChoice(choice + i);
}

void Generation::CancelAll() {
  for (const auto& choice : choices_) context_.loop.Cancel(choice);
}

// The first event of a prompt's first choice says what was remembered of the prompt. (Its other
// choices find all of it, which the client did not save.)
void Generation::ChoiceBegun(uint32_t choice, const engine::Event& event) {
  if (choice % request_.n == 0) usage_.cached_tokens += event.reused;
  if (std::exchange(begun_, true)) return;
  for (const Prompt& prompt : prompts_) {
    usage_.prompt_tokens += static_cast<uint32_t>(prompt.ids.size());
  }
  Write(writer_->Begin(usage_));
}

void Generation::Flush() {
  if (out_.empty()) return;
  if (stream_ != nullptr && !stream_->Send(std::exchange(out_, {}))) CancelAll();
  out_.clear();
}

void Generation::ChoiceEnded() {
  if (++ended_ < choices_.size()) return;
  Write(writer_->Done(usage_));
  Flush();
  Finish(record_.finish, 200);
}

void Generation::Fail(const Error& error) {
  if (finished_) return;
  for (const auto& choice : choices_) choice->Retire();
  CancelAll();
  const api::ApiError failure = api::ApiError::From(error);
  if (stream_ != nullptr) {
    Write(writer_->Fail(failure));
    Flush();
  } else {
    exchange_->Reply({.status = failure.status,
                      .content_type = "application/json",
                      .headers = {},
                      .body = api::ErrorBody(request_.surface, failure)});
  }
  Finish("error", failure.status);
}

void Generation::Finish(std::string_view finish, int status) {
  finished_ = true;
  if (stream_ != nullptr) {
    stream_->Close();
  } else if (exchange_ != nullptr && status == 200) {
    exchange_->Reply({.status = 200,
                      .content_type = "application/json",
                      .headers = {},
                      .body = writer_->Body()});
  }
  record_.finish = finish;
  record_.status = status;
  record_.prompt_tokens = usage_.prompt_tokens;
  record_.cached_tokens = usage_.cached_tokens;
  record_.completion_tokens = usage_.completion_tokens;
  record_.total_s = SecondsSince(begin_);
  context_.metrics.RequestDone(record_);
  if (context_.log) {
    context_.log(LogLine(record_, context_.log_prompts ? prompts_[0].text : std::string_view()));
  }
  // Whoever still holds the connection must not hold us.
  stream_.reset();
  exchange_.reset();
}

}  // namespace cachalot::serve
