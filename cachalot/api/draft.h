// SPDX-License-Identifier: Apache-2.0
// A request while it is read, and the rules all chat-like protocols share. Internal to the module.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/api/request.h"

namespace cachalot::api {

// What a request said about thinking; the first to say something wins. [api.md 4.3]
struct ThinkingWish {
  std::optional<bool> on;
  bool binding = false;          // said so that it cannot be given up for a forced tool call
  std::string effort;            // a name of the API, "" if none
  std::optional<int64_t> level;  // V4.1: a number

  void Say(bool value, bool is_binding) {
    if (on.has_value()) return;
    on = value;
    binding = is_binding;
  }
};

struct ToolDraft {
  chat::JsonValue function;  // name, description, parameters
  std::string name;
  bool strict = false;
  bool custom = false;
};

struct Draft {
  GenerateRequest request;
  std::vector<chat::Message> messages;  // pairing of calls and results already checked
  std::vector<ToolDraft> tools;
  std::optional<chat::JsonValue> response_format;  // what the prompt shows
  ThinkingWish thinking;
};

// Settles thinking, tools and the order of messages, checks that JSON mode was announced, and moves
// everything to where chat::EncodePrompt wants it.
ApiResult<GenerateRequest> FinishDraft(Draft draft, const ParseContext& context);

// Texts put side by side in one message. [chat.md 7]
void AppendParagraph(std::string_view text, std::string& out);

}  // namespace cachalot::api
