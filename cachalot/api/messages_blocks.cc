// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/messages_blocks.h"

#include <set>

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

// What stands for a block that has no text for us (image, document, search_result, ...): better a
// note that the model can mention than a failed agent.
std::string Placeholder(const std::string& type) {
  return StrCat("[Unsupported ", type.substr(0, 64), "]");
}

ApiResult<std::string> TypeOf(const Object& block) { return block.RequiredString("type"); }

// A string, or blocks of which only text counts. "" if missing.
ApiResult<std::string> ReadText(const Object& object, std::string_view key) {
  const JsonValue* json = object.Find(key);
  if (json == nullptr) return std::string();
  if (json->IsString()) return json->text;
  const std::string path = object.PathOf(key);
  if (!json->IsArray()) return WrongKind(path, *json, "a string or a list of blocks");
  std::string out;
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(const Object block, Object::Of(json->items[i], ItemPath(path, i)));
    CACHALOT_TRY(const std::string type, TypeOf(block));
    if (type == "text") {
      CACHALOT_TRY(const std::string text, block.RequiredString("text", /*allow_empty=*/true));
      AppendParagraph(text, out);
    } else {
      AppendParagraph(Placeholder(type), out);
    }
  }
  return out;
}

ApiStatus ReadUserBlock(const Object& block, Message& message) {
  CACHALOT_TRY(const std::string type, TypeOf(block));
  ContentBlock out;
  if (type == "text") {
    CACHALOT_TRY(out.text, block.RequiredString("text", /*allow_empty=*/true));
  } else if (type == "tool_result") {
    out.type = type;
    CACHALOT_TRY(out.tool_use_id, block.RequiredString("tool_use_id"));
    CACHALOT_TRY(out.text, ReadText(block, "content"));
  } else {
    out.text = Placeholder(type);
  }
  message.blocks.push_back(std::move(out));
  return {};
}

ApiStatus ReadToolUse(const Object& block, Message& message) {
  chat::ToolCall call;
  CACHALOT_TRY(call.id, block.RequiredString("id"));
  CACHALOT_TRY(call.name, block.RequiredString("name"));
  const JsonValue* input = block.Find("input");
  if (input == nullptr) return MissingField(block.PathOf("input"));
  if (!input->IsObject()) return WrongKind(block.PathOf("input"), *input, "an object");
  call.arguments = chat::DumpPythonJson(*input);
  message.tool_calls.push_back(std::move(call));
  return {};
}

// The signature of a thought is ours and is not checked; redacted thoughts are nobody's.
ApiStatus ReadAssistantBlock(const Object& block, Message& message) {
  CACHALOT_TRY(const std::string type, TypeOf(block));
  if (type == "text") {
    CACHALOT_TRY(const std::string text, block.RequiredString("text", /*allow_empty=*/true));
    AppendParagraph(text, message.content);
  } else if (type == "thinking") {
    CACHALOT_TRY(const std::string text, block.RequiredString("thinking", /*allow_empty=*/true));
    AppendParagraph(text, message.reasoning_content);
  } else if (type == "tool_use") {
    return ReadToolUse(block, message);
  } else if (type != "redacted_thinking") {
    AppendParagraph(Placeholder(type), message.content);
  }
  return {};
}

void AddText(std::string_view text, Message& message) {
  if (message.role == Role::kUser) {
    message.blocks.push_back({.text = std::string(text)});
  } else {
    AppendParagraph(text, message.content);
  }
}

ApiStatus ReadContent(const Object& object, Message& message) {
  const JsonValue* content = object.Find("content");
  const std::string path = object.PathOf("content");
  if (content == nullptr) return MissingField(path);
  if (content->IsString()) {
    AddText(content->text, message);
    return {};
  }
  if (!content->IsArray()) return WrongKind(path, *content, "a string or a list of blocks");
  for (size_t i = 0; i < content->items.size(); ++i) {
    CACHALOT_TRY(const Object block, Object::Of(content->items[i], ItemPath(path, i)));
    CACHALOT_RETURN_IF_ERROR(message.role == Role::kUser ? ReadUserBlock(block, message)
                                                         : ReadAssistantBlock(block, message));
  }
  return {};
}

