// SPDX-License-Identifier: Apache-2.0
// Conversations as values, and how they are read from JSON. [chat.md 4]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/chat/format.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::chat {

enum class Role : uint8_t { kSystem, kDeveloper, kUser, kAssistant, kTool, kLatestReminder };
std::string_view RoleName(Role role);

// Quick-instruction tasks. [chat.md 4.10]
enum class Task : uint8_t { kNone, kAction, kQuery, kAuthority, kDomain, kTitle, kReadUrl };

// One part of a user message. Other types than text and tool_result are kept by name: they render
// as a note, or as an image in V4.1.
struct ContentBlock {
  std::string type = "text";
  std::string text;         // text: the text; tool_result: the result, parts already joined
  std::string tool_use_id;  // tool_result: the call it answers; may be empty
};

struct ToolCall {
  std::string id;         // may be empty
  std::string name;       // V4.1: "namespace::name" if the call has a namespace
  std::string arguments;  // JSON text, or whatever text the client kept
};

struct Message {
  Role role = Role::kUser;
  std::string content;               // user: see blocks
  std::vector<ContentBlock> blocks;  // user only
  std::string reasoning_content;     // assistant only
  std::vector<ToolCall> tool_calls;  // assistant only
  std::string calls_text;            // assistant only: tool_calls as the model wrote them, or ""
  std::string tool_call_id;          // tool only; may be empty
  std::vector<JsonValue> tools;      // the `function` objects, as the client wrote them
  std::optional<JsonValue> response_format;
  Task task = Task::kNone;
  bool wo_eos = false;  // assistant: do not end the turn (prefix completion)
};

Message SystemMessage(std::string text);
Message UserMessage(std::string text);
Message AssistantMessage(std::string text, std::string reasoning = {});

enum class ThinkingMode : uint8_t { kChat, kThinking };

// A number (V4.1: 1..100) or a name; which ones are known depends on the format.
struct ReasoningEffort {
  std::string name;  // empty: `level` counts
  int64_t level = 0;
};

struct EncodeOptions {
  Format format = Format::kV4Preview;
  ThinkingMode thinking_mode = ThinkingMode::kThinking;
  bool drop_thinking = true;  // forget the reasoning of turns before the last user message
  bool add_default_bos_token = true;
  std::optional<ReasoningEffort> reasoning_effort;  // nullopt: the format's own (chat.md 1)
};

struct Conversation {
  std::vector<Message> messages;
  // Already encoded messages: looked back at, not rendered again; no BOS is written after them.
  std::vector<Message> context;
};

// What `cachalot render` reads: an object with `messages` and options, or a bare list of messages.
struct RenderRequest {
  Conversation conversation;
  EncodeOptions options;  // `format` is for the caller to set
};

// All errors are kInvalidArgument and name the field: "messages[3].tool_calls[0].function.name".
Result<std::vector<Message>> MessagesFromJson(const JsonValue& json, const std::string& path);
// `name` (of a file) starts the messages about syntax. Top-level `tools` and `response_format` go
// to the first system message, an empty one being inserted in front if there is none.
Result<RenderRequest> RenderRequestFromJson(std::string_view text, std::string_view name);

// The `function` objects of an OpenAI-style `tools` list. An entry of type "namespace" (V4.1)
// contributes its `tools` as "namespace::name", its description in front of theirs. [chat.md 6]
Result<std::vector<JsonValue>> ToolFunctionsFromJson(const JsonValue& json,
                                                     const std::string& path);

}  // namespace cachalot::chat
