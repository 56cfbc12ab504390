// SPDX-License-Identifier: Apache-2.0
// POST /v1/responses, as Codex and the OpenAI SDKs use it. [api.md 7.1]
#include "cachalot/api/options.h"
#include "cachalot/api/responses_items.h"
#include "cachalot/api/tools.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

constexpr int64_t kMaxTopLogprobs = 20;

// Nothing is stored, so there is nothing to go on from; answering without it would be a wrong
// answer.
ApiStatus RefuseStored(const Object& body) {
  for (const std::string_view key : {"previous_response_id", "conversation"}) {
    if (body.Find(key) == nullptr) continue;
    return InvalidRequest(
        std::string(key),
        StrCat(key, ": responses are not stored here; send the whole conversation as input"));
  }
  return {};
}

ApiStatus ReadReasoning(const Object& body, const ParseContext& context, ThinkingWish& wish) {
  CACHALOT_TRY(const std::optional<Object> reasoning, body.Child("reasoning"));
  if (!reasoning.has_value()) return {};
  return ReadEffort(*reasoning, "effort", context, wish);
}

ApiStatus ReadText(const Object& body, Draft& draft) {
  CACHALOT_TRY(const std::optional<Object> text, body.Child("text"));
  if (!text.has_value()) return {};
  CACHALOT_TRY(const std::optional<Object> format, text->Child("format"));
  if (!format.has_value()) return {};
  return ReadOutputFormat(*format, draft);
}

// Asked for by a number, or by naming them in `include`.
ApiStatus ReadLogprobs(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(const std::optional<int64_t> top, body.Integer("top_logprobs", 0, kMaxTopLogprobs));
  request.top_logprobs = static_cast<uint32_t>(top.value_or(0));
  request.logprobs = request.top_logprobs > 0;
  CACHALOT_TRY(const auto include, body.List("include"));
  for (size_t i = 0; i < include.size(); ++i) {
    if (!include[i].IsString()) return WrongKind(ItemPath("include", i), include[i], "a string");
    if (include[i].text == "message.output_text.logprobs") request.logprobs = true;
  }
  return {};
}

ApiStatus ReadConversation(const Object& body, Draft& draft) {
  CACHALOT_TRY(std::optional<std::string> instructions, body.String("instructions"));
  CACHALOT_TRY(draft.messages, ReadResponsesInput(body));
  if (!instructions.has_value() && draft.messages.empty()) {
    return InvalidRequest("input", "Either input or instructions must be provided");
  }
  if (instructions.has_value()) {
    draft.messages.insert(draft.messages.begin(), chat::SystemMessage(*std::move(instructions)));
  }
  return {};
}

}  // namespace

ApiResult<GenerateRequest> ParseResponses(std::string_view body_text, const ParseContext& context) {
  CACHALOT_TRY(const JsonValue json, ParseBody(body_text));
  CACHALOT_TRY(const Object body, Object::Of(json, ""));
  Draft draft;
  GenerateRequest& request = draft.request;
  request.surface = Surface::kResponses;
  CACHALOT_RETURN_IF_ERROR(RefuseStored(body));
  CACHALOT_RETURN_IF_ERROR(ReadConversation(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadReasoning(body, context, draft.thinking));
  CACHALOT_RETURN_IF_ERROR(ReadModel(body, draft));
  CACHALOT_TRY(request.stream, body.Bool("stream", false));
  CACHALOT_RETURN_IF_ERROR(ReadSampling(body, request.sampling));
  CACHALOT_RETURN_IF_ERROR(ReadMaxTokens(body, {"max_output_tokens"}, context, request));
  CACHALOT_RETURN_IF_ERROR(ReadLogprobs(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadUser(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadPriority(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadResponsesTools(body, draft));
  CACHALOT_RETURN_IF_ERROR(ReadText(body, draft));
  return FinishDraft(std::move(draft), context);
}

}  // namespace cachalot::api
