// SPDX-License-Identifier: Apache-2.0
// What a client is told when its request fails, in the shape of the API it speaks. [api.md 9, 6.3]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

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
};

// 400 about the field `param`, "" if it is about none.
ApiError InvalidRequest(std::string param, std::string message);
// 400 with the code clients look for.
ApiError ContextLengthExceeded(uint64_t prompt_tokens, uint64_t max_context);
// 401, 404, 413, 429, 503, ...: type and code by the status, as api.md 9 has them.
ApiError ErrorOfStatus(int status, std::string message);
// Status by HttpStatus(error.code).
ApiError FromError(const Error& error);

// The whole body of a failed request.
std::string ErrorBody(Surface surface, const ApiError& error);

// A value or what to tell the client. Works with CACHALOT_TRY, from Result<T> too.
template <typename T>
class [[nodiscard]] ApiResult {
 public:
  ApiResult(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit
  ApiResult(ApiError error)
      : state_(std::in_place_index<1>, std::move(error)) {}       // NOLINT: implicit
  ApiResult(const Error& error) : ApiResult(FromError(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // Pre: ok().
  T& value() & {
    CACHALOT_CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    CACHALOT_CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    CACHALOT_CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Pre: !ok().
  const ApiError& error() const {
    CACHALOT_CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  std::variant<T, ApiError> state_;
};

template <>
class [[nodiscard]] ApiResult<void> {
 public:
  ApiResult() = default;
  ApiResult(ApiError error) : error_(std::move(error)) {}         // NOLINT: implicit
  ApiResult(const Error& error) : ApiResult(FromError(error)) {}  // NOLINT: implicit

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const ApiError& error() const {
    CACHALOT_CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<ApiError> error_;
};

using ApiStatus = ApiResult<void>;

}  // namespace cachalot::api
