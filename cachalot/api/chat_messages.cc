// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/chat_messages.h"

#include <set>
#include <string>

#include "cachalot/api/draft.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::api {
namespace {

using chat::ContentBlock;
using chat::JsonValue;
using chat::Message;
using chat::Role;

ApiResult<Role> ReadRole(const Object& message) {
  CACHALOT_TRY(const std::string name, message.RequiredString("role"));
  if (name == "system" || name == "developer") return Role::kSystem;
  if (name == "user") return Role::kUser;
  if (name == "assistant") return Role::kAssistant;
  if (name == "tool") return Role::kTool;
  if (name == "latest_reminder") return Role::kLatestReminder;
  return UnknownName(message.PathOf("role"), name, "system, user, assistant, tool");
}

// A part's text. Images have no place here: the engine reads token ids only.
ApiResult<std::string> ReadPart(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Object part, Object::Of(json, path));
  CACHALOT_TRY(const std::string type, part.RequiredString("type"));
  if (type == "text") return part.RequiredString("text", /*allow_empty=*/true);
  if (type == "refusal") return part.RequiredString("refusal", /*allow_empty=*/true);
  return InvalidRequest(path, StrCat(path, ": a part of type ", chat::Quoted(type),
                                     " is not supported, expected text"));
}

// A string or a list of parts; nullopt if neither is there.
ApiResult<std::optional<std::vector<std::string>>> ReadContent(const Object& message) {
  using Texts = std::vector<std::string>;
  const JsonValue* content = message.Find("content");
  if (content == nullptr) return std::optional<Texts>();
  if (content->IsString()) return std::optional<Texts>(Texts{content->text});
  const std::string path = message.PathOf("content");
  if (!content->IsArray()) return WrongKind(path, *content, "a string or a list of parts");
  Texts texts;
  for (size_t i = 0; i < content->items.size(); ++i) {
    CACHALOT_TRY(std::string text, ReadPart(content->items[i], ItemPath(path, i)));
    texts.push_back(std::move(text));
  }
  return std::optional<Texts>(std::move(texts));
}

// An object is what a client that forgot to serialize sends.
ApiResult<std::string> ReadArguments(const Object& function) {
  const JsonValue* json = function.Find("arguments");
  if (json == nullptr) return std::string("{}");
  if (json->IsString()) return json->text;
  if (json->IsObject()) return chat::DumpPythonJson(*json);
  return WrongKind(function.PathOf("arguments"), *json, "a string of JSON");
}

ApiResult<chat::ToolCall> ReadCall(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Object object, Object::Of(json, path));
  chat::ToolCall call;
  CACHALOT_TRY(call.id, object.RequiredString("id"));
  CACHALOT_TRY(const std::optional<std::string> type, object.String("type"));
  if (type.value_or("function") != "function") {
    return UnknownName(object.PathOf("type"), *type, "function");
  }
  CACHALOT_TRY(const std::optional<Object> function, object.Child("function"));
  if (!function.has_value()) return MissingField(object.PathOf("function"));
  CACHALOT_TRY(call.name, function->RequiredString("name"));
  CACHALOT_TRY(const std::optional<std::string> space, function->String("namespace"));
  if (!space.value_or("").empty()) call.name = StrCat(*space, "::", call.name);
  CACHALOT_TRY(call.arguments, ReadArguments(*function));
  return call;
}

ApiStatus ReadCalls(const Object& object, Message& message) {
  const JsonValue* json = object.Find("tool_calls");
  if (json == nullptr) return {};
  const std::string path = object.PathOf("tool_calls");
  CACHALOT_TRY(const auto list, object.List("tool_calls"));
  if (list.empty()) {
    return InvalidRequest(path, StrCat("Invalid assistant message: ", path, " is an empty list"));
  }
  std::set<std::string> ids;
  for (size_t i = 0; i < list.size(); ++i) {
    CACHALOT_TRY(chat::ToolCall call, ReadCall(list[i], ItemPath(path, i)));
    if (!ids.insert(call.id).second) {
      return InvalidRequest(
          path, StrCat("Duplicate value for 'tool_call_id' of ", call.id, " in ", object.path()));
    }
    message.tool_calls.push_back(std::move(call));
  }
  return {};
}

