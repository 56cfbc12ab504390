// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/chat_turn.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"

namespace cachalot::cli {
namespace {

constexpr std::string_view kThinkEnd = "</think>";

Result<ConversationMessage> MessageFromJson(const Json& json, size_t index, std::string_view name) {
  const auto wrong = [&](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, StrCat(name, ": message ", index, ": ", what)};
  };
  const auto text = [&json](const char* key) {
    const auto field = json.find(key);
    return field != json.end() && field->is_string() ? field->get<std::string>() : std::string();
  };
  if (!json.is_object()) return wrong("expected an object");
  ConversationMessage message{text("role"), text("content"), text("reasoning_content")};
  if (message.role != "system" && message.role != "user" && message.role != "assistant") {
    return wrong(StrCat("role is '", message.role, "', expected system, user or assistant"));
  }
  if (json.contains("tool_calls") || (json.contains("content") && !json["content"].is_string())) {
    return wrong("only plain text is read here; expected a string as content and no tool_calls");
  }
  return message;
}

std::string_view LevelOf(const Json& json) {
  const auto mode = json.find("thinking_mode");
  if (mode == json.end() || *mode != "thinking") return "off";
  const auto effort = json.find("reasoning_effort");
  if (effort != json.end() && *effort == "max") return "max";
  return effort != json.end() && *effort == "high" ? "high" : "low";
}

}  // namespace

std::string ConversationToJson(const Conversation& conversation) {
  Json messages = Json::array();
  for (const ConversationMessage& m : conversation.messages) {
    Json message = {{"role", m.role}, {"content", m.content}};
    if (!m.reasoning.empty()) message["reasoning_content"] = m.reasoning;
    messages.push_back(std::move(message));
  }
  Json json = {{"messages", std::move(messages)}};
  json["thinking_mode"] = conversation.think == "off" ? "chat" : "thinking";
  if (conversation.think != "off") json["reasoning_effort"] = conversation.think;
  // Half a character at the end of a stopped answer is no UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Conversation> ConversationFromJson(std::string_view text, std::string_view name) {
  CACHALOT_TRY(const Json json, ParseJson(text, name));
  const Json* messages = &json;
  Conversation conversation;
  if (json.is_object() && json.contains("messages")) {
    messages = &json["messages"];
    conversation.think = std::string(LevelOf(json));
  }
  if (!messages->is_array()) {
    return Error{ErrorCode::kInvalidArgument, StrCat(name, ": expected {\"messages\": [...]}")};
  }
  for (const Json& element : *messages) {
    CACHALOT_TRY(auto message, MessageFromJson(element, conversation.messages.size(), name));
    conversation.messages.push_back(std::move(message));
  }
  return conversation;
}

AnswerPiece AnswerSplitter::Push(std::string_view piece) {
  if (!in_reasoning_) return {.reasoning = {}, .content = std::string(piece)};
  held_ += piece;
  const size_t end = held_.find(kThinkEnd);
  if (end != std::string::npos) {
    in_reasoning_ = false;
    AnswerPiece out{held_.substr(0, end), held_.substr(end + kThinkEnd.size())};
    held_.clear();
    return out;
  }
  size_t keep = std::min(held_.size(), kThinkEnd.size() - 1);
  while (keep > 0 && !held_.ends_with(kThinkEnd.substr(0, keep))) --keep;
  AnswerPiece out{held_.substr(0, held_.size() - keep), {}};
  held_.erase(0, held_.size() - keep);
  return out;
}

AnswerPiece AnswerSplitter::Finish() { return {std::exchange(held_, {}), {}}; }

}  // namespace cachalot::cli
