// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/answer_text.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace cachalot::serve {
namespace {

chat::ParserOptions OptionsFor(const api::GenerateRequest& request, const Prompt& prompt,
                               const ServedModel& model) {
  const bool plain = request.surface == api::Surface::kCompletions;
  return {.format = model.format,
          .thinking = prompt.thinking,
          .parse_tools = !plain && !request.tools.empty(),
          .inside_block = prompt.inside_block,
          .tools = request.schemas,
          .stops = request.stops};
}

}  // namespace

AnswerText::AnswerText(const api::GenerateRequest& request, const Prompt& prompt,
                       const ServedModel& model, uint32_t choice)
    : model_(model),
      choice_(choice),
      one_call_(!request.parallel_tool_calls),
      in_reasoning_(prompt.thinking),
      decoder_(*model.tokenizer),
      parser_(OptionsFor(request, prompt, model),
              [this](const chat::Event& event) { TakeEvent(event); }) {}

std::vector<api::Delta> AnswerText::Push(uint32_t token,
                                         const std::optional<engine::TokenLogprobs>& logprobs) {
  tokens_.push_back(token);
  bytes_ += model_.tokenizer->TokenBytes(token);
  if (in_reasoning_) ++reasoning_tokens_;
  if (token == model_.think_close) in_reasoning_ = false;
  if (logprobs) pending_.push_back(ToApi(token, *logprobs));
  parser_.Feed(decoder_.Push(token));
  return std::exchange(deltas_, {});
}

std::vector<api::Delta> AnswerText::Finish() {
  ended_itself_ = done();
  parser_.Feed(decoder_.Finish());
  parser_.Finish();
  return std::exchange(deltas_, {});
}

bool AnswerText::done() const { return parser_.done() || enough_; }

AnswerEnd AnswerText::End(engine::FinishReason reason) const {
  if (parser_.matched_stop()) return {api::Finish::kStopString, *parser_.matched_stop()};
  if (reason == engine::FinishReason::kLength && !ended_itself_) return {api::Finish::kLength, {}};
  if (num_calls_ > 0) return {api::Finish::kToolCalls, {}};
  if (reason == engine::FinishReason::kCancelled && !ended_itself_)
    return {api::Finish::kAborted, {}};
  return {api::Finish::kStop, {}};
}

void AnswerText::TakeEvent(const chat::Event& event) {
  if (enough_) return;
  using Kind = chat::Event::Kind;
  switch (event.kind) {
    case Kind::kReasoning:
      AddText(api::Delta::Kind::kReasoning, event.text);
      break;
    case Kind::kContent:
      AddText(api::Delta::Kind::kContent, event.text);
      break;
    case Kind::kCallStart:
      ++num_calls_;
      AddText(api::Delta::Kind::kCallStart, event.text);
      break;
    case Kind::kArguments:
      AddText(api::Delta::Kind::kArguments, event.text);
      break;
    case Kind::kCallEnd:
      AddText(api::Delta::Kind::kCallEnd, {});
      enough_ = one_call_;
      break;
    case Kind::kFinish:
      break;
  }
}

// Neighbors of one kind become one delta. The probabilities of markup tokens are left out.
void AnswerText::AddText(api::Delta::Kind kind, std::string_view text) {
  using Kind = api::Delta::Kind;
  const bool text_kind = kind == Kind::kReasoning || kind == Kind::kContent;
  const bool joins = kind != Kind::kCallStart && kind != Kind::kCallEnd;
  if (!joins || deltas_.empty() || deltas_.back().kind != kind) {
    deltas_.push_back({.kind = kind, .choice = choice_, .text = {}, .logprobs = {}});
  }
  api::Delta& delta = deltas_.back();
  delta.text += text;
  if (text_kind) std::ranges::move(pending_, std::back_inserter(delta.logprobs));
  pending_.clear();
}

api::TokenLogprob AnswerText::ToApi(uint32_t token, const engine::TokenLogprobs& logprobs) const {
  api::TokenLogprob out{.token_bytes = std::string(model_.tokenizer->TokenBytes(token)),
                        .logprob = logprobs.chosen,
                        .top = {}};
  for (const auto& [id, value] : logprobs.top) {
    out.top.emplace_back(model_.tokenizer->TokenBytes(id), value);
  }
  return out;
}

}  // namespace cachalot::serve
