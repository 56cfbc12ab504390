// SPDX-License-Identifier: Apache-2.0
// POST /v1/messages and /v1/messages/count_tokens, Anthropic's protocol. [api.md 6.1]
#include "cachalot/api/messages_blocks.h"
#include "cachalot/api/options.h"
#include "cachalot/api/tools.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

// budget_tokens is ignored. Adaptive leaves it to the model whether it thinks, so a forced tool
// call may switch it off.
ApiStatus ReadThinking(const Object& body, ThinkingWish& wish) {
  CACHALOT_TRY(const std::optional<Object> thinking, body.Child("thinking"));
  if (!thinking.has_value()) return {};
  CACHALOT_TRY(const std::string type, thinking->RequiredString("type"));
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return UnknownName("thinking.type", type, "enabled, disabled, adaptive");
  }
  wish.Say(type != "disabled", type != "adaptive");
  return {};
}

// {"type": "json_schema", "schema": ...} of output_config.format, or of the older output_format.
ApiStatus ReadFormats(const Object& body, const std::optional<Object>& config, Draft& draft) {
  CACHALOT_TRY(std::optional<Object> format, body.Child("output_format"));
  if (config.has_value()) {
    CACHALOT_TRY(std::optional<Object> newer, config->Child("format"));
    if (newer.has_value()) format = std::move(newer);
  }
  if (!format.has_value()) return {};
  CACHALOT_TRY(const std::string type, format->RequiredString("type"));
  if (type != "json_schema") return UnknownName(format->PathOf("type"), type, "json_schema");
  return ReadOutputFormat(*format, draft);
}

ApiStatus ReadUserId(const Object& body, GenerateRequest& request) {
  constexpr size_t kMaxBytes = 512;
  CACHALOT_TRY(const std::optional<Object> metadata, body.Child("metadata"));
  if (!metadata.has_value()) return {};
  CACHALOT_TRY(const std::optional<std::string> id, metadata->String("user_id"));
  request.user_id = id.value_or("");
  if (request.user_id.size() <= kMaxBytes) return {};
  return InvalidRequest("metadata.user_id", "metadata.user_id: expected at most 512 bytes");
}

ApiResult<GenerateRequest> Parse(std::string_view body_text, const ParseContext& context,
                                 bool needs_max_tokens) {
  CACHALOT_TRY(const JsonValue json, ParseBody(body_text));
  CACHALOT_TRY(const Object body, Object::Of(json, ""));
  Draft draft;
  GenerateRequest& request = draft.request;
  request.surface = Surface::kMessages;
  CACHALOT_TRY(std::string system, ReadMessagesSystem(body));
  CACHALOT_TRY(draft.messages, ReadMessagesMessages(body));
  draft.messages.insert(draft.messages.begin(), chat::SystemMessage(std::move(system)));
  CACHALOT_TRY(const std::optional<Object> config, body.Child("output_config"));
  CACHALOT_RETURN_IF_ERROR(ReadThinking(body, draft.thinking));
  if (config.has_value()) {
    CACHALOT_RETURN_IF_ERROR(ReadEffort(*config, "effort", context, draft.thinking));
  }
  CACHALOT_RETURN_IF_ERROR(ReadModel(body, draft));
  CACHALOT_TRY(request.stream, body.Bool("stream", false));
  CACHALOT_RETURN_IF_ERROR(ReadSampling(body, request.sampling));
  CACHALOT_RETURN_IF_ERROR(ReadStops(body, "stop_sequences", request));
  CACHALOT_RETURN_IF_ERROR(ReadMaxTokens(body, {"max_tokens"}, context, request));
  if (needs_max_tokens && !request.max_tokens.has_value()) return MissingField("max_tokens");
  CACHALOT_RETURN_IF_ERROR(ReadUserId(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadPriority(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadMessagesTools(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadFormats(body, config, draft));
  return FinishDraft(std::move(draft), context);
}

}  // namespace

ApiResult<GenerateRequest> ParseMessages(std::string_view body, const ParseContext& context) {
  return Parse(body, context, /*needs_max_tokens=*/true);
}

ApiResult<GenerateRequest> ParseCountTokens(std::string_view body, const ParseContext& context) {
  return Parse(body, context, /*needs_max_tokens=*/false);
}

}  // namespace cachalot::api
