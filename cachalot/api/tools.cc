// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/tools.h"

#include <algorithm>
#include <set>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

constexpr size_t kMaxTools = 128;
constexpr size_t kMaxNameBytes = 128;

// What surrounds a tool of a V4.1 namespace.
struct Namespace {
  std::string name;
  std::string description;
};

bool IsToolName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  };
  return name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), allowed);
}

ApiResult<std::string> ReadName(const Object& object) {
  CACHALOT_TRY(std::string name, object.RequiredString("name"));
  if (IsToolName(name)) return name;
  const std::string path = object.PathOf("name");
  return InvalidRequest(path, StrCat(path, ": is ", chat::Quoted(name), ", expected at most ",
                                     kMaxNameBytes, " letters, digits, '-' and '_'"));
}

// What every tool comes to: the same three keys in the same order, so that the prompt, and with it
// the cache, does not depend on the protocol or on stray keys. [chat.md 4.7]
JsonValue FunctionValue(const std::string& name, std::string description,
                        const JsonValue* parameters) {
  return ObjectValue({{"name", StringValue(name)},
                      {"description", StringValue(std::move(description))},
                      {"parameters", parameters != nullptr ? *parameters : ObjectValue({})}});
}

// Name, description, strict and the schema at `schema_key` of `object`.
ApiResult<ToolDraft> ReadFunction(const Object& object, std::string_view schema_key,
                                  const Namespace& space) {
  ToolDraft tool;
  CACHALOT_TRY(tool.name, ReadName(object));
  if (!space.name.empty()) tool.name = StrCat(space.name, "::", tool.name);
  CACHALOT_TRY(const std::optional<std::string> own, object.String("description"));
  std::string description = own.value_or("");
  if (!space.description.empty()) description = StrCat(space.description, "\n", description);
  const JsonValue* parameters = object.Find(schema_key);
  if (parameters != nullptr && !parameters->IsObject()) {
    return WrongKind(object.PathOf(schema_key), *parameters, "a JSON schema, an object");
  }
  CACHALOT_TRY(tool.strict, object.Bool("strict", false));
  tool.function = FunctionValue(tool.name, std::move(description), parameters);
  return tool;
}

ApiStatus CheckTools(const std::vector<ToolDraft>& tools) {
  if (tools.size() > kMaxTools) {
    return InvalidRequest(
        "tools", StrCat("tools: has ", tools.size(), " functions, expected at most ", kMaxTools));
  }
  std::set<std::string_view> names;
  for (const ToolDraft& tool : tools) {
    if (!names.insert(tool.name).second) {
      return InvalidRequest("tools", StrCat("Tool names must be unique (tools: ",
                                            chat::Quoted(tool.name), " is there twice)"));
    }
  }
  return {};
}

// {"type": "function", "function": {...}}
ApiStatus AddChatFunction(const Object& entry, const Namespace& space, Draft& draft) {
  CACHALOT_TRY(const std::optional<Object> function, entry.Child("function"));
  if (!function.has_value()) return MissingField(entry.PathOf("function"));
  CACHALOT_TRY(ToolDraft tool, ReadFunction(*function, "parameters", space));
  draft.tools.push_back(std::move(tool));
  return {};
}

// {"type": "function", "name": ...}
ApiStatus AddFlatFunction(const Object& entry, const Namespace& space, Draft& draft) {
  CACHALOT_TRY(ToolDraft tool, ReadFunction(entry, "parameters", space));
  draft.tools.push_back(std::move(tool));
  return {};
}

using AddFunction = ApiStatus (*)(const Object&, const Namespace&, Draft&);

