// SPDX-License-Identifier: Apache-2.0
// The Responses API's response, whole or as events. [api.md 7.2, 7.3]
#include <algorithm>

#include "cachalot/api/json_text.h"
#include "cachalot/api/writers.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::api {
namespace {

enum class ItemKind : uint8_t { kReasoning, kMessage, kFunctionCall, kCustomCall };

struct Item {
  ItemKind kind = ItemKind::kMessage;
  std::string id;
  std::string call_id;  // calls
  std::string name;     // calls
  std::string text;     // calls: the arguments
  std::vector<TokenLogprob> logprobs;
};

// The free text of a custom tool from the arguments {"input": text}. Of arguments that were cut off
// it is what they hold so far.
std::string CustomInput(const std::string& arguments) {
  for (const std::string_view tail : {"", "\"}", "}"}) {
    const auto json = chat::ParseJsonValue(arguments + std::string(tail), "arguments");
    const chat::JsonValue* input = json.ok() ? json->Find("input") : nullptr;
    if (input != nullptr && input->IsString()) return input->text;
  }
  return arguments;
}

std::string UsageJson(const Usage& usage) {
  const uint64_t total = uint64_t{usage.prompt_tokens} + usage.completion_tokens;
  const auto number = [](uint32_t n) { return std::to_string(n); };
  return JsonObject(
      {{"input_tokens", number(usage.prompt_tokens)},
       {"input_tokens_details", JsonObject({{"cached_tokens", number(usage.cached_tokens)}})},
       {"output_tokens", number(usage.completion_tokens)},
       {"output_tokens_details",
        JsonObject({{"reasoning_tokens", number(usage.reasoning_tokens)}})},
       {"total_tokens", std::to_string(total)}});
}

std::string_view TypeName(ItemKind kind) {
  switch (kind) {
    case ItemKind::kReasoning:
      return "reasoning";
    case ItemKind::kMessage:
      return "message";
    case ItemKind::kFunctionCall:
      return "function_call";
    case ItemKind::kCustomCall:
      break;
  }
  return "custom_tool_call";
}

// The one part of a reasoning or message item.
std::string PartJson(const Item& item, std::string_view text, bool logprobs) {
  if (item.kind == ItemKind::kReasoning) {
    return JsonObject({{"type", "\"reasoning_text\""}, {"text", JsonText(text)}});
  }
  return JsonObject({{"type", "\"output_text\""},
                     {"text", JsonText(text)},
                     {"annotations", "[]"},
                     {"logprobs", logprobs ? LogprobList(item.logprobs) : ""}});
}

// The item as it is when it is added (`status` in_progress: nothing in it yet) or done.
std::string ItemJson(const Item& item, std::string_view status, bool logprobs) {
  const bool started = status == "in_progress";
  const bool is_call = item.kind == ItemKind::kFunctionCall || item.kind == ItemKind::kCustomCall;
  const CallName name = SplitCallName(item.name);
  const std::string text = started ? "" : item.text;
  const std::string content = started ? "[]" : JsonList({PartJson(item, item.text, logprobs)});
  const bool function = item.kind == ItemKind::kFunctionCall;
  return JsonObject(
      {{"type", JsonText(TypeName(item.kind))},
       {"id", JsonText(item.id)},
       {"status", JsonText(status)},
       {"role", item.kind == ItemKind::kMessage ? "\"assistant\"" : ""},
       {"summary", item.kind == ItemKind::kReasoning ? "[]" : ""},
       {"content", is_call ? "" : content},
       {"call_id", is_call ? JsonText(item.call_id) : ""},
       {"namespace", is_call ? name.name_space : ""},
       {"name", is_call ? name.name : ""},
       {"arguments", function ? JsonText(text) : ""},
       {"input", is_call && !function ? JsonText(started ? "" : CustomInput(text)) : ""}});
}

class ResponsesReply final : public ReplyWriter {
 public:
  ResponsesReply(const GenerateRequest& request, ReplyInfo info)
      : info_(std::move(info)),
        stream_(request.stream),
        logprobs_(request.logprobs),
        parallel_(request.parallel_tool_calls),
        custom_tools_(request.custom_tools) {}

