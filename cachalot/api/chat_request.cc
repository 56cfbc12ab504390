// SPDX-License-Identifier: Apache-2.0
// POST /v1/chat/completions. [api.md 4]
#include "cachalot/api/chat_messages.h"
#include "cachalot/api/options.h"
#include "cachalot/api/tools.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

constexpr int64_t kMaxTopLogprobs = 20;

// thinking, reasoning_effort, chat_template_kwargs, in this order. [api.md 4.3]
ApiStatus ReadThinking(const Object& body, const ParseContext& context, ThinkingWish& wish) {
  CACHALOT_TRY(const std::optional<Object> thinking, body.Child("thinking"));
  if (thinking.has_value()) {
    CACHALOT_TRY(const std::string type, thinking->RequiredString("type"));
    if (type != "enabled" && type != "disabled") {
      return UnknownName("thinking.type", type, "enabled, disabled");
    }
    wish.Say(type == "enabled", true);
  }
  CACHALOT_RETURN_IF_ERROR(ReadEffort(body, "reasoning_effort", context, wish));
  CACHALOT_TRY(const std::optional<Object> kwargs, body.Child("chat_template_kwargs"));
  if (!kwargs.has_value()) return {};
  for (const std::string_view key : {"thinking", "enable_thinking"}) {
    CACHALOT_TRY(const std::optional<bool> on, kwargs->Bool(key));
    if (on.has_value()) wish.Say(*on, true);
  }
  return ReadEffort(*kwargs, "reasoning_effort", context, wish);
}

ApiStatus ReadLogprobs(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(request.logprobs, body.Bool("logprobs", false));
  CACHALOT_TRY(const std::optional<int64_t> top, body.Integer("top_logprobs", 0, kMaxTopLogprobs));
  if (!top.has_value()) return {};
  if (!request.logprobs && *top > 0) {
    return InvalidRequest("top_logprobs", "top_logprobs: needs logprobs = true");
  }
  request.top_logprobs = static_cast<uint32_t>(*top);
  return {};
}

// response_format wins over the spellings of llama-server and vLLM. [api.md 4.8]
ApiStatus ReadFormat(const Object& body, Draft& draft) {
  CACHALOT_RETURN_IF_ERROR(ReadOtherFormats(body, draft));
  CACHALOT_TRY(const std::optional<Object> format, body.Child("response_format"));
  if (!format.has_value()) return {};
  return ReadOutputFormat(*format, draft);
}

// vLLM's way to ask for a prefix completion. [api.md 4.11]
ApiStatus ReadContinuation(const Object& body, Draft& draft) {
  CACHALOT_TRY(const bool wanted, body.Bool("continue_final_message", false));
  CACHALOT_TRY(const bool opens_turn, body.Bool("add_generation_prompt", !wanted));
  if (!wanted) return {};
  chat::Message& last = draft.messages.back();
  if (opens_turn || last.role != chat::Role::kAssistant) {
    return InvalidRequest("continue_final_message",
                          "continue_final_message: needs an assistant message at the end and no "
                          "add_generation_prompt");
  }
  last.wo_eos = true;
  return {};
}

}  // namespace

ApiResult<GenerateRequest> ParseChat(std::string_view body_text, const ParseContext& context) {
  CACHALOT_TRY(const JsonValue json, ParseBody(body_text));
  CACHALOT_TRY(const Object body, Object::Of(json, ""));
  Draft draft;
  GenerateRequest& request = draft.request;
  request.surface = Surface::kChat;
  CACHALOT_TRY(draft.messages, ReadChatMessages(body));
  CACHALOT_RETURN_IF_ERROR(ReadContinuation(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadThinking(body, context, draft.thinking));
  CACHALOT_RETURN_IF_ERROR(ReadModel(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadStream(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadSampling(body, request.sampling));
  CACHALOT_RETURN_IF_ERROR(ReadStops(body, "stop", request));
  CACHALOT_RETURN_IF_ERROR(
      ReadMaxTokens(body, {"max_completion_tokens", "max_tokens"}, context, request));
  CACHALOT_RETURN_IF_ERROR(ReadN(body, context, request));
  CACHALOT_RETURN_IF_ERROR(ReadLogprobs(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadUser(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadPriority(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadChatTools(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadFormat(body, draft));
  return FinishDraft(std::move(draft), context);
}

}  // namespace cachalot::api
