// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/encode.h"

#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/merge.h"
#include "cachalot/chat/prompt_texts.h"

namespace cachalot::chat {
namespace {

// Renders one prepared conversation, message by message, into `out_`.
class Renderer {
 public:
  Renderer(const PreparedMessages& prepared, const EncodeOptions& options, std::string effort)
      : prepared_(prepared), options_(options), effort_(std::move(effort)) {}

  Result<std::string> Render() && {
    if (options_.add_default_bos_token && prepared_.num_context == 0) out_ += kBos;
    for (size_t i = prepared_.num_context; i < prepared_.messages.size(); ++i) {
      if (i == 0) OpenFirst();
      CACHALOT_RETURN_IF_ERROR(RenderMessage(i));
      RenderTransition(i);
    }
    return std::move(out_);
  }

 private:
  bool thinking() const { return options_.thinking_mode == ThinkingMode::kThinking; }
  bool is_v41() const { return options_.format == Format::kV4_1; }

  // The effort text; in V4.1 it belongs to the system part even without a system message.
  void OpenFirst() {
    const bool is_system = prepared_.messages[0].role == Role::kSystem;
    if (is_v41() && (is_system || !effort_.empty())) out_ += kSystemMarker;
    out_ += effort_;
  }

  Status RenderMessage(size_t i) {
    const Message& message = prepared_.messages[i];
    switch (message.role) {
      case Role::kSystem:
        if (is_v41() && i > 0) out_ += kSystemMarker;
        out_ += message.content;
        RenderAppendices(message);
        return {};
      case Role::kDeveloper:
        return RenderDeveloper(message);
      case Role::kUser:
        return RenderUser(message);
      case Role::kLatestReminder:
        out_ += kLatestReminderMarker;
        out_ += message.content;
        return {};
      case Role::kAssistant:
        RenderAssistant(i);
        return {};
      case Role::kTool:
        break;
    }
    return Error{ErrorCode::kInternal, "tool message left after merging"};
  }

  void RenderAppendices(const Message& message) {
    if (!message.tools.empty()) out_ += "\n\n" + ToolsText(message.tools, options_.format);
    if (message.response_format.has_value()) {
      out_ += "\n\n" + ResponseFormatText(*message.response_format);
    }
  }

  Status RenderDeveloper(const Message& message) {
    if (is_v41()) {
      return Error{ErrorCode::kInvalidArgument,
                   "role 'developer': format v4.1 has none; use 'system'"};
    }
    out_ += kUserMarker;
    out_ += message.content;
    RenderAppendices(message);
    return {};
  }

  Status RenderUser(const Message& message) {
    out_ += kUserMarker;
    for (size_t i = 0; i < message.blocks.size(); ++i) {
      if (i > 0) out_ += "\n\n";
      CACHALOT_RETURN_IF_ERROR(RenderBlock(message.blocks[i]));
    }
    return {};
  }

  Status RenderBlock(const ContentBlock& block) {
    if (block.type == "text") {
      if (is_v41() && block.text.find(kImage) != std::string::npos) {
        return Error{ErrorCode::kInvalidArgument,
                     StrCat("user text contains ", kImage, ", which stands for an image in v4.1")};
      }
      out_ += block.text;
    } else if (block.type == "tool_result") {
      out_ += StrCat("<tool_result>", block.text, "</tool_result>");
    } else if (is_v41() && (block.type == "image" || block.type == "image_url")) {
      out_ += kImage;
    } else {
      out_ += StrCat("[Unsupported ", block.type, "]");
    }
    return {};
  }

  void RenderAssistant(size_t i) {
    const Message& message = prepared_.messages[i];
    const bool answers_task = i > 0 && prepared_.messages[i - 1].task != Task::kNone;
    const bool keeps_reasoning =
        !prepared_.drops_thinking || static_cast<int>(i) > prepared_.last_user_idx;
    if (thinking() && !answers_task && keeps_reasoning) {
      out_ += message.reasoning_content;
      out_ += kThinkClose;
    }
    out_ += message.content;
    if (!message.calls_text.empty()) {
      out_ += message.calls_text;
    } else if (!message.tool_calls.empty()) {
      out_ += ToolCallsText(message.tool_calls, options_.format);
    }
    if (!message.wo_eos) out_ += kEos;
  }

  // What follows message i when the model, or a reminder, comes next. [chat.md 4.6]
  void RenderTransition(size_t i) {
    const std::vector<Message>& messages = prepared_.messages;
    const bool is_last = i + 1 == messages.size();
    if (!is_last && messages[i + 1].role != Role::kAssistant &&
        messages[i + 1].role != Role::kLatestReminder) {
      return;
    }
    const Task task = messages[i].task;
    if (task == Task::kAction) {
      RenderTurn(thinking());
      out_ += TaskMarker(task);
    } else if (task != Task::kNone) {
      out_ += TaskMarker(task);
    } else if (CountsAsUser(messages[i], i, options_.format)) {
      const bool keeps_reasoning =
          !prepared_.drops_thinking || static_cast<int>(i) >= prepared_.last_user_idx;
      RenderTurn(thinking() && keeps_reasoning);
    }
  }

  void RenderTurn(bool opens_thinking) {
    out_ += kAssistantMarker;
    out_ += opens_thinking ? kThinkOpen : kThinkClose;
  }

  const PreparedMessages& prepared_;
  const EncodeOptions& options_;
  std::string effort_;
  std::string out_;
};

}  // namespace

Result<std::string> EncodePrompt(const Conversation& conversation, const EncodeOptions& options) {
  CACHALOT_TRY(std::string effort, EffortText(options));
  const PreparedMessages prepared = PrepareMessages(conversation, options);
  return Renderer(prepared, options, std::move(effort)).Render();
}

bool PromptOpensThinking(std::string_view prompt) { return prompt.ends_with(kThinkOpen); }

}  // namespace cachalot::chat