  std::string Begin(const Usage&) override {
    const std::string response = Response("in_progress", "null", "null", "null");
    std::string out = Event("response.created", {{"response", response}});
    out += Event("response.in_progress", {{"response", response}});
    return out;
  }

  std::string Add(const Delta& delta) override {
    switch (delta.kind) {
      case Delta::Kind::kReasoning:
        return Append(ItemKind::kReasoning, delta);
      case Delta::Kind::kContent:
        return Append(ItemKind::kMessage, delta);
      case Delta::Kind::kCallStart:
        return OpenCall(delta.text);
      case Delta::Kind::kArguments:
        CACHALOT_CHECK(is_open_ && IsCall());
        return Text(delta);
      case Delta::Kind::kCallEnd:
        break;
    }
    return Close("completed");
  }

  std::string End(uint32_t, Finish finish, std::string_view) override {
    const bool whole = finish != Finish::kLength && finish != Finish::kAborted;
    finish_ = finish;
    return Close(whole ? "completed" : "incomplete");
  }

  std::string Done(const Usage& usage) override {
    const std::string figures = UsageJson(usage);
    std::string status = "completed";
    std::string error = "null";
    std::string details = "null";
    if (finish_ == Finish::kLength) {
      status = "incomplete";
      details = "{\"reason\":\"max_output_tokens\"}";
    } else if (finish_ == Finish::kAborted) {
      status = "failed";
      error = ErrorJson("server_error", "The server stopped before the answer was complete");
    }
    body_ = Response(status, figures, error, details);
    return Event("response." + status, {{"response", body_}});
  }

  std::string Fail(const ApiError& error) override {
    body_ = ErrorBody(Surface::kResponses, error);
    const std::string failed =
        Response("failed", "null", ErrorJson(error.code, error.message), "null");
    return Event("response.failed", {{"response", failed}});
  }

  std::string Body() const override { return stream_ ? "" : body_; }

 private:
  bool IsCall() const {
    return item_.kind == ItemKind::kFunctionCall || item_.kind == ItemKind::kCustomCall;
  }

  static std::string ErrorJson(std::string_view code, std::string_view message) {
    return JsonObject({{"code", JsonText(code)}, {"message", JsonText(message)}});
  }

  // "" unless streaming.
  std::string Event(const std::string& name, const std::vector<JsonMember>& members) {
    if (!stream_) return "";
    std::string json = StrCat("{\"type\":\"", name, "\",\"sequence_number\":", sequence_number_++);
    for (const JsonMember& member : members) {
      if (member.value.empty()) continue;
      json += StrCat(",\"", member.key, "\":", member.value);
    }
    return SseEvent(name, json + "}");
  }

  // An event of the open item. Calls have no parts.
  std::string ItemEvent(const std::string& name, std::string_view key, const std::string& value,
                        const std::string& logprobs = {}) {
    return Event("response." + name, {{"item_id", JsonText(item_.id)},
                                      {"output_index", OutputIndex()},
                                      {"content_index", IsCall() ? "" : "0"},
                                      {key, value},
                                      {"logprobs", logprobs}});
  }

  std::string OutputIndex() const { return std::to_string(items_.size()); }

  // What the events of the open item's text are called.
  std::string TextEvent(std::string_view what) const {
    constexpr std::string_view kNames[] = {"reasoning_text", "output_text",
                                           "function_call_arguments", "custom_tool_call_input"};
    return StrCat(kNames[static_cast<size_t>(item_.kind)], ".", what);
  }

  // Events are numbered as they are made, hence never two in one expression.
  std::string Append(ItemKind kind, const Delta& delta) {
    std::string out = Open(kind);
    out += Text(delta);
    return out;
  }

