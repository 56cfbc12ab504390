// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/assistant_message.h"

#include "cachalot/base/strings.h"
#include "cachalot/chat/python_json.h"
#include "cachalot/tokenizer/stream_decoder.h"

namespace cachalot::chat {
namespace {

std::string CallToJson(const ParsedCall& call) {
  std::string out = "{\"type\": \"function\", \"function\": {";
  if (!call.name_space.empty()) {
    out += StrCat("\"namespace\": ", SafeJsonString(call.name_space), ", ");
  }
  return StrCat(out, "\"name\": ", SafeJsonString(call.name),
                ", \"arguments\": ", SafeJsonString(call.arguments), "}}");
}

}  // namespace

void SetCallName(std::string_view full_name, Format format, ParsedCall& call) {
  const size_t at = format == Format::kV4_1 ? full_name.find("::") : std::string_view::npos;
  call.name_space = at == std::string_view::npos ? "" : full_name.substr(0, at);
  call.name = at == std::string_view::npos ? full_name : full_name.substr(at + 2);
}

std::string SafeJsonString(const std::string& text) {
  tokenizer::Utf8Stream utf8;
  const std::string valid = utf8.Push(text);
  return JsonString(valid + utf8.Finish());
}

std::string MessageToJson(const ParsedMessage& message) {
  std::string calls;
  for (const ParsedCall& call : message.tool_calls) {
    calls += StrCat(calls.empty() ? "" : ", ", CallToJson(call));
  }
  return StrCat("{\"role\": \"assistant\", \"content\": ", SafeJsonString(message.content),
                ", \"reasoning_content\": ", SafeJsonString(message.reasoning_content),
                ", \"tool_calls\": [", calls, "]}");
}

}  // namespace cachalot::chat
