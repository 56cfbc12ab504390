// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/task_items.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/encode.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/messages.h"

namespace cachalot::eval {
namespace {

Error Bad(const std::string& name, std::string_view what) {
  return {ErrorCode::kInvalidArgument, StrCat(name, ": ", what)};
}

// Where the last answer begins: behind its marker and the <think> or </think> that ends the prompt.
size_t AnswerBegin(std::string_view text) {
  const size_t marker = text.rfind(chat::kAssistantMarker);
  if (marker == std::string_view::npos) return 0;
  size_t at = marker + chat::kAssistantMarker.size();
  for (const std::string_view mode : {chat::kThinkOpen, chat::kThinkClose}) {
    if (text.substr(at).starts_with(mode)) return at + mode.size();
  }
  return at;
}

Result<std::string> RenderedChat(std::string_view line, const std::string& name) {
  CACHALOT_TRY(const auto request, chat::RenderRequestFromJson(line, name));
  const auto& messages = request.conversation.messages;
  if (messages.empty() || messages.back().role != chat::Role::kAssistant) {
    return Bad(name, "the last message must be the assistant's, with the right answer");
  }
  return chat::EncodePrompt(request.conversation, request.options);
}

Result<std::string> SkillOf(std::string_view line, const std::string& name) {
  CACHALOT_TRY(const Json json, ParseJson(line, name));
  const auto skill = json.is_object() ? json.find("skill") : json.end();
  if (!json.is_object() || skill == json.end() || !skill->is_string()) {
    return Bad(name, "expected an object with \"skill\", a string");
  }
  return skill->get<std::string>();
}

Result<TaskItem> ParseItem(std::string_view line, const std::string& name,
                           const tokenizer::Tokenizer& tokenizer, uint32_t vocab_size) {
  TaskItem item;
  CACHALOT_TRY(item.skill, SkillOf(line, name));
  CACHALOT_TRY(const std::string rendered, RenderedChat(line, name));
  const std::string_view text = rendered;
  const size_t begin = AnswerBegin(text);
  if (begin == 0) return Bad(name, "the rendered chat has no assistant marker");
  const auto encode = [&](std::string_view piece) {
    return tokenizer.Encode(piece, /*parse_special=*/true);
  };
  // A chat is cut at a marker, where no token spans the cut. [chat.md 2.5]
  item.ids = encode(text.substr(0, begin));
  item.answer_begin = static_cast<uint32_t>(item.ids.size());
  const std::vector<uint32_t> answer = encode(text.substr(begin));
  item.ids.insert(item.ids.end(), answer.begin(), answer.end());
  if (*std::ranges::max_element(item.ids) >= vocab_size || item.answer_begin == 0) {
    return Bad(name, StrCat("a token id is beyond the model's vocabulary of ", vocab_size,
                            "; the tokenizer belongs to another model"));
  }
  std::string_view said = text.substr(begin);
  if (said.ends_with(chat::kEos)) said.remove_suffix(chat::kEos.size());
  const size_t fact = text.substr(0, begin).rfind(said);
  if (said.empty() || fact == std::string_view::npos) return item;
  item.tokens_back = static_cast<uint32_t>(encode(text.substr(fact, begin - fact)).size());
  return item;
}

}  // namespace

Result<std::vector<TaskItem>> ParseTaskItems(std::string_view text, const std::string& name,
                                             const tokenizer::Tokenizer& tokenizer,
                                             uint32_t vocab_size) {
  std::vector<TaskItem> items;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    CACHALOT_TRY(TaskItem item, ParseItem(line, StrCat(name, ":", number), tokenizer, vocab_size));
    items.push_back(std::move(item));
  }
  return items;
}

Result<bool> AnswersRight(LogitRunner& runner, const TaskItem& item) {
  CACHALOT_CHECK(item.answer_begin > 0 && item.answer_begin < item.ids.size());
  const std::span<const uint32_t> ids = item.ids;
  bool right = true;
  const auto sink = [&](const ChunkOutputs& chunk) -> Status {
    for (uint32_t t = 0; t < chunk.num_tokens; ++t) {
      if (chunk.first + t + 1 < item.answer_begin) continue;
      const auto row = chunk.logits.Row(t);
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      right = right && best == static_cast<long>(ids[chunk.first + t + 1]);
    }
    return {};
  };
  // The last token predicts nothing that is asked for.
  CACHALOT_RETURN_IF_ERROR(runner.Run(ids.first(ids.size() - 1), {}, LogitPositions::kAll, sink));
  return right;
}

void AddToScores(const TaskItem& item, bool right, std::vector<SkillScore>& scores) {
  auto score = std::ranges::find(scores, item.skill, &SkillScore::skill);
  if (score == scores.end()) {
    scores.push_back({.skill = item.skill, .min_back = item.tokens_back});
    score = scores.end() - 1;
  }
  ++score->items;
  score->right += right ? 1 : 0;
  score->min_back = std::min(score->min_back, item.tokens_back);
  score->max_back = std::max(score->max_back, item.tokens_back);
}

}  // namespace cachalot::eval
