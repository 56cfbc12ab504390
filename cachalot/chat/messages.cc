// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/messages.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "latest_reminder"};
constexpr std::array<std::string_view, 7> kTasks = {"",       "action", "query",   "authority",
                                                    "domain", "title",  "read_url"};

std::string At(const std::string& path, size_t index) { return StrCat(path, "[", index, "]"); }

// Index of `name` in a table of names; kInvalidArgument lists them.
template <size_t N>
Result<size_t> Lookup(const std::array<std::string_view, N>& names, std::string_view name,
                      std::string_view path) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  std::string known;
  for (const std::string_view n : names) {
    if (!n.empty()) known += StrCat(known.empty() ? "" : ", ", n);
  }
  return Error{ErrorCode::kInvalidArgument,
               StrCat(path, ": ", Quoted(name), " is unknown, expected one of ", known)};
}

Result<ContentBlock> BlockFromJson(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Fields fields, Fields::Of(json, path));
  ContentBlock block;
  CACHALOT_TRY(block.type, fields.RequiredString("type"));
  if (block.type == "text") {
    CACHALOT_TRY(block.text, fields.OptionalString("text"));
  }
  return block;
}

Result<std::vector<ContentBlock>> BlocksFromJson(const JsonValue& json, const std::string& path);

std::string JoinParts(const std::vector<ContentBlock>& parts) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += "\n\n";
    out += parts[i].type == "text" ? parts[i].text : StrCat("[Unsupported ", parts[i].type, "]");
  }
  return out;
}

// A list of parts as one text. [chat.md 4.5]
Result<std::string> TextFromJson(const JsonValue* json, const std::string& path) {
  if (json == nullptr) return std::string();
  if (json->IsString()) return json->text;
  CACHALOT_TRY(const auto parts, BlocksFromJson(*json, path));
  return JoinParts(parts);
}

Result<ContentBlock> UserBlockFromJson(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(ContentBlock block, BlockFromJson(json, path));
  if (block.type != "tool_result") return block;
  CACHALOT_TRY(const Fields fields, Fields::Of(json, path));
  CACHALOT_TRY(block.tool_use_id, fields.OptionalString("tool_use_id"));
  CACHALOT_TRY(block.text, TextFromJson(fields.Find("content"), fields.PathOf("content")));
  return block;
}

Result<std::vector<ContentBlock>> BlocksFromJson(const JsonValue& json, const std::string& path) {
  if (!json.IsArray()) return FieldError(path, json, "a string, a list of parts or null");
  std::vector<ContentBlock> blocks;
  for (size_t i = 0; i < json.items.size(); ++i) {
    CACHALOT_TRY(ContentBlock block, BlockFromJson(json.items[i], At(path, i)));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

Result<std::vector<ContentBlock>> UserBlocks(const JsonValue* json, const std::string& path) {
  std::vector<ContentBlock> blocks;
  if (json == nullptr || json->IsString()) {
    blocks.push_back({.text = json == nullptr ? std::string() : json->text});
    return blocks;
  }
  if (!json->IsArray()) return FieldError(path, *json, "a string, a list of parts or null");
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(ContentBlock block, UserBlockFromJson(json->items[i], At(path, i)));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

// An object is what a client that forgot to serialize sends: it counts as its own JSON text.
Result<std::string> ArgumentsFromJson(const JsonValue* json, const std::string& path) {
  if (json == nullptr) return std::string("{}");
  if (json->IsString()) return json->text;
  if (!json->IsObject()) return FieldError(path, *json, "a string of JSON, or an object");
  return DumpPythonJson(*json);
}

Result<ToolCall> ToolCallFromJson(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Fields fields, Fields::Of(json, path));
  const std::string function_path = fields.PathOf("function");
  const JsonValue* function = fields.Find("function");
  if (function == nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(function_path, ": missing, expected an object")};
  }
  CACHALOT_TRY(const Fields inner, Fields::Of(*function, function_path));
  ToolCall call;
  CACHALOT_TRY(call.id, fields.OptionalString("id"));
  if (call.id.empty()) {
    CACHALOT_TRY(call.id, inner.OptionalString("id"));
  }
  CACHALOT_TRY(call.name, inner.RequiredString("name"));
  CACHALOT_TRY(const std::string name_space, inner.OptionalString("namespace"));
  if (!name_space.empty()) call.name = StrCat(name_space, "::", call.name);
  CACHALOT_TRY(call.arguments,
               ArgumentsFromJson(inner.Find("arguments"), inner.PathOf("arguments")));
  return call;
}

Status ReadToolCalls(const Fields& fields, Message& message) {
  const JsonValue* json = fields.Find("tool_calls");
  if (json == nullptr) return {};
  const std::string path = fields.PathOf("tool_calls");
  if (!json->IsArray()) return FieldError(path, *json, "a list");
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(ToolCall call, ToolCallFromJson(json->items[i], At(path, i)));
    message.tool_calls.push_back(std::move(call));
  }
  return {};
}

