// SPDX-License-Identifier: Apache-2.0
// The fixed texts of the prompt format, exact to the byte. [chat.md 4.4, 4.7, 4.9, 6]
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/chat/messages.h"

namespace cachalot::chat {

// The line(s) before the system text, "" if there are none. In chat mode always "", but the effort
// is still checked.
Result<std::string> EffortText(const EncodeOptions& options);

// "## Tools ...", ending with a line feed.
std::string ToolsText(const std::vector<JsonValue>& functions, Format format);

std::string ResponseFormatText(const JsonValue& schema);

// "\n\n<..tool_calls>...</..tool_calls>"
std::string ToolCallsText(const std::vector<ToolCall>& calls, Format format);

// The marker of a task other than kNone.
std::string_view TaskMarker(Task task);

}  // namespace cachalot::chat
