// SPDX-License-Identifier: Apache-2.0
// Request bodies of the four protocols from any bytes: refused with a 4xx and a JSON body, or
// accepted with everything in its range and a conversation that has a prompt.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cachalot/api/reply.h"
#include "cachalot/api/request.h"
#include "cachalot/chat/encode.h"

namespace {

using namespace cachalot::api;  // NOLINT: one file, one purpose
using cachalot::chat::Format;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckRefusal(Surface surface, const ApiError& error) {
  Require(error.status >= 400 && error.status < 500 && !error.message.empty());
  Require(cachalot::chat::ParseJsonValue(ErrorBody(surface, error), "error").ok());
}

void CheckRanges(const GenerateRequest& request) {
  Require(request.n >= 1 && request.n <= 8);
  Require(!request.max_tokens.has_value() || *request.max_tokens >= 1);
  Require(request.schemas.size() == request.tools.size());
  Require(request.strict.size() == request.tools.size());
  const bool forced =
      request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed;
  Require(!forced || (!request.thinking && !request.tools.empty()));
  for (const std::string& stop : request.stops) Require(!stop.empty());
}

// The only conversation without a prompt spells the image marker of V4.1.
void CheckPrompt(const GenerateRequest& request, Format format) {
  const auto prompt =
      cachalot::chat::EncodePrompt(request.conversation, EncodeOptionsOf(request, format));
  Require(prompt.ok() || prompt.error().message.find("stands for an image") != std::string::npos);
}

}  // namespace

// The first byte says which protocol and format.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto surface = static_cast<Surface>(data[0] % 4);
  const auto format = static_cast<Format>(data[0] / 4 % 3);
  const bool counts = surface == Surface::kMessages && data[0] >= 128;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const ParseContext context{.format = format};
  const auto request =
      counts ? ParseCountTokens(body, context) : ParseRequest(surface, body, context);
  if (!request.ok()) {
    CheckRefusal(surface, request.error());
    return 0;
  }
  Require(request->surface == surface);
  CheckRanges(*request);
  if (surface == Surface::kCompletions) {
    Require(!request->prompts.empty());
  } else {
    CheckPrompt(*request, format);
  }
  return 0;
}
