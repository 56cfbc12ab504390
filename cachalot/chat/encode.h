// SPDX-License-Identifier: Apache-2.0
// Messages to the prompt of a DeepSeek-V4 model, byte for byte as the released encoder. [chat.md 4]
#pragma once

#include <string>

#include "cachalot/base/error.h"
#include "cachalot/chat/messages.h"

namespace cachalot::chat {

// The prompt, BOS included: tokenize it with special tokens parsed and no BOS added. Nothing in the
// messages is trimmed or escaped, so text that spells a marker becomes that marker [chat.md 2.5].
// kInvalidArgument for an effort the format does not know, a developer message in V4.1, an image
// marker in V4.1 user text. Linear in the text.
Result<std::string> EncodePrompt(const Conversation& conversation, const EncodeOptions& options);

// True if an answer to this prompt begins inside <think>: what ParserOptions::thinking wants.
bool PromptOpensThinking(std::string_view prompt);

}  // namespace cachalot::chat
