// SPDX-License-Identifier: Apache-2.0
// POST /v1/completions. [api.md 5]
#include <limits>

#include "cachalot/api/options.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;
using Prompt = GenerateRequest::Prompt;

constexpr size_t kMaxPrompts = 64;
constexpr int64_t kMaxLogprobs = 20;

ApiResult<Prompt> ReadIds(const JsonValue& json, const std::string& path) {
  if (json.items.empty()) return InvalidRequest(path, StrCat(path, ": is an empty list"));
  Prompt prompt;
  prompt.ids.reserve(json.items.size());
  for (size_t i = 0; i < json.items.size(); ++i) {
    CACHALOT_TRY(const int64_t id, IntegerOf(json.items[i], ItemPath(path, i), 0,
                                             std::numeric_limits<uint32_t>::max()));
    prompt.ids.push_back(static_cast<uint32_t>(id));
  }
  return prompt;
}

ApiResult<Prompt> ReadPrompt(const JsonValue& json, const std::string& path) {
  if (json.IsString()) return Prompt{.text = json.text};
  if (json.IsArray()) return ReadIds(json, path);
  return WrongKind(path, json, "a string or a list of token ids");
}

// A string, a list of ids, or a list of either.
ApiStatus ReadPrompts(const Object& body, GenerateRequest& request) {
  const JsonValue* json = body.Find("prompt");
  if (json == nullptr) {
    request.prompts.push_back({.text = "Once upon a time,"});
    return {};
  }
  const bool one =
      !json->IsArray() || json->items.empty() || json->items[0].kind == JsonValue::Kind::kNumber;
  if (one) {
    CACHALOT_TRY(Prompt prompt, ReadPrompt(*json, "prompt"));
    request.prompts.push_back(std::move(prompt));
    return {};
  }
  if (json->items.size() > kMaxPrompts) {
    return InvalidRequest("prompt", StrCat("prompt: has ", json->items.size(),
                                           " prompts, expected at most ", kMaxPrompts));
  }
  for (size_t i = 0; i < json->items.size(); ++i) {
    CACHALOT_TRY(Prompt prompt, ReadPrompt(json->items[i], ItemPath("prompt", i)));
    request.prompts.push_back(std::move(prompt));
  }
  return {};
}

ApiStatus ReadSuffix(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(std::optional<std::string> suffix, body.String("suffix"));
  CACHALOT_TRY(request.echo, body.Bool("echo", false));
  request.has_suffix = suffix.has_value();
  request.suffix = std::move(suffix).value_or("");
  if (request.echo && (request.has_suffix || request.logprobs)) {
    return InvalidRequest("echo", "echo cannot be used together with suffix or logprobs");
  }
  for (const Prompt& prompt : request.prompts) {
    if (!request.has_suffix || prompt.ids.empty()) continue;
    return InvalidRequest("suffix", "suffix: needs a prompt of text, not of token ids");
  }
  return {};
}

ApiStatus ReadLogprobs(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(const std::optional<int64_t> top, body.Integer("logprobs", 0, kMaxLogprobs));
  request.logprobs = top.has_value();
  request.top_logprobs = static_cast<uint32_t>(top.value_or(0));
  return {};
}

}  // namespace

ApiResult<GenerateRequest> ParseCompletions(std::string_view body_text,
                                            const ParseContext& context) {
  CACHALOT_TRY(const JsonValue json, ParseBody(body_text));
  CACHALOT_TRY(const Object body, Object::Of(json, ""));
  Draft draft;
  GenerateRequest& request = draft.request;
  request.surface = Surface::kCompletions;
  CACHALOT_RETURN_IF_ERROR(ReadModel(body, draft));
  request.thinking = false;
  CACHALOT_RETURN_IF_ERROR(ReadPrompts(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadLogprobs(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadSuffix(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadStream(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadSampling(body, request.sampling));
  CACHALOT_RETURN_IF_ERROR(ReadStops(body, "stop", request));
  CACHALOT_RETURN_IF_ERROR(ReadMaxTokens(body, {"max_tokens"}, context, request));
  CACHALOT_RETURN_IF_ERROR(ReadN(body, context, request));
  CACHALOT_RETURN_IF_ERROR(ReadUser(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadPriority(body, request));
  CACHALOT_RETURN_IF_ERROR(ReadOtherFormats(body, draft));
  return std::move(request);
}

}  // namespace cachalot::api
