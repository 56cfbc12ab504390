// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/request.h"

namespace cachalot::api {

ApiResult<GenerateRequest> ParseRequest(Surface surface, std::string_view body,
                                        const ParseContext& context) {
  switch (surface) {
    case Surface::kChat:
      return ParseChat(body, context);
    case Surface::kCompletions:
      return ParseCompletions(body, context);
    case Surface::kMessages:
      return ParseMessages(body, context);
    case Surface::kResponses:
      break;
  }
  return ParseResponses(body, context);
}

chat::EncodeOptions EncodeOptionsOf(const GenerateRequest& request, chat::Format format) {
  chat::EncodeOptions options;
  options.format = format;
  options.thinking_mode =
      request.thinking ? chat::ThinkingMode::kThinking : chat::ThinkingMode::kChat;
  options.reasoning_effort = request.effort;
  return options;
}

}  // namespace cachalot::api
