// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/merge.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace cachalot::chat {
namespace {

void AppendToolResult(const Message& message, std::vector<Message>& out) {
  if (out.empty() || out.back().role != Role::kUser) out.push_back({.role = Role::kUser});
  out.back().blocks.push_back(
      {.type = "tool_result", .text = message.content, .tool_use_id = message.tool_call_id});
}

// Of a user message joined to the one before only the blocks survive, even its task is lost; of one
// that stands alone also task and wo_eos. tools and response_format never do. Released behavior.
void AppendUser(const Message& message, std::vector<Message>& out) {
  if (out.empty() || out.back().role != Role::kUser || out.back().task != Task::kNone) {
    Message user{.role = Role::kUser};
    user.task = message.task;
    user.wo_eos = message.wo_eos;
    out.push_back(std::move(user));
  }
  std::vector<ContentBlock>& blocks = out.back().blocks;
  blocks.insert(blocks.end(), message.blocks.begin(), message.blocks.end());
}

std::vector<Message> Merge(const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (const Message& message : messages) {
    if (message.role == Role::kTool) {
      AppendToolResult(message, out);
    } else if (message.role == Role::kUser) {
      AppendUser(message, out);
    } else {
      out.push_back(message);
    }
  }
  return out;
}

using CallOrder = std::map<std::string, size_t>;

void SortResults(const CallOrder& order, std::vector<ContentBlock>& blocks) {
  const auto position = [&order](const ContentBlock& block) {
    const auto found = order.find(block.tool_use_id);
    return found == order.end() ? size_t{0} : found->second;
  };
  std::vector<ContentBlock*> places;
  std::vector<ContentBlock> results;
  for (ContentBlock& block : blocks) {
    if (block.type != "tool_result") continue;
    places.push_back(&block);
    results.push_back(block);
  }
  std::stable_sort(results.begin(), results.end(),
                   [&position](const ContentBlock& a, const ContentBlock& b) {
                     return position(a) < position(b);
                   });
  for (size_t i = 0; i < places.size(); ++i) *places[i] = std::move(results[i]);
}

void SortToolResults(std::vector<Message>& messages) {
  CallOrder order;
  for (Message& message : messages) {
    if (message.role == Role::kAssistant && !message.tool_calls.empty()) {
      order.clear();
      for (size_t i = 0; i < message.tool_calls.size(); ++i) {
        if (!message.tool_calls[i].id.empty()) order[message.tool_calls[i].id] = i;
      }
    } else if (message.role == Role::kUser) {
      SortResults(order, message.blocks);
    }
  }
}

int LastUserIndex(const std::vector<Message>& messages, Format format) {
  for (size_t i = messages.size(); i > 0; --i) {
    if (CountsAsUser(messages[i - 1], i - 1, format)) return static_cast<int>(i - 1);
  }
  return -1;
}

// Before the last user message: reasoning is forgotten, developer messages vanish.
void DropOld(PreparedMessages& prepared) {
  std::vector<Message> kept;
  size_t num_context = 0;
  for (size_t i = 0; i < prepared.messages.size(); ++i) {
    Message& message = prepared.messages[i];
    if (static_cast<int>(i) < prepared.last_user_idx) {
      if (message.role == Role::kDeveloper) continue;
      message.reasoning_content.clear();
    }
    if (i < prepared.num_context) ++num_context;
    kept.push_back(std::move(message));
  }
  prepared.messages = std::move(kept);
  prepared.num_context = num_context;
}

}  // namespace

bool CountsAsUser(const Message& message, size_t index, Format format) {
  if (message.role == Role::kUser || message.role == Role::kDeveloper) return true;
  return format == Format::kV4_1 && message.role == Role::kSystem && index > 0;
}

PreparedMessages PrepareMessages(const Conversation& conversation, const EncodeOptions& options) {
  PreparedMessages prepared;
  prepared.messages = Merge(conversation.context);
  prepared.num_context = prepared.messages.size();
  for (Message& message : Merge(conversation.messages)) {
    prepared.messages.push_back(std::move(message));
  }
  SortToolResults(prepared.messages);
  prepared.drops_thinking =
      options.drop_thinking && std::none_of(prepared.messages.begin(), prepared.messages.end(),
                                            [](const Message& m) { return !m.tools.empty(); });
  prepared.last_user_idx = LastUserIndex(prepared.messages, options.format);
  if (prepared.drops_thinking && options.thinking_mode == ThinkingMode::kThinking) {
    DropOld(prepared);
    prepared.last_user_idx = LastUserIndex(prepared.messages, options.format);
  }
  return prepared;
}

}  // namespace cachalot::chat