// {"type": "namespace", "name", "description", "tools": [functions]}
ApiStatus AddNamespace(const Object& entry, AddFunction add, Draft& draft) {
  Namespace space;
  CACHALOT_TRY(space.name, ReadName(entry));
  CACHALOT_TRY(const std::optional<std::string> description, entry.String("description"));
  space.description = description.value_or("");
  CACHALOT_TRY(const auto inner, entry.List("tools"));
  for (size_t i = 0; i < inner.size(); ++i) {
    CACHALOT_TRY(const Object tool, Object::Of(inner[i], ItemPath(entry.PathOf("tools"), i)));
    CACHALOT_TRY(const std::optional<std::string> type, tool.String("type"));
    if (type.value_or("function") != "function") continue;
    CACHALOT_RETURN_IF_ERROR(add(tool, space, draft));
  }
  return {};
}

// A tool that takes free text: to the model, a function of one string. [api.md 7.1]
ApiStatus AddCustom(const Object& entry, Draft& draft) {
  ToolDraft tool{.custom = true};
  CACHALOT_TRY(tool.name, ReadName(entry));
  CACHALOT_TRY(const std::optional<std::string> own, entry.String("description"));
  std::string description = own.value_or("");
  CACHALOT_TRY(const std::optional<Object> format, entry.Child("format"));
  if (format.has_value()) {
    CACHALOT_TRY(const std::optional<std::string> grammar, format->String("definition"));
    if (grammar.has_value()) {
      AppendParagraph("The input follows this grammar:\n" + *grammar, description);
    }
  }
  const JsonValue parameters = ObjectValue(
      {{"type", StringValue("object")},
       {"properties", ObjectValue({{"input", ObjectValue({{"type", StringValue("string")}})}})},
       {"required", JsonValue{.kind = JsonValue::Kind::kArray, .items = {StringValue("input")}}}});
  tool.function = FunctionValue(tool.name, std::move(description), &parameters);
  draft.tools.push_back(std::move(tool));
  return {};
}

ApiStatus AddChatTool(const Object& entry, Draft& draft) {
  CACHALOT_TRY(const std::optional<std::string> type, entry.String("type"));
  const std::string name = type.value_or("function");
  if (name == "namespace") return AddNamespace(entry, AddChatFunction, draft);
  if (name == "function") return AddChatFunction(entry, {}, draft);
  return UnknownName(entry.PathOf("type"), name, "function, namespace");
}

// Tools that Anthropic's servers run, or whose schema only its models know, are not offered.
ApiStatus AddMessagesTool(const Object& entry, Draft& draft) {
  CACHALOT_TRY(const std::optional<std::string> type, entry.String("type"));
  if (type.value_or("custom") != "custom") return {};
  if (entry.Find("input_schema") == nullptr) return MissingField(entry.PathOf("input_schema"));
  CACHALOT_TRY(ToolDraft tool, ReadFunction(entry, "input_schema", {}));
  draft.tools.push_back(std::move(tool));
  return {};
}

// Tools of the hosted service (web_search, ...) and local_shell are not offered.
ApiStatus AddResponsesTool(const Object& entry, Draft& draft) {
  CACHALOT_TRY(const std::string type, entry.RequiredString("type"));
  if (type == "function") return AddFlatFunction(entry, {}, draft);
  if (type == "custom") return AddCustom(entry, draft);
  if (type == "namespace") return AddNamespace(entry, AddFlatFunction, draft);
  return {};
}

ApiStatus ReadTools(const Object& body, ApiStatus (*add)(const Object&, Draft&), Draft& draft) {
  CACHALOT_TRY(const auto list, body.List("tools"));
  for (size_t i = 0; i < list.size(); ++i) {
    CACHALOT_TRY(const Object entry, Object::Of(list[i], ItemPath("tools", i)));
    CACHALOT_RETURN_IF_ERROR(add(entry, draft));
  }
  draft.request.tool_choice = draft.tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  return CheckTools(draft.tools);
}

ApiStatus ChooseNamed(const std::string& name, Draft& draft) {
  const bool known = std::any_of(draft.tools.begin(), draft.tools.end(),
                                 [&name](const ToolDraft& tool) { return tool.name == name; });
  if (!known) {
    return InvalidRequest("tool_choice",
                          StrCat("tool_choice: no tool named '", name, "' was specified"));
  }
  draft.request.tool_choice = ToolChoice::kNamed;
  draft.request.tool_name = name;
  return {};
}