ApiResult<Message> ReadMessage(const JsonValue& json, const std::string& path) {
  CACHALOT_TRY(const Object object, Object::Of(json, path));
  CACHALOT_TRY(const std::string role, object.RequiredString("role"));
  Message message;
  if (role == "system") {  // in the history: a note to the model in the user's place
    CACHALOT_TRY(const std::string text, ReadText(object, "content"));
    AddText(StrCat("<system-reminder>\n", text, "\n</system-reminder>"), message);
    return message;
  }
  if (role != "user" && role != "assistant") {
    return UnknownName(object.PathOf("role"), role, "user, assistant, system");
  }
  if (role == "assistant") message.role = Role::kAssistant;
  CACHALOT_RETURN_IF_ERROR(ReadContent(object, message));
  return message;
}

void Join(Message from, Message& to) {
  AppendParagraph(from.content, to.content);
  AppendParagraph(from.reasoning_content, to.reasoning_content);
  for (ContentBlock& block : from.blocks) to.blocks.push_back(std::move(block));
  for (chat::ToolCall& call : from.tool_calls) to.tool_calls.push_back(std::move(call));
}

// Messages with the number the client knows them by.
struct Turn {
  Message message;
  size_t idx = 0;
};

// A result of `user` without a call in `asked`, or a second one, is an error; takes the answered
// ones out of `asked`.
ApiStatus TakeResults(const Turn& user, std::set<std::string>& asked) {
  for (const ContentBlock& block : user.message.blocks) {
    if (block.type != "tool_result" || asked.erase(block.tool_use_id) > 0) continue;
    return InvalidRequest(
        ItemPath("messages", user.idx),
        StrCat("messages.", user.idx,
               ": unexpected `tool_use_id` found in `tool_result` blocks: ", block.tool_use_id,
               ". Each `tool_result` block must answer one `tool_use` block of the previous "
               "message, once."));
  }
  return {};
}

ApiStatus CheckPairing(const std::vector<Turn>& turns) {
  std::set<std::string> asked;
  size_t asked_at = 0;
  const auto unanswered = [&] {
    std::string ids;
    for (const std::string& id : asked) ids += (ids.empty() ? "" : ", ") + id;
    return InvalidRequest(ItemPath("messages", asked_at),
                          StrCat("messages.", asked_at,
                                 ": `tool_use` ids were found without `tool_result` blocks "
                                 "immediately after: ",
                                 ids));
  };
  for (const Turn& turn : turns) {
    if (turn.message.role == Role::kUser) {
      CACHALOT_RETURN_IF_ERROR(TakeResults(turn, asked));
      if (!asked.empty()) return unanswered();
      continue;
    }
    asked_at = turn.idx;
    for (const chat::ToolCall& call : turn.message.tool_calls) {
      if (asked.insert(call.id).second) continue;
      return InvalidRequest(
          ItemPath("messages", turn.idx),
          StrCat("messages.", turn.idx, ": `tool_use` ids must be unique: ", call.id));
    }
  }
  if (!asked.empty()) return unanswered();
  return {};
}

// Claude Code's first system block changes with every request and is for the service's accounting;
// shown to the model it would cost the cached prefix each time.
bool IsBillingHeader(std::string_view text) {
  return text.starts_with("x-anthropic-billing-header:");
}

}  // namespace

ApiResult<std::string> ReadMessagesSystem(const Object& body) {
  const JsonValue* json = body.Find("system");
  if (json == nullptr || !json->IsArray()) return ReadText(body, "system");
  std::string out;
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(const Object block, Object::Of(json->items[i], ItemPath("system", i)));
    CACHALOT_TRY(const std::string type, TypeOf(block));
    if (type != "text") return UnknownName(block.PathOf("type"), type, "text");
    CACHALOT_TRY(const std::string text, block.RequiredString("text", /*allow_empty=*/true));
    if (!IsBillingHeader(text)) AppendParagraph(text, out);
  }
  return out;
}

ApiResult<std::vector<Message>> ReadMessagesMessages(const Object& body) {
  if (body.Find("messages") == nullptr) return MissingField("messages");
  CACHALOT_TRY(const auto list, body.List("messages"));
  if (list.empty()) return InvalidRequest("messages", "messages: at least one message is required");
  std::vector<Turn> turns;
  for (size_t i = 0; i < list.size(); ++i) {
    CACHALOT_TRY(Message message, ReadMessage(list[i], ItemPath("messages", i)));
    if (turns.empty() || turns.back().message.role != message.role) {
      turns.push_back({std::move(message), i});
    } else {
      Join(std::move(message), turns.back().message);
    }
  }
  CACHALOT_RETURN_IF_ERROR(CheckPairing(turns));
  std::vector<Message> messages;
  for (Turn& turn : turns) messages.push_back(std::move(turn.message));
  if (messages.back().role == Role::kAssistant) messages.back().wo_eos = true;
  return messages;
}

}  // namespace cachalot::api