// `tools` and `response_format` of a message or of a whole request.
Status ReadAppendices(const Fields& fields, Message& message) {
  if (const JsonValue* tools = fields.Find("tools"); tools != nullptr) {
    CACHALOT_TRY(message.tools, ToolFunctionsFromJson(*tools, fields.PathOf("tools")));
  }
  if (const JsonValue* schema = fields.Find("response_format"); schema != nullptr) {
    message.response_format = *schema;
  }
  return {};
}

Status ReadContent(const Fields& fields, Message& message) {
  const JsonValue* content = fields.Find("content");
  const std::string path = fields.PathOf("content");
  if (message.role == Role::kUser) {
    CACHALOT_TRY(message.blocks, UserBlocks(content, path));
  } else {
    CACHALOT_TRY(message.content, TextFromJson(content, path));
  }
  if (message.role == Role::kDeveloper && message.content.empty()) {
    return Error{ErrorCode::kInvalidArgument, StrCat(path, ": a developer message needs content")};
  }
  return {};
}

Result<Message> MessageFromJson(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Fields fields, Fields::Of(json, path));
  Message message;
  CACHALOT_TRY(const std::string role, fields.RequiredString("role"));
  CACHALOT_TRY(const size_t role_idx, Lookup(kRoles, role, fields.PathOf("role")));
  message.role = static_cast<Role>(role_idx);
  CACHALOT_RETURN_IF_ERROR(ReadContent(fields, message));
  if (message.role == Role::kAssistant) {
    CACHALOT_TRY(message.reasoning_content, fields.OptionalString("reasoning_content"));
    CACHALOT_RETURN_IF_ERROR(ReadToolCalls(fields, message));
  }
  CACHALOT_TRY(message.tool_call_id, fields.OptionalString("tool_call_id"));
  CACHALOT_RETURN_IF_ERROR(ReadAppendices(fields, message));
  CACHALOT_TRY(const std::string task, fields.OptionalString("task"));
  CACHALOT_TRY(const size_t task_idx, Lookup(kTasks, task, fields.PathOf("task")));
  message.task = static_cast<Task>(task_idx);
  CACHALOT_TRY(message.wo_eos, fields.Bool("wo_eos", false));
  return message;
}

// `prefix: true` of the public API is the encoder's wo_eos, on the last message only.
// [chat.md 4.11]
Status ApplyPrefix(const JsonValue& json, const std::string& path, std::vector<Message>& messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string at = At(path, i);
    CACHALOT_TRY(const Fields fields, Fields::Of(json.items[i], at));
    CACHALOT_TRY(const bool prefix, fields.Bool("prefix", false));
    if (!prefix) continue;
    if (i + 1 != messages.size() || messages[i].role != Role::kAssistant) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat(at, ".prefix: only the last message, an assistant's, can be a prefix")};
    }
    messages[i].wo_eos = true;
  }
  return {};
}

