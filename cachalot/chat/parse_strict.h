// SPDX-License-Identifier: Apache-2.0
// A whole completion by the official grammar, refusing everything else. [chat.md 8.1]
#pragma once

#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/chat/assistant_message.h"
#include "cachalot/chat/format.h"

namespace cachalot::chat {

struct StrictOptions {
  Format format = Format::kV4Preview;
  bool thinking = false;  // the prompt ended with <think>
};

// kInvalidArgument with the byte offset. Values written with string="false" are passed on as they
// are, JSON or not: so does the official parser. Linear in the text.
Result<ParsedMessage> ParseStrict(std::string_view text, const StrictOptions& options);

}  // namespace cachalot::chat
