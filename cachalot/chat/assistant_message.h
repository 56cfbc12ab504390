// SPDX-License-Identifier: Apache-2.0
// What a completion said, as the parsers return it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cachalot/chat/format.h"

namespace cachalot::chat {

struct ParsedCall {
  std::string name_space;  // V4.1 "ns::name"; else empty
  std::string name;
  std::string arguments;  // JSON text; the beginning of one if the call is not `complete`
  bool complete = false;
};

struct ParsedMessage {
  std::string reasoning_content;
  std::string content;
  std::vector<ParsedCall> tool_calls;
};

// Splits "ns::name" where the format has namespaces.
void SetCallName(std::string_view full_name, Format format, ParsedCall& call);

// One line of JSON: role, content, reasoning_content and tool_calls, always all four. Bytes that
// are no UTF-8 become U+FFFD.
std::string MessageToJson(const ParsedMessage& message);

// `text` as a JSON string of valid UTF-8, whatever its bytes.
std::string SafeJsonString(const std::string& text);

}  // namespace cachalot::chat
