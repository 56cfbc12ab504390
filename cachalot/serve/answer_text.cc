// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/answer_text.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"

namespace cachalot::serve {
namespace {

chat::ParserOptions OptionsFor(const api::GenerateRequest& request, const Prompt& prompt,
                               const ServedModel& model) {
  const bool plain = request.surface == api::Surface::kCompletions;
  return {.format = model.format,
          .thinking = prompt.thinking,
          .parse_tools = !plain && !request.tools.empty(),
          .inside_block = !prompt.open_block.empty(),
          .tools = request.schemas,
          .stops = request.stops};
}

}  // namespace

AnswerText::AnswerText(const api::GenerateRequest& request, const Prompt& prompt,
                       const ServedModel& model, uint32_t choice)
    : model_(model),
      choice_(choice),
      one_call_(!request.parallel_tool_calls),
      thinking_(prompt.thinking),
      open_block_(prompt.open_block),
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
  const bool was_done = parser_.done();
  parser_.Feed(decoder_.Push(token));
  // The parser knows the end of the block by its name; the bracket after it may be another token.
  // Without it the turn could not be gone on with.
  lacks_bracket_ = !was_done && parser_.done() && bytes_.ends_with(BlockCloser());
  return std::exchange(deltas_, {});
}

std::vector<api::Delta> AnswerText::Finish() {
  ended_itself_ = parser_.done() || enough_;
  parser_.Feed(decoder_.Finish());
  parser_.Finish();
  return std::exchange(deltas_, {});
}

bool AnswerText::done() const { return enough_ || (parser_.done() && !lacks_bracket_); }

// Without the bracket.
std::string AnswerText::BlockCloser() const {
  return StrCat("</", chat::kDsml, chat::TagsOf(model_.format).block);
}

AnswerEnd AnswerText::End(engine::FinishReason reason) const {
  if (parser_.matched_stop()) return {api::Finish::kStopString, *parser_.matched_stop()};
  if (reason == engine::FinishReason::kLength && !ended_itself_) return {api::Finish::kLength, {}};
  if (num_calls_ > 0) return {api::Finish::kToolCalls, {}};
  if (reason == engine::FinishReason::kCancelled && !ended_itself_)
    return {api::Finish::kAborted, {}};
  return {api::Finish::kStop, {}};
}

std::string AnswerText::CallsText() const {
  if (calls_.empty() || calls_.size() != num_calls_) return {};
  const std::string opener = StrCat("<", chat::kDsml, chat::TagsOf(model_.format).block, ">");
  const std::string closer = BlockCloser();
  std::string_view answer = bytes_;
  if (thinking_) {
    const size_t close = answer.find(chat::kThinkClose);
    if (close == answer.npos) return {};
    answer.remove_prefix(close + chat::kThinkClose.size());
  }
  if (!answer.starts_with(content_)) return {};
  std::string text = StrCat(open_block_, answer.substr(content_.size()));
  if (text.find(opener) == text.npos) return {};
  const size_t end = text.rfind(closer);
  // One call was asked for, and the answer ended with it.
  if (end == text.npos) return StrCat(text, "\n", closer, ">");
  const std::string_view after = std::string_view(text).substr(end + closer.size());
  if (after.empty()) return text + '>';
  return after.starts_with('>') ? text : std::string();
}

void AnswerText::TakeEvent(const chat::Event& event) {
  if (enough_) return;
  using Kind = chat::Event::Kind;
  switch (event.kind) {
    case Kind::kReasoning:
      AddText(api::Delta::Kind::kReasoning, event.text);
      break;
    case Kind::kContent:
      content_ += event.text;
      AddText(api::Delta::Kind::kContent, event.text);
      break;
    case Kind::kCallStart:
      ++num_calls_;
      open_call_ = {.name = std::string(event.text)};
      AddText(api::Delta::Kind::kCallStart, event.text);
      break;
    case Kind::kArguments:
      open_call_.arguments += event.text;
      AddText(api::Delta::Kind::kArguments, event.text);
      break;
    case Kind::kCallEnd:
      AddText(api::Delta::Kind::kCallEnd, {});
      calls_.push_back(std::move(open_call_));
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
