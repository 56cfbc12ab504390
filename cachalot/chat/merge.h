// SPDX-License-Identifier: Apache-2.0
// The steps before rendering: merge, sort, drop. [chat.md 4.1-4.3]
#pragma once

#include <cstddef>
#include <vector>

#include "cachalot/chat/messages.h"

namespace cachalot::chat {

// Messages ready to be rendered: no tool role is left, every user message has blocks.
struct PreparedMessages {
  std::vector<Message> messages;
  size_t num_context = 0;      // the first ones, already encoded
  int last_user_idx = -1;      // the last message that counts as the user's
  bool drops_thinking = true;  // old reasoning is left out
};

PreparedMessages PrepareMessages(const Conversation& conversation, const EncodeOptions& options);

// True for the messages that open a turn of the model: user, developer and, in V4.1, a system
// message that is not the first message.
bool CountsAsUser(const Message& message, size_t index, Format format);

}  // namespace cachalot::chat