ApiStatus ChooseMode(ToolChoice mode, Draft& draft) {
  if (mode == ToolChoice::kRequired && draft.tools.empty()) {
    return InvalidRequest("tool_choice", "tool_choice: demands a call, but there are no tools");
  }
  draft.request.tool_choice = draft.tools.empty() ? ToolChoice::kNone : mode;
  return {};
}

// The words of OpenAI's two protocols.
ApiStatus ChooseByWord(const std::string& word, Draft& draft) {
  if (word == "none") return ChooseMode(ToolChoice::kNone, draft);
  if (word == "auto") return ChooseMode(ToolChoice::kAuto, draft);
  if (word == "required") return ChooseMode(ToolChoice::kRequired, draft);
  return UnknownName("tool_choice", word, "none, auto, required, or an object that names a tool");
}

}  // namespace

ApiStatus ReadChatTools(const Object& body, Draft& draft) {
  CACHALOT_RETURN_IF_ERROR(ReadTools(body, AddChatTool, draft));
  CACHALOT_TRY(draft.request.parallel_tool_calls, body.Bool("parallel_tool_calls", true));
  const JsonValue* choice = body.Find("tool_choice");
  if (choice == nullptr) return {};
  if (choice->IsString()) return ChooseByWord(choice->text, draft);
  CACHALOT_TRY(const Object object, Object::Of(*choice, "tool_choice"));
  CACHALOT_TRY(const std::optional<std::string> type, object.String("type"));
  if (type.value_or("function") != "function") {
    return UnknownName("tool_choice.type", *type, "function");
  }
  CACHALOT_TRY(const std::optional<Object> function, object.Child("function"));
  if (!function.has_value()) return MissingField("tool_choice.function");
  CACHALOT_TRY(const std::string name, function->RequiredString("name"));
  return ChooseNamed(name, draft);
}

ApiStatus ReadMessagesTools(const Object& body, Draft& draft) {
  CACHALOT_RETURN_IF_ERROR(ReadTools(body, AddMessagesTool, draft));
  CACHALOT_TRY(const std::optional<Object> choice, body.Child("tool_choice"));
  if (!choice.has_value()) return {};
  CACHALOT_TRY(const bool no_parallel, choice->Bool("disable_parallel_tool_use", false));
  draft.request.parallel_tool_calls = !no_parallel;
  CACHALOT_TRY(const std::string type, choice->RequiredString("type"));
  if (type == "none") return ChooseMode(ToolChoice::kNone, draft);
  if (type == "auto") return ChooseMode(ToolChoice::kAuto, draft);
  if (type == "any") return ChooseMode(ToolChoice::kRequired, draft);
  if (type != "tool") return UnknownName("tool_choice.type", type, "auto, any, tool, none");
  CACHALOT_TRY(const std::string name, choice->RequiredString("name"));
  return ChooseNamed(name, draft);
}

ApiStatus ReadResponsesTools(const Object& body, Draft& draft) {
  CACHALOT_RETURN_IF_ERROR(ReadTools(body, AddResponsesTool, draft));
  CACHALOT_TRY(draft.request.parallel_tool_calls, body.Bool("parallel_tool_calls", true));
  const JsonValue* choice = body.Find("tool_choice");
  if (choice == nullptr) return {};
  if (choice->IsString()) return ChooseByWord(choice->text, draft);
  CACHALOT_TRY(const Object object, Object::Of(*choice, "tool_choice"));
  CACHALOT_TRY(const std::string type, object.RequiredString("type"));
  if (type != "function" && type != "custom") {
    return UnknownName("tool_choice.type", type, "function, custom");
  }
  CACHALOT_TRY(const std::string name, object.RequiredString("name"));
  return ChooseNamed(name, draft);
}

}  // namespace cachalot::api
