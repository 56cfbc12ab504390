// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/responses_items.h"

#include <set>
#include <string>

#include "cachalot/api/draft.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;
using chat::Message;
using chat::Role;

// The text of one part of content or output; what is no text becomes a note.
ApiResult<std::string> ReadPart(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Object part, Object::Of(json, path));
  CACHALOT_TRY(const std::string type, part.RequiredString("type"));
  if (type == "input_text" || type == "output_text" || type == "text") {
    return part.RequiredString("text", /*allow_empty=*/true);
  }
  if (type == "refusal") return part.RequiredString("refusal", /*allow_empty=*/true);
  return StrCat("[Unsupported ", type.substr(0, 64), "]");
}

// A string or a list of parts; none if missing.
ApiResult<std::vector<std::string>> ReadParts(const Object& item, std::string_view key) {
  const JsonValue* json = item.Find(key);
  std::vector<std::string> texts;
  if (json == nullptr) return texts;
  const std::string path = item.PathOf(key);
  if (json->IsString()) return std::vector<std::string>{json->text};
  if (!json->IsArray()) return WrongKind(path, *json, "a string or a list of parts");
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(std::string text, ReadPart(json->items[i], ItemPath(path, i)));
    texts.push_back(std::move(text));
  }
  return texts;
}

// Puts items together to messages.
class Builder {
 public:
  ApiStatus Add(const JsonValue& json, const std::string& path) {
    CACHALOT_TRY(const Object item, Object::Of(json, path));
    CACHALOT_TRY(const std::optional<std::string> given, item.String("type"));
    const std::string type = given.value_or("message");
    if (type == "message") return AddMessage(item);
    if (type == "reasoning") return AddReasoning(item);
    if (type == "function_call" || type == "custom_tool_call") {
      return AddCall(item, type == "custom_tool_call");
    }
    if (type == "function_call_output" || type == "custom_tool_call_output") {
      return AddOutput(item);
    }
    return {};  // items of hosted tools, and what we do not know
  }

  ApiResult<std::vector<Message>> Finish() && {
    for (const std::string& id : called_) {
      if (answered_.contains(id)) continue;
      return InvalidRequest("input", StrCat("No tool output found for tool call ", id, "."));
    }
    return std::move(messages_);
  }

 private:
  // Neighboring items of the assistant's are one message.
  Message& Assistant() {
    if (messages_.empty() || messages_.back().role != Role::kAssistant) {
      messages_.push_back(chat::AssistantMessage(""));
    }
    return messages_.back();
  }

  ApiStatus AddMessage(const Object& item) {
    CACHALOT_TRY(const std::string role, item.RequiredString("role"));
    if (item.Find("content") == nullptr) return MissingField(item.PathOf("content"));
    CACHALOT_TRY(const std::vector<std::string> texts, ReadParts(item, "content"));
    if (role == "user") {
      Message& message = messages_.emplace_back();
      for (const std::string& text : texts) message.blocks.push_back({.text = text});
      return {};
    }
    const bool system = role == "system" || role == "developer";
    if (!system && role != "assistant") {
      return UnknownName(item.PathOf("role"), role, "user, assistant, system, developer");
    }
    if (system) messages_.push_back(chat::SystemMessage(""));
    Message& message = system ? messages_.back() : Assistant();
    for (const std::string& text : texts) AppendParagraph(text, message.content);
    return {};
  }

  ApiStatus AddReasoning(const Object& item) {
    CACHALOT_TRY(const std::vector<std::string> texts, ReadReasoning(item));
    for (const std::string& text : texts) {
      std::string& reasoning = Assistant().reasoning_content;
      if (!reasoning.empty()) reasoning += '\n';
      reasoning += text;
    }
    return {};
  }

  // Summaries and encrypted content are not the model's own words.
  static ApiResult<std::vector<std::string>> ReadReasoning(const Object& item) {
    std::vector<std::string> texts;
    CACHALOT_TRY(const auto parts, item.List("content"));
    for (size_t i = 0; i < parts.size(); ++i) {
      CACHALOT_TRY(const Object part, Object::Of(parts[i], ItemPath(item.PathOf("content"), i)));
      CACHALOT_TRY(const std::optional<std::string> type, part.String("type"));
      CACHALOT_TRY(const std::optional<std::string> text, part.String("text"));
      if (type == "reasoning_text" && text.has_value()) texts.push_back(*text);
    }
    return texts;
  }

  ApiStatus AddCall(const Object& item, bool custom) {
    chat::ToolCall call;
    CACHALOT_TRY(call.id, item.RequiredString("call_id"));
    CACHALOT_TRY(call.name, item.RequiredString("name"));
    CACHALOT_TRY(const std::optional<std::string> space, item.String("namespace"));
    if (!space.value_or("").empty()) call.name = StrCat(*space, "::", call.name);
    CACHALOT_TRY(call.arguments, item.RequiredString(custom ? "input" : "arguments",
                                                     /*allow_empty=*/true));
    if (custom) call.arguments = StrCat("{\"input\": ", chat::JsonString(call.arguments), "}");
    if (!called_.insert(call.id).second) return DuplicateId(item, call.id);
    Assistant().tool_calls.push_back(std::move(call));
    return {};
  }

  ApiStatus AddOutput(const Object& item) {
    Message message{.role = Role::kTool};
    CACHALOT_TRY(message.tool_call_id, item.RequiredString("call_id"));
    if (item.Find("output") == nullptr) return MissingField(item.PathOf("output"));
    CACHALOT_TRY(const std::vector<std::string> texts, ReadParts(item, "output"));
    for (const std::string& text : texts) AppendParagraph(text, message.content);
    if (!called_.contains(message.tool_call_id)) {
      return InvalidRequest(item.path(), StrCat("No tool call found for tool output with call_id ",
                                                message.tool_call_id, "."));
    }
    if (!answered_.insert(message.tool_call_id).second) {
      return DuplicateId(item, message.tool_call_id);
    }
    messages_.push_back(std::move(message));
    return {};
  }

  static ApiError DuplicateId(const Object& item, const std::string& id) {
    return InvalidRequest(item.PathOf("call_id"), StrCat("Duplicate 'call_id': ", id, "."));
  }

  std::vector<Message> messages_;
  std::set<std::string> called_;
  std::set<std::string> answered_;
};

}  // namespace

ApiResult<std::vector<Message>> ReadResponsesInput(const Object& body) {
  const JsonValue* input = body.Find("input");
  if (input == nullptr) return std::vector<Message>();
  if (input->IsString()) return std::vector<Message>{chat::UserMessage(input->text)};
  if (!input->IsArray()) return WrongKind("input", *input, "a string or a list of items");
  Builder builder;
  for (size_t i = 0; i < input->items.size(); ++i) {
    CACHALOT_RETURN_IF_ERROR(builder.Add(input->items[i], ItemPath("input", i)));
  }
  return std::move(builder).Finish();
}

}  // namespace cachalot::api
