// SPDX-License-Identifier: Apache-2.0
// Anthropic's message, whole or as events. [api.md 6.2, 6.3]
#include <algorithm>

#include "cachalot/api/json_text.h"
#include "cachalot/api/writers.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::api {
namespace {

enum class BlockKind : uint8_t { kThinking, kText, kToolUse };

struct Block {
  BlockKind kind;
  std::string id;    // kToolUse
  std::string name;  // kToolUse
  std::string text;  // whole replies; of kToolUse the JSON of the input
};

// The input must be an object; arguments that were cut off are none.
std::string InputJson(const std::string& arguments) {
  const Result<chat::JsonValue> json = chat::ParseJsonValue(arguments, "arguments");
  return json.ok() && json->IsObject() ? arguments : "{}";
}

std::string_view StopReason(Finish finish) {
  switch (finish) {
    case Finish::kStop:
      return "end_turn";
    case Finish::kStopString:
      return "stop_sequence";
    case Finish::kToolCalls:
      return "tool_use";
    case Finish::kLength:
    case Finish::kAborted:  // ends with an error instead
      break;
  }
  return "max_tokens";
}

// input_tokens are those that were neither read from the cache nor written to it; writes are not
// told apart here.
std::string UsageJson(const Usage& usage, uint32_t output_tokens) {
  const uint32_t missed = usage.prompt_tokens - std::min(usage.cached_tokens, usage.prompt_tokens);
  return JsonObject({{"input_tokens", std::to_string(missed)},
                     {"cache_creation_input_tokens", "0"},
                     {"cache_read_input_tokens", std::to_string(usage.cached_tokens)},
                     {"output_tokens", std::to_string(output_tokens)}});
}

class MessagesReply final : public ReplyWriter {
 public:
  MessagesReply(const GenerateRequest& request, ReplyInfo info)
      : info_(std::move(info)), stream_(request.stream) {}

  std::string Begin(const Usage& prompt_usage) override {
    if (!stream_) return "";
    const std::string message = Message("[]", "null", "null", UsageJson(prompt_usage, 1));
    return Event("message_start", {{"message", message}});
  }

  std::string Add(const Delta& delta) override {
    switch (delta.kind) {
      case Delta::Kind::kReasoning:
        return Append(BlockKind::kThinking, delta.text);
      case Delta::Kind::kContent:
        return Append(BlockKind::kText, delta.text);
      case Delta::Kind::kCallStart:
        return OpenCall(delta.text);
      case Delta::Kind::kArguments:
        CACHALOT_CHECK(is_open_ && current_.kind == BlockKind::kToolUse);
        return Text(delta.text);
      case Delta::Kind::kCallEnd:
        break;
    }
    return Close();
  }

  std::string End(uint32_t, Finish finish, std::string_view stop_string) override {
    std::string out = Close();
    if (finish == Finish::kAborted) {
      return out + Fail(ErrorOfStatus(503, "The server stopped before the answer was complete"));
    }
    if (!has_answer_) {
      out += Open(BlockKind::kText);
      out += Close();
    }
    if (finish == Finish::kStop && num_calls_ > 0) finish = Finish::kToolCalls;
    stop_reason_ = JsonText(StopReason(finish));
    if (finish == Finish::kStopString) stop_sequence_ = JsonText(stop_string);
    return out;
  }

  std::string Done(const Usage& usage) override {
    usage_ = UsageJson(usage, usage.completion_tokens);
    if (!stream_ || !failure_.empty()) return "";
    const std::string delta =
        JsonObject({{"stop_reason", stop_reason_}, {"stop_sequence", stop_sequence_}});
    return Event("message_delta", {{"delta", delta}, {"usage", usage_}}) +
           Event("message_stop", {});
  }

  std::string Fail(const ApiError& error) override {
    failure_ = ErrorBody(Surface::kMessages, error);
    return stream_ ? SseEvent("error", failure_) : "";
  }

  std::string Body() const override {
    if (stream_) return "";
    if (!failure_.empty()) return failure_;
    std::vector<std::string> blocks;
    for (const Block& block : blocks_) blocks.push_back(WholeBlock(block));
    return Message(JsonList(blocks), stop_reason_, stop_sequence_, usage_);
  }

 private:
  static std::string Event(const std::string& name, const std::vector<JsonMember>& members) {
    std::string json = "{\"type\":\"" + name + "\"";
    for (const JsonMember& member : members) {
      json += ",\"";
      json += member.key;
      json += "\":" + member.value;
    }
    return SseEvent(name, json + "}");
  }

