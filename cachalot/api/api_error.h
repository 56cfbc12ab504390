// SPDX-License-Identifier: Apache-2.0
// What a client is told when its request fails, in the shape of the API it speaks. [api.md 9, 6.3]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot::api {

// The four protocols. Each has a parser (request.h) and a writer (reply.h).
enum class Surface : uint8_t {
  kChat,         // OpenAI, /v1/chat/completions
  kCompletions,  // OpenAI, /v1/completions, with suffix = FIM
  kMessages,     // Anthropic, /v1/messages
  kResponses,    // OpenAI, /v1/responses
};

// In OpenAI's words; ErrorBody translates. An empty `param` or `code` is written as null.
struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string code = "invalid_request_error";
  std::string param;  // the field's path: "messages[3].content"
  std::string message;

  static ApiError From(const Error& error);  // status by HttpStatus(error.code)
};

// 400 about the field `param`, "" if it is about none.
ApiError InvalidRequest(std::string param, std::string message);
// 400 with the code clients look for.
ApiError ContextLengthExceeded(uint64_t prompt_tokens, uint64_t max_context);
// 401, 404, 413, 429, 503, ...: type and code by the status, as api.md 9 has them.
ApiError ErrorOfStatus(int status, std::string message);

// The whole body of a failed request.
std::string ErrorBody(Surface surface, const ApiError& error);

// A value or what to tell the client. Works with CACHALOT_TRY, from Result<T> too.
template <typename T>
using ApiResult = Result<T, ApiError>;
using ApiStatus = ApiResult<void>;

}  // namespace cachalot::api
