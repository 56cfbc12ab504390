// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/prompt.h"

#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/encode.h"
#include "cachalot/chat/markers.h"

namespace cachalot::serve {
namespace {

// [chat.md 2.3, 4.11]
constexpr std::string_view kFimBegin = "<\uFF5Cfim\u2581begin\uFF5C>";
constexpr std::string_view kFimHole = "<\uFF5Cfim\u2581hole\uFF5C>";
constexpr std::string_view kFimEnd = "<\uFF5Cfim\u2581end\uFF5C>";

api::ApiResult<Prompt> ConversationPrompt(const api::GenerateRequest& request,
                                          const ServedModel& model) {
  Prompt prompt;
  CACHALOT_TRY(prompt.text, chat::EncodePrompt(request.conversation,
                                               api::EncodeOptionsOf(request, model.format)));
  prompt.thinking = chat::PromptOpensThinking(prompt.text);
  const bool forced = request.tool_choice == api::ToolChoice::kRequired ||
                      request.tool_choice == api::ToolChoice::kNamed;
  if (forced) {
    // The model has no choice but to go on inside the block. [chat.md 7, 4]
    prompt.open_block = StrCat("\n\n<", chat::kDsml, chat::TagsOf(model.format).block, ">\n");
    prompt.text += prompt.open_block;
  }
  return prompt;
}

api::ApiResult<Prompt> CompletionPrompt(const api::GenerateRequest& request,
                                        const api::GenerateRequest::Prompt& given,
                                        const ServedModel& model) {
  Prompt prompt;
  if (!given.ids.empty()) {
    prompt.ids = given.ids;
    return prompt;
  }
  if (!request.has_suffix) {
    prompt.text = given.text;
  } else if (!model.tokenizer->FindSpecial(kFimHole)) {
    return api::InvalidRequest("suffix",
                               "this model's tokenizer has no fill-in-the-middle markers");
  } else {
    prompt.text = StrCat(kFimBegin, given.text, kFimHole, request.suffix, kFimEnd);
  }
  return prompt;
}

api::ApiStatus CheckIds(const Prompt& prompt, const ServedModel& model) {
  for (const uint32_t id : prompt.ids) {
    if (id >= model.vocab_size) {
      return api::InvalidRequest(
          "prompt", StrCat("token id ", id, ", the vocabulary has ", model.vocab_size));
    }
  }
  if (prompt.ids.empty()) return api::InvalidRequest("prompt", "the prompt is empty");
  if (prompt.ids.size() >= model.max_context) {
    return api::ContextLengthExceeded(prompt.ids.size(), model.max_context);
  }
  return {};
}

}  // namespace

api::ApiResult<std::vector<Prompt>> BuildPrompts(const api::GenerateRequest& request,
                                                 const ServedModel& model,
                                                 kvcache::CacheScope scope,
                                                 Transcripts& transcripts) {
  std::vector<Prompt> prompts;
  if (request.surface == api::Surface::kCompletions) {
    for (const auto& given : request.prompts) {
      CACHALOT_TRY(Prompt prompt, CompletionPrompt(request, given, model));
      if (prompt.ids.empty()) {
        prompt.ids = transcripts.Encode(scope, prompt.text);
        if (model.plain_prefix && (prompt.ids.empty() || prompt.ids[0] != *model.plain_prefix)) {
          prompt.ids.insert(prompt.ids.begin(), *model.plain_prefix);
        }
      }
      prompts.push_back(std::move(prompt));
    }
  } else {
    CACHALOT_TRY(Prompt prompt, ConversationPrompt(request, model));
    prompt.ids = transcripts.Encode(scope, prompt.text);
    prompts.push_back(std::move(prompt));
  }
  for (const Prompt& prompt : prompts) {
    if (const auto status = CheckIds(prompt, model); !status.ok()) return status.error();
  }
  return prompts;
}

}  // namespace cachalot::serve