  std::string Index() const { return std::to_string(index_); }

  std::string DeltaEvent(const char* type, std::string_view key, std::string_view text) const {
    const std::string delta = JsonObject({{"type", JsonText(type)}, {key, JsonText(text)}});
    return Event("content_block_delta", {{"index", Index()}, {"delta", delta}});
  }

  // Each call depends on what the one before it changed, hence never two in one expression.
  std::string Append(BlockKind kind, std::string_view text) {
    std::string out = Open(kind);
    out += Text(text);
    return out;
  }

  // A block of this kind is open afterwards.
  std::string Open(BlockKind kind) {
    if (is_open_ && current_.kind == kind) return "";
    return OpenBlock({.kind = kind});
  }

  std::string OpenCall(const std::string& name) {
    const std::string id = CallId(Surface::kMessages, info_.id, 0, num_calls_++);
    return OpenBlock({.kind = BlockKind::kToolUse, .id = id, .name = name});
  }

  std::string OpenBlock(Block block) {
    const std::string closed = Close();
    is_open_ = true;
    has_answer_ = has_answer_ || block.kind != BlockKind::kThinking;
    current_ = std::move(block);
    if (!stream_) return "";
    std::string out = closed + Event("content_block_start",
                                     {{"index", Index()}, {"content_block", EmptyBlock()}});
    if (index_ == 0) out += Event("ping", {});
    return out;
  }

  std::string EmptyBlock() const {
    switch (current_.kind) {
      case BlockKind::kThinking:
        return "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}";
      case BlockKind::kText:
        return "{\"type\":\"text\",\"text\":\"\"}";
      case BlockKind::kToolUse:
        break;
    }
    return JsonObject({{"type", "\"tool_use\""},
                       {"id", JsonText(current_.id)},
                       {"name", JsonText(current_.name)},
                       {"input", "{}"}});
  }

  std::string Text(std::string_view text) {
    if (!stream_) {
      current_.text += text;
      return "";
    }
    switch (current_.kind) {
      case BlockKind::kThinking:
        return DeltaEvent("thinking_delta", "thinking", text);
      case BlockKind::kText:
        return DeltaEvent("text_delta", "text", text);
      case BlockKind::kToolUse:
        break;
    }
    return DeltaEvent("input_json_delta", "partial_json", text);
  }

  std::string Close() {
    if (!is_open_) return "";
    is_open_ = false;
    if (!stream_) {
      blocks_.push_back(std::move(current_));
      return "";
    }
    std::string out;
    if (current_.kind == BlockKind::kThinking) {
      out = DeltaEvent("signature_delta", "signature", info_.id);
    }
    out += Event("content_block_stop", {{"index", Index()}});
    ++index_;
    return out;
  }

  std::string WholeBlock(const Block& block) const {
    switch (block.kind) {
      case BlockKind::kThinking:
        return JsonObject({{"type", "\"thinking\""},
                           {"thinking", JsonText(block.text)},
                           {"signature", JsonText(info_.id)}});
      case BlockKind::kText:
        return JsonObject({{"type", "\"text\""}, {"text", JsonText(block.text)}});
      case BlockKind::kToolUse:
        break;
    }
    return JsonObject({{"type", "\"tool_use\""},
                       {"id", JsonText(block.id)},
                       {"name", JsonText(block.name)},
                       {"input", InputJson(block.text)}});
  }

  std::string Message(const std::string& content, const std::string& stop_reason,
                      const std::string& stop_sequence, const std::string& usage) const {
    return JsonObject({{"id", JsonText("msg_" + info_.id)},
                       {"type", "\"message\""},
                       {"role", "\"assistant\""},
                       {"model", JsonText(info_.model)},
                       {"content", content},
                       {"stop_reason", stop_reason},
                       {"stop_sequence", stop_sequence},
                       {"usage", usage}});
  }

  ReplyInfo info_;
  bool stream_;
  bool is_open_ = false;
  bool has_answer_ = false;  // a block other than thinking was opened
  Block current_{};
  uint32_t index_ = 0;  // of the current block, or of the next
  uint32_t num_calls_ = 0;
  std::vector<Block> blocks_;  // whole replies
  std::string stop_reason_ = "null";
  std::string stop_sequence_ = "null";
  std::string usage_;
  std::string failure_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeMessagesReply(const GenerateRequest& request, ReplyInfo info) {
  return std::make_unique<MessagesReply>(request, std::move(info));
}

}  // namespace cachalot::api
