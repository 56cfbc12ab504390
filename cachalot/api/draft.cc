// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/draft.h"

#include <algorithm>
#include <cctype>

#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;
using chat::Message;
using chat::Role;

// The three levels the API's names stand for. [api.md 4.3]
std::string_view Tier(std::string_view effort) {
  if (effort == "minimal" || effort == "low") return "low";
  if (effort == "max" || effort == "ultra") return "max";
  return "high";
}

chat::ReasoningEffort EffortOf(const ThinkingWish& wish, chat::Format format) {
  const std::string_view tier = Tier(wish.effort);
  if (format == chat::Format::kV4_1) {
    const int64_t level = tier == "low" ? 50 : tier == "max" ? 100 : 75;
    return {.name = "", .level = wish.level.value_or(level)};
  }
  // The preview knows no low effort: all but max leave its prompt as it is.
  if (format == chat::Format::kV4Preview && tier == "low") return {.name = "high"};
  return {.name = std::string(tier)};
}

ApiStatus SettleThinking(const ThinkingWish& wish, chat::Format format, GenerateRequest& request) {
  request.thinking = wish.on.value_or(true);
  const bool forced =
      request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed;
  if (forced && request.thinking) {
    if (wish.binding) {
      return InvalidRequest("tool_choice", "Thinking mode does not support this tool_choice");
    }
    request.thinking = false;
  }
  if (request.thinking) request.effort = EffortOf(wish, format);
  return {};
}

// The tools the model is shown.
void SettleTools(std::vector<ToolDraft> tools, GenerateRequest& request) {
  if (tools.empty()) request.tool_choice = ToolChoice::kNone;
  if (request.tool_choice == ToolChoice::kNone) return;
  for (ToolDraft& tool : tools) {
    if (request.tool_choice == ToolChoice::kNamed && tool.name != request.tool_name) continue;
    if (tool.custom) request.custom_tools.push_back(tool.name);
    request.strict.push_back(tool.strict);
    request.strict_tools = request.strict_tools || tool.strict;
    request.tools.push_back(std::move(tool.function));
  }
  request.schemas = chat::ToolSchemasOf(request.tools);
}

// Leading system messages become one, which is always there at [0] for now; later ones stay in
// V4.1 and become the user's in V4. Empty ones vanish. [chat.md 7]
std::vector<Message> ArrangeSystems(std::vector<Message> messages, chat::Format format) {
  std::vector<Message> out;
  out.push_back(chat::SystemMessage(""));
  for (Message& message : messages) {
    if (message.role != Role::kSystem) {
      out.push_back(std::move(message));
    } else if (out.size() == 1) {
      AppendParagraph(message.content, out[0].content);
    } else if (message.content.empty()) {
      continue;
    } else if (format == chat::Format::kV4_1) {
      out.push_back(std::move(message));
    } else {
      out.push_back(chat::UserMessage(std::move(message.content)));
    }
  }
  return out;
}

bool OpensTurn(const Message& message) {
  return message.role == Role::kUser || message.role == Role::kTool;
}

// Without any turn of the user's the encoder would never write the marker of the answer: an empty
// one goes before the first answer.
void EnsureUserTurn(std::vector<Message>& messages) {
  if (std::any_of(messages.begin(), messages.end(), OpensTurn)) return;
  const auto answer = std::find_if(messages.begin(), messages.end(), [](const Message& message) {
    return message.role == Role::kAssistant;
  });
  messages.insert(answer, chat::UserMessage(""));
}

bool HasWord(std::string_view text, std::string_view lower_word) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == static_cast<unsigned char>(b);
  };
  return std::search(text.begin(), text.end(), lower_word.begin(), lower_word.end(), same) !=
         text.end();
}

bool MentionsJson(const std::vector<Message>& messages) {
  for (const Message& message : messages) {
    if (HasWord(message.content, "json")) return true;
    for (const chat::ContentBlock& block : message.blocks) {
      if (HasWord(block.text, "json")) return true;
    }
  }
  return false;
}

ApiStatus CheckEnd(const std::vector<Message>& messages, GenerateRequest& request) {
  const Message& last = messages.back();
  if (last.role != Role::kAssistant) return {};
  request.continue_last = last.wo_eos;
  if (last.wo_eos) return {};
  const std::string_view field = request.surface == Surface::kResponses ? "input" : "messages";
  return InvalidRequest(std::string(field),
                        StrCat(field,
                               ": the last message is the assistant's, expected a user message or "
                               "tool results; to have it continued, set prefix or "
                               "continue_final_message (chat completions)"));
}

}  // namespace

void AppendParagraph(std::string_view text, std::string& out) {
  if (text.empty()) return;
  if (!out.empty()) out += "\n\n";
  out += text;
}

ApiResult<GenerateRequest> FinishDraft(Draft draft, const ParseContext& context) {
  GenerateRequest& request = draft.request;
  CACHALOT_RETURN_IF_ERROR(SettleThinking(draft.thinking, context.format, request));
  SettleTools(std::move(draft.tools), request);
  std::vector<Message> messages = ArrangeSystems(std::move(draft.messages), context.format);
  EnsureUserTurn(messages);
  CACHALOT_RETURN_IF_ERROR(CheckEnd(messages, request));
  if (request.output == OutputFormat::kJsonObject && !MentionsJson(messages)) {
    const std::string_view field =
        request.surface == Surface::kResponses ? "text.format" : "response_format";
    return InvalidRequest(std::string(field),
                          StrCat("Prompt must contain the word 'json' in some form to use '", field,
                                 "' of type 'json_object'."));
  }
  messages[0].tools = request.tools;
  messages[0].response_format = std::move(draft.response_format);
  const bool empty = messages[0].content.empty() && messages[0].tools.empty() &&
                     !messages[0].response_format.has_value();
  if (empty) messages.erase(messages.begin());
  request.conversation.messages = std::move(messages);
  return std::move(request);
}

}  // namespace cachalot::api
