// SPDX-License-Identifier: Apache-2.0
// A conversation as `chat` and `run --chat` keep it: messages to a prompt, an answer to its parts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::cli {

struct ConversationMessage {
  std::string role;  // system, user, assistant
  std::string content;
  std::string reasoning;  // assistant only
};

struct Conversation {
  std::string think = "off";  // off, low, high, max
  std::vector<ConversationMessage> messages;
};

// The prompt for the next answer, in the format generation of the model at `dir`.
Result<std::string> RenderConversation(const Conversation& conversation, const std::string& dir);

// The file of /save and /load: what `cachalot render` reads.
std::string ConversationToJson(const Conversation& conversation);
Result<Conversation> ConversationFromJson(std::string_view text, std::string_view name);

// A piece of an answer; either part may be empty.
struct AnswerPiece {
  std::string reasoning;
  std::string content;
};

// Divides a streamed answer into reasoning and content at </think>. Without thinking everything is
// content.
class AnswerSplitter {
 public:
  explicit AnswerSplitter(bool thinking) : in_reasoning_(thinking) {}
  AnswerPiece Push(std::string_view piece);
  AnswerPiece Finish();

 private:
  bool in_reasoning_;
  std::string held_;  // may become the end mark
};

}  // namespace cachalot::cli