Status ReadEffort(const Fields& fields, EncodeOptions& options) {
  const JsonValue* json = fields.Find("reasoning_effort");
  if (json == nullptr) return {};
  ReasoningEffort effort;
  if (json->IsString()) {
    effort.name = json->text;
  } else {
    const char* end = json->text.data() + json->text.size();
    const auto parsed = std::from_chars(json->text.data(), end, effort.level);
    if (json->kind != JsonValue::Kind::kNumber || parsed.ec != std::errc() || parsed.ptr != end) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat("reasoning_effort: is ", DumpPythonJson(*json).substr(0, 64),
                          ", expected a name or an integer from 1 to 100")};
    }
  }
  options.reasoning_effort = std::move(effort);
  return {};
}

Status ReadOptions(const Fields& fields, EncodeOptions& options) {
  constexpr std::array<std::string_view, 2> kModes = {"chat", "thinking"};
  if (fields.Find("thinking_mode") != nullptr) {
    CACHALOT_TRY(const std::string mode, fields.OptionalString("thinking_mode"));
    CACHALOT_TRY(const size_t mode_idx, Lookup(kModes, mode, "thinking_mode"));
    options.thinking_mode = static_cast<ThinkingMode>(mode_idx);
  }
  CACHALOT_TRY(options.drop_thinking, fields.Bool("drop_thinking", true));
  CACHALOT_TRY(options.add_default_bos_token, fields.Bool("add_default_bos_token", true));
  return ReadEffort(fields, options);
}

// Moves the request's own tools and response_format onto the first system message.
Status PlaceAppendices(Message from, std::vector<Message>& messages) {
  if (from.tools.empty() && !from.response_format.has_value()) return {};
  auto system = std::find_if(messages.begin(), messages.end(),
                             [](const Message& m) { return m.role == Role::kSystem; });
  if (system == messages.end()) system = messages.insert(messages.begin(), SystemMessage(""));
  const auto twice = [](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(what, ": given at the top and on the system message; give it once")};
  };
  if (!from.tools.empty()) {
    if (!system->tools.empty()) return twice("tools");
    system->tools = std::move(from.tools);
  }
  if (from.response_format.has_value()) {
    if (system->response_format.has_value()) return twice("response_format");
    system->response_format = std::move(from.response_format);
  }
  return {};
}

Result<JsonValue> ToolFunction(const Fields& tool, const std::string& path) {
  const JsonValue* function = tool.Find("function");
  if (function == nullptr || !function->IsObject()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(path, ".function: missing, expected an object with name and parameters")};
  }
  const std::string function_path = StrCat(path, ".function");
  CACHALOT_TRY(const Fields inner, Fields::Of(*function, function_path));
  CACHALOT_TRY(const std::string name, inner.RequiredString("name"));
  return *function;
}

void SetString(JsonValue& object, std::string_view key, std::string text) {
  const auto at = std::find(object.keys.begin(), object.keys.end(), key);
  if (at == object.keys.end()) {
    object.keys.emplace_back(key);
    object.items.push_back({.kind = JsonValue::Kind::kString, .text = std::move(text)});
  } else {
    object.items[static_cast<size_t>(at - object.keys.begin())] = {.kind = JsonValue::Kind::kString,
                                                                   .text = std::move(text)};
  }
}