  // An item of this kind is open afterwards; not for calls.
  std::string Open(ItemKind kind) {
    if (is_open_ && item_.kind == kind) return "";
    std::string out = Close("completed");
    const std::string_view prefix = kind == ItemKind::kReasoning ? "rs_" : "msg_";
    Start({.kind = kind, .id = StrCat(prefix, info_.id, "_", items_.size())});
    out += Added();
    out += ItemEvent("content_part.added", "part", PartJson(item_, "", logprobs_));
    return out;
  }

  std::string OpenCall(const std::string& name) {
    std::string out = Close("completed");
    const bool custom =
        std::find(custom_tools_.begin(), custom_tools_.end(), name) != custom_tools_.end();
    Start({.kind = custom ? ItemKind::kCustomCall : ItemKind::kFunctionCall,
           .id = StrCat(custom ? "ctc_" : "fc_", info_.id, "_", items_.size()),
           .call_id = CallId(Surface::kResponses, info_.id, 0, num_calls_++),
           .name = name});
    out += Added();
    return out;
  }

  void Start(Item item) {
    item_ = std::move(item);
    is_open_ = true;
  }

  std::string Added() {
    return Event("response.output_item.added", {{"output_index", OutputIndex()},
                                                {"item", ItemJson(item_, "in_progress", false)}});
  }

  // The input of a custom tool comes at once at its end: its JSON has to be undone first.
  std::string Text(const Delta& delta) {
    item_.text += delta.text;
    if (item_.kind == ItemKind::kCustomCall) return "";
    std::string logprobs;
    if (logprobs_ && item_.kind == ItemKind::kMessage) {
      item_.logprobs.insert(item_.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
      logprobs = LogprobList(delta.logprobs);
    }
    return ItemEvent(TextEvent("delta"), "delta", JsonText(delta.text), logprobs);
  }

  std::string Close(std::string_view status) {
    if (!is_open_) return "";
    is_open_ = false;
    const std::string item = ItemJson(item_, status, logprobs_);
    std::string out = Ended();
    out += Event("response.output_item.done", {{"output_index", OutputIndex()}, {"item", item}});
    items_.push_back(item);
    return out;
  }

  // The events between the last delta and output_item.done.
  std::string Ended() {
    if (!stream_) return "";
    const bool custom = item_.kind == ItemKind::kCustomCall;
    const std::string text = JsonText(custom ? CustomInput(item_.text) : item_.text);
    std::string out;
    if (custom) out += ItemEvent(TextEvent("delta"), "delta", text);
    const std::string_view key = custom ? "input" : IsCall() ? "arguments" : "text";
    const bool has_logprobs = logprobs_ && item_.kind == ItemKind::kMessage;
    out += ItemEvent(TextEvent("done"), key, text,
                     has_logprobs ? LogprobList(item_.logprobs) : std::string());
    if (!IsCall()) {
      out += ItemEvent("content_part.done", "part", PartJson(item_, item_.text, logprobs_));
    }
    return out;
  }

  std::string Response(std::string_view status, const std::string& usage, const std::string& error,
                       const std::string& details) const {
    return JsonObject({{"id", JsonText("resp_" + info_.id)},
                       {"object", "\"response\""},
                       {"created_at", std::to_string(info_.created)},
                       {"status", JsonText(status)},
                       {"model", JsonText(info_.model)},
                       {"output", JsonList(items_)},
                       {"usage", usage},
                       {"store", "false"},
                       {"parallel_tool_calls", parallel_ ? "true" : "false"},
                       {"previous_response_id", "null"},
                       {"error", error},
                       {"incomplete_details", details}});
  }

  ReplyInfo info_;
  bool stream_;
  bool logprobs_;
  bool parallel_;
  std::vector<std::string> custom_tools_;
  bool is_open_ = false;
  Item item_;                       // the open one
  std::vector<std::string> items_;  // the ended ones
  uint32_t num_calls_ = 0;
  uint64_t sequence_number_ = 0;
  Finish finish_ = Finish::kStop;
  std::string body_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeResponsesReply(const GenerateRequest& request, ReplyInfo info) {
  return std::make_unique<ResponsesReply>(request, std::move(info));
}

}  // namespace cachalot::api
