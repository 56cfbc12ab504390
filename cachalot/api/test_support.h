// SPDX-License-Identifier: Apache-2.0
// What the tests of the module share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "cachalot/api/reply.h"
#include "cachalot/api/request.h"
#include "cachalot/chat/encode.h"

namespace cachalot::api {

inline constexpr chat::Format kFormat = chat::Format::kV4_0731;
inline constexpr Surface kSurfaces[] = {Surface::kChat, Surface::kCompletions, Surface::kMessages,
                                        Surface::kResponses};

// A request that must be accepted.
inline GenerateRequest Accepted(Surface surface, std::string_view body,
                                chat::Format format = kFormat) {
  ApiResult<GenerateRequest> request = ParseRequest(surface, body, {.format = format});
  EXPECT_TRUE(request.ok()) << body << "\n" << (request.ok() ? "" : request.error().message);
  return request.ok() ? *std::move(request) : GenerateRequest{};
}

// "param | message" of a request that must be refused with 400.
inline std::string Refused(Surface surface, std::string_view body, chat::Format format = kFormat) {
  const ApiResult<GenerateRequest> request = ParseRequest(surface, body, {.format = format});
  if (request.ok()) return "accepted";
  EXPECT_EQ(request.error().status, 400);
  EXPECT_EQ(request.error().type, "invalid_request_error");
  return request.error().param + " | " + request.error().message;
}

// The prompt, with the protocol's two special characters in ASCII.
inline std::string PromptOf(const GenerateRequest& request, chat::Format format = kFormat) {
  const Result<std::string> prompt =
      chat::EncodePrompt(request.conversation, EncodeOptionsOf(request, format));
  if (!prompt.ok()) return "error: " + prompt.error().message;
  std::string out = *prompt;
  for (const auto& [from, to] :
       {std::pair<std::string_view, char>{"\uFF5C", '|'}, {"\u2581", '_'}}) {
    for (size_t at = out.find(from); at != std::string::npos; at = out.find(from)) {
      out.replace(at, from.size(), 1, to);
    }
  }
  return out;
}

inline ReplyInfo Info() {
  return {.id = "abc", .created = 1700000000, .model = "deepseek-v4-flash", .fingerprint = "fp_1"};
}

inline Delta Reasoning(std::string text) {
  return {.kind = Delta::Kind::kReasoning, .text = std::move(text)};
}
inline Delta Content(std::string text) {
  return {.kind = Delta::Kind::kContent, .text = std::move(text)};
}
inline Delta CallStart(std::string name) {
  return {.kind = Delta::Kind::kCallStart, .text = std::move(name)};
}
inline Delta Arguments(std::string text) {
  return {.kind = Delta::Kind::kArguments, .text = std::move(text)};
}
inline Delta CallEnd() { return {.kind = Delta::Kind::kCallEnd}; }

struct Ending {
  Finish finish = Finish::kStop;
  std::string stop_string;
  Usage usage = {
      .prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 7, .reasoning_tokens = 3};
};

// The whole reply: the stream, or the body.
inline std::string Reply(const GenerateRequest& request, const std::vector<Delta>& deltas,
                         const Ending& ending = {}) {
  const auto writer = MakeReplyWriter(request, Info());
  std::string out = writer->Begin(ending.usage);
  for (const Delta& delta : deltas) out += writer->Add(delta);
  for (uint32_t i = 0; i < request.NumChoices(); ++i) {
    out += writer->End(i, ending.finish, ending.stop_string);
  }
  out += writer->Done(ending.usage);
  return request.stream ? out : out + writer->Body();
}

// A stream's lines without what all its chunks have in common.
inline std::string Brief(std::string stream, std::string_view common) {
  for (size_t at = stream.find(common); at != std::string::npos; at = stream.find(common)) {
    stream.replace(at, common.size(), "..");
  }
  return stream;
}

}  // namespace cachalot::api