Status AddNamespace(const Fields& entry, const std::string& path, std::vector<JsonValue>& out) {
  CACHALOT_TRY(const std::string name, entry.RequiredString("name"));
  CACHALOT_TRY(const std::string description, entry.OptionalString("description"));
  const JsonValue* tools = entry.Find("tools");
  if (tools == nullptr || !tools->IsArray()) {
    return Error{ErrorCode::kInvalidArgument, StrCat(path, ".tools: missing, expected a list")};
  }
  for (size_t i = 0; i < tools->items.size(); ++i) {
    const std::string at = At(path + ".tools", i);
    CACHALOT_TRY(const Fields tool, Fields::Of(tools->items[i], at));
    CACHALOT_TRY(JsonValue function, ToolFunction(tool, at));
    SetString(function, "name", StrCat(name, "::", function.Find("name")->text));
    if (!description.empty()) {
      const JsonValue* own = function.Find("description");
      const std::string own_text = own != nullptr && own->IsString() ? own->text : std::string();
      SetString(function, "description", StrCat(description, "\n", own_text));
    }
    out.push_back(std::move(function));
  }
  return {};
}

}  // namespace

std::string_view RoleName(Role role) { return kRoles[static_cast<size_t>(role)]; }

Message SystemMessage(std::string text) {
  return {.role = Role::kSystem, .content = std::move(text)};
}

Message UserMessage(std::string text) {
  Message message{.role = Role::kUser};
  message.blocks.push_back({.text = std::move(text)});
  return message;
}

Message AssistantMessage(std::string text, std::string reasoning) {
  Message message{.role = Role::kAssistant, .content = std::move(text)};
  message.reasoning_content = std::move(reasoning);
  return message;
}

Result<std::vector<JsonValue>> ToolFunctionsFromJson(const JsonValue& json,
                                                     const std::string& path) {
  if (!json.IsArray()) return FieldError(path, json, "a list of tools");
  std::vector<JsonValue> functions;
  for (size_t i = 0; i < json.items.size(); ++i) {
    const std::string at = At(path, i);
    CACHALOT_TRY(const Fields entry, Fields::Of(json.items[i], at));
    CACHALOT_TRY(const std::string type, entry.OptionalString("type"));
    if (type == "namespace") {
      CACHALOT_RETURN_IF_ERROR(AddNamespace(entry, at, functions));
      continue;
    }
    CACHALOT_TRY(JsonValue function, ToolFunction(entry, at));
    functions.push_back(std::move(function));
  }
  return functions;
}

Result<std::vector<Message>> MessagesFromJson(const JsonValue& json, const std::string& path) {
  if (!json.IsArray()) return FieldError(path, json, "a list of messages");
  std::vector<Message> messages;
  for (size_t i = 0; i < json.items.size(); ++i) {
    CACHALOT_TRY(Message message, MessageFromJson(json.items[i], At(path, i)));
    messages.push_back(std::move(message));
  }
  CACHALOT_RETURN_IF_ERROR(ApplyPrefix(json, path, messages));
  return messages;
}

Result<RenderRequest> RenderRequestFromJson(std::string_view text, std::string_view name) {
  CACHALOT_TRY(const JsonValue json, ParseJsonValue(text, name));
  RenderRequest request;
  std::vector<Message>& messages = request.conversation.messages;
  if (json.IsArray()) {
    CACHALOT_TRY(messages, MessagesFromJson(json, "messages"));
    return request;
  }
  const std::string root;
  if (!json.IsObject()) return FieldError(name, json, "an object with messages, or a list");
  CACHALOT_TRY(const Fields fields, Fields::Of(json, root));
  const JsonValue* list = fields.Find("messages");
  if (list == nullptr) {
    return Error{ErrorCode::kInvalidArgument, StrCat(name, ": no field 'messages'")};
  }
  CACHALOT_TRY(messages, MessagesFromJson(*list, "messages"));
  if (const JsonValue* context = fields.Find("context"); context != nullptr) {
    CACHALOT_TRY(request.conversation.context, MessagesFromJson(*context, "context"));
  }
  CACHALOT_RETURN_IF_ERROR(ReadOptions(fields, request.options));
  Message appendices;
  CACHALOT_RETURN_IF_ERROR(ReadAppendices(fields, appendices));
  CACHALOT_RETURN_IF_ERROR(PlaceAppendices(std::move(appendices), messages));
  return request;
}

}  // namespace cachalot::chat
