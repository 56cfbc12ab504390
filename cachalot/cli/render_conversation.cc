// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/encode.h"
#include "cachalot/cli/chat_turn.h"

namespace cachalot::cli {
namespace {

chat::Message ToMessage(const ConversationMessage& message) {
  if (message.role == "system") return chat::SystemMessage(message.content);
  if (message.role == "assistant") {
    return chat::AssistantMessage(message.content, message.reasoning);
  }
  return chat::UserMessage(message.content);
}

}  // namespace

Result<std::string> RenderConversation(const Conversation& conversation, const std::string& dir) {
  chat::EncodeOptions options;
  CACHALOT_TRY(options.format, chat::DetectFormatOfDir(dir));
  if (conversation.think == "off") {
    options.thinking_mode = chat::ThinkingMode::kChat;
  } else if (conversation.think != "low" || options.format != chat::Format::kV4Preview) {
    // The preview has no "low": thinking without an effort text is its least.
    options.reasoning_effort = chat::ReasoningEffort{.name = conversation.think, .level = 0};
  }
  chat::Conversation rendered;
  for (const ConversationMessage& m : conversation.messages) {
    rendered.messages.push_back(ToMessage(m));
  }
  return chat::EncodePrompt(rendered, options);
}

}  // namespace cachalot::cli
