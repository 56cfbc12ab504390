// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/reply.h"

#include <algorithm>

#include "cachalot/api/json_text.h"
#include "cachalot/api/writers.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

std::string TokenMembers(const std::string& bytes, float logprob, const std::string& top) {
  return JsonObject({{"token", JsonText(bytes)},
                     {"logprob", JsonLogprob(logprob)},
                     {"bytes", JsonBytes(bytes)},
                     {"top_logprobs", top}});
}

}  // namespace

std::unique_ptr<ReplyWriter> MakeReplyWriter(const GenerateRequest& request, ReplyInfo info) {
  switch (request.surface) {
    case Surface::kChat:
      return MakeChatReply(request, std::move(info));
    case Surface::kCompletions:
      return MakeCompletionsReply(request, std::move(info));
    case Surface::kMessages:
      return MakeMessagesReply(request, std::move(info));
    case Surface::kResponses:
      break;
  }
  return MakeResponsesReply(request, std::move(info));
}

std::string CallId(Surface surface, std::string_view reply_id, uint32_t choice, uint32_t index) {
  const std::string_view prefix = surface == Surface::kMessages ? "toolu" : "call";
  std::string id = StrCat(prefix, index < 10 ? "_0" : "_", index, "_", reply_id);
  if (choice > 0) id += StrCat("_", choice);
  return id;
}

std::string_view KeepAliveBytes(Surface surface) {
  if (surface == Surface::kMessages) return "event: ping\ndata: {\"type\":\"ping\"}\n\n";
  return ": keep-alive\n\n";
}

std::string TokenCountBody(Surface surface, uint64_t num_tokens) {
  const bool messages = surface == Surface::kMessages;
  return JsonObject({{"object", messages ? "" : "\"response.input_tokens\""},
                     {"input_tokens", std::to_string(num_tokens)}});
}

std::string OpenAiUsage(const Usage& usage) {
  const auto number = [](uint32_t n) { return std::to_string(n); };
  const uint32_t missed = usage.prompt_tokens - std::min(usage.cached_tokens, usage.prompt_tokens);
  const uint64_t total = uint64_t{usage.prompt_tokens} + usage.completion_tokens;
  return JsonObject(
      {{"prompt_tokens", number(usage.prompt_tokens)},
       {"completion_tokens", number(usage.completion_tokens)},
       {"total_tokens", std::to_string(total)},
       {"prompt_tokens_details", JsonObject({{"cached_tokens", number(usage.cached_tokens)}})},
       {"completion_tokens_details",
        JsonObject({{"reasoning_tokens", number(usage.reasoning_tokens)}})},
       {"prompt_cache_hit_tokens", number(usage.cached_tokens)},
       {"prompt_cache_miss_tokens", number(missed)}});
}

std::string_view OpenAiFinish(Finish finish) {
  switch (finish) {
    case Finish::kStop:
    case Finish::kStopString:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kToolCalls:
      return "tool_calls";
    case Finish::kAborted:
      break;
  }
  return "insufficient_system_resource";
}

CallName SplitCallName(std::string_view full_name) {
  const size_t at = full_name.find("::");
  if (at == std::string_view::npos) return {"", JsonText(full_name)};
  return {JsonText(full_name.substr(0, at)), JsonText(full_name.substr(at + 2))};
}

std::string LogprobList(const std::vector<TokenLogprob>& logprobs) {
  std::vector<std::string> items;
  for (const TokenLogprob& token : logprobs) {
    std::vector<std::string> top;
    for (const auto& [bytes, logprob] : token.top) top.push_back(TokenMembers(bytes, logprob, ""));
    items.push_back(TokenMembers(token.token_bytes, token.logprob, JsonList(top)));
  }
  return JsonList(items);
}

}  // namespace cachalot::api