// `has_content`: also "" is content.
ApiStatus ReadAssistant(const Object& object, bool has_content, Message& message) {
  CACHALOT_RETURN_IF_ERROR(ReadCalls(object, message));
  // DeepSeek's name, else vLLM's. [api.md 4.6]
  CACHALOT_TRY(std::optional<std::string> other, object.String("reasoning"));
  CACHALOT_TRY(std::optional<std::string> reasoning, object.String("reasoning_content"));
  if (!reasoning.has_value()) reasoning = std::move(other);
  message.reasoning_content = std::move(reasoning).value_or("");
  CACHALOT_TRY(message.wo_eos, object.Bool("prefix", false));
  if (!has_content && message.tool_calls.empty()) {
    return InvalidRequest(object.PathOf("content"),
                          StrCat("Invalid assistant message: content or tool_calls must be set (",
                                 object.path(), ")"));
  }
  return {};
}

ApiResult<Message> ReadMessage(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Object object, Object::Of(json, path));
  Message message;
  CACHALOT_TRY(message.role, ReadRole(object));
  CACHALOT_TRY(const auto content, ReadContent(object));
  const bool optional_content = message.role == Role::kAssistant || message.role == Role::kTool;
  if (!content.has_value() && !optional_content) return MissingField(object.PathOf("content"));
  const std::vector<std::string> texts = content.value_or(std::vector<std::string>());
  for (const std::string& text : texts) {
    if (message.role == Role::kUser) {
      message.blocks.push_back({.text = text});
    } else {
      AppendParagraph(text, message.content);
    }
  }
  if (message.role == Role::kAssistant) {
    CACHALOT_RETURN_IF_ERROR(ReadAssistant(object, content.has_value(), message));
  }
  if (message.role == Role::kTool) {
    CACHALOT_TRY(message.tool_call_id, object.RequiredString("tool_call_id"));
  }
  return message;
}

ApiError InsufficientResults(const std::string& path) {
  return InvalidRequest(
      path,
      "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
      "'tool_call_id'. (insufficient tool messages following tool_calls message)");
}

// Each call is answered once, directly after the message that makes it. [api.md 4.2]
class Pairing {
 public:
  ApiStatus Next(const Message& message, const std::string& path) {
    if (message.role == Role::kTool) return Answer(message.tool_call_id, path);
    CACHALOT_RETURN_IF_ERROR(End());
    asked_.clear();
    asked_at_ = path;
    for (const chat::ToolCall& call : message.tool_calls) asked_.insert(call.id);
    open_ = asked_;
    return {};
  }
  ApiStatus End() const {
    if (!open_.empty()) return InsufficientResults(asked_at_);
    return {};
  }

 private:
  ApiStatus Answer(const std::string& id, const std::string& path) {
    if (asked_.empty()) {
      return InvalidRequest(path,
                            "Messages with role 'tool' must be a response to a preceding message "
                            "with 'tool_calls'");
    }
    if (!asked_.contains(id)) {
      return InvalidRequest(path, StrCat("Unexpected tool_call_id: ", id, " in ", path));
    }
    if (open_.erase(id) == 0) {
      return InvalidRequest(path,
                            StrCat("Duplicate value for 'tool_call_id' of ", id, " in ", path));
    }
    return {};
  }

  std::set<std::string> asked_;
  std::set<std::string> open_;
  std::string asked_at_;
};

}  // namespace

ApiResult<std::vector<Message>> ReadChatMessages(const Object& body) {
  if (body.Find("messages") == nullptr) return MissingField("messages");
  CACHALOT_TRY(const auto list, body.List("messages"));
  if (list.empty()) return InvalidRequest("messages", "Empty input messages");
  std::vector<Message> messages;
  Pairing pairing;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = ItemPath("messages", i);
    CACHALOT_TRY(Message message, ReadMessage(list[i], path));
    CACHALOT_RETURN_IF_ERROR(pairing.Next(message, path));
    if (message.wo_eos && i + 1 < list.size()) {
      return InvalidRequest(path + ".prefix",
                            StrCat(path, ".prefix: only the last message can be a prefix"));
    }
    messages.push_back(std::move(message));
  }
  CACHALOT_RETURN_IF_ERROR(pairing.End());
  return messages;
}

}  // namespace cachalot::api
