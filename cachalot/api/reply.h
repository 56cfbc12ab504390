// SPDX-License-Identifier: Apache-2.0
// Replies of the four protocols, streamed or whole, from one sequence of deltas. [api.md 4.10, 5,
// 6.2, 6.3, 7.2, 7.3]
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachalot/api/api_error.h"
#include "cachalot/api/request.h"

namespace cachalot::api {

struct TokenLogprob {
  std::string token_bytes;
  float logprob = 0;
  std::vector<std::pair<std::string, float>> top;  // best first
};

// What the generation produced, in order per choice (chat::StreamParser's events). Text is UTF-8,
// cut between characters.
struct Delta {
  enum class Kind : uint8_t {
    kReasoning,
    kContent,
    kCallStart,  // text = name, V4.1 "namespace::name"
    kArguments,  // text: more of the JSON text of the last started call
    kCallEnd,    // the call is complete; does not come for a truncated one
  };
  Kind kind = Kind::kContent;
  uint32_t choice = 0;
  std::string text;
  std::vector<TokenLogprob> logprobs;  // of kReasoning and kContent, if asked for
};

enum class Finish : uint8_t {
  kStop,        // the model ended; counts as kToolCalls if there were calls
  kStopString,  // a stop string
  kLength,
  kToolCalls,
  kAborted,  // the server gave up (shutdown)
};

// completion_tokens includes reasoning_tokens; prompt_tokens includes cached_tokens. Sums over the
// choices.
struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t reasoning_tokens = 0;
};

struct ReplyInfo {
  std::string id;       // letters and digits, unique over time and hard to guess; prefixes are ours
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string fingerprint;
};

// One object a request. Order of calls: Begin; for each choice Add... then End (choices may
// interleave); Done. Or, anywhere, Fail as the last.
// Streaming (request.stream): every call returns the event-stream bytes to send, perhaps none; put
// together they are the whole reply. Not streaming: all return "", and Body() is the reply after
// Done or Fail. Both say the same, whatever the cuts of the deltas.
class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;
  // Only the prompt's figures are read.
  virtual std::string Begin(const Usage& prompt_usage) = 0;
  virtual std::string Add(const Delta& delta) = 0;
  // `stop_string`: what matched, of kStopString.
  virtual std::string End(uint32_t choice, Finish finish, std::string_view stop_string) = 0;
  virtual std::string Done(const Usage& usage) = 0;
  // An error after Begin, where the status is already sent.
  virtual std::string Fail(const ApiError& error) = 0;
  virtual std::string Body() const = 0;
};

// Keeps what it needs of `request`. With echo the text of each prompt comes first: for a prompt of
// ids put it into Prompt::text before.
std::unique_ptr<ReplyWriter> MakeReplyWriter(const GenerateRequest& request, ReplyInfo info);

// The id under which a call is shown to the client, as the writer gives it: "call_..", "toolu_..".
// `index` counts the calls of the choice.
std::string CallId(Surface surface, std::string_view reply_id, uint32_t choice, uint32_t index);

// Of every streamed reply.
inline constexpr std::string_view kStreamContentType = "text/event-stream; charset=utf-8";
// What to send into a silent event stream.
std::string_view KeepAliveBytes(Surface surface);

// The whole body of count_tokens (Messages) and input_tokens (Responses).
std::string TokenCountBody(Surface surface, uint64_t num_tokens);

}  // namespace cachalot::api
