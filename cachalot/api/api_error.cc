// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/api_error.h"

#include <array>

#include "cachalot/api/json_text.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

struct StatusRow {
  int status;
  std::string_view type;       // OpenAI's
  std::string_view code;       // OpenAI's
  std::string_view anthropic;  // Anthropic's type
};

// [api.md 9, 6.3]
constexpr std::array<StatusRow, 12> kRows = {{
    {400, "invalid_request_error", "invalid_request_error", "invalid_request_error"},
    {401, "authentication_error", "invalid_request_error", "authentication_error"},
    {403, "permission_error", "permission_error", "permission_error"},
    {404, "not_found_error", "not_found", "not_found_error"},
    {405, "invalid_request_error", "method_not_allowed", "invalid_request_error"},
    {413, "invalid_request_error", "request_too_large", "request_too_large"},
    {415, "invalid_request_error", "unsupported_media_type", "invalid_request_error"},
    {429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error"},
    {501, "not_supported_error", "not_supported", "invalid_request_error"},
    {503, "unavailable_error", "unavailable", "overloaded_error"},
    {529, "unavailable_error", "unavailable", "overloaded_error"},
    {500, "server_error", "internal_error", "api_error"},
}};

// Statuses of the same hundred that have no row are as 400 and 500.
const StatusRow& RowOf(int status) {
  for (const StatusRow& row : kRows) {
    if (row.status == status) return row;
  }
  return status >= 500 ? kRows.back() : kRows.front();
}

std::string TextOrNull(const std::string& text) { return text.empty() ? "null" : JsonText(text); }

}  // namespace

ApiError InvalidRequest(std::string param, std::string message) {
  ApiError error;
  error.param = std::move(param);
  error.message = std::move(message);
  return error;
}

ApiError ContextLengthExceeded(uint64_t prompt_tokens, uint64_t max_context) {
  ApiError error;
  error.code = "context_length_exceeded";
  error.message = StrCat("The prompt has ", prompt_tokens, " tokens, this server's context is ",
                         max_context, " tokens: shorten it or raise the server's context");
  return error;
}

ApiError ErrorOfStatus(int status, std::string message) {
  const StatusRow& row = RowOf(status);
  ApiError error;
  error.status = status;
  error.type = row.type;
  error.code = row.code;
  error.message = std::move(message);
  return error;
}

ApiError ApiError::From(const Error& error) {
  return ErrorOfStatus(HttpStatus(error.code), error.message);
}

std::string ErrorBody(Surface surface, const ApiError& error) {
  if (surface == Surface::kMessages) {
    const std::string type(RowOf(error.status).anthropic);
    return JsonObject(
        {{"type", "\"error\""},
         {"error", JsonObject({{"type", JsonText(type)}, {"message", JsonText(error.message)}})}});
  }
  return JsonObject({{"error", JsonObject({{"message", JsonText(error.message)},
                                           {"type", JsonText(error.type)},
                                           {"param", TextOrNull(error.param)},
                                           {"code", TextOrNull(error.code)}})}});
}

}  // namespace cachalot::api
