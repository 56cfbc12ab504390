// SPDX-License-Identifier: Apache-2.0
// Requests of the four protocols as one value. [api.md 4-7]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachalot/api/api_error.h"
#include "cachalot/chat/format.h"
#include "cachalot/chat/json_value.h"
#include "cachalot/chat/messages.h"
#include "cachalot/chat/tool_schema.h"

namespace cachalot::api {

enum class ToolChoice : uint8_t { kNone, kAuto, kRequired, kNamed };
enum class OutputFormat : uint8_t { kText, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };

// Absent: not asked for, the server's default. Ranges are checked, token ids are not (the
// vocabulary is unknown here).
struct Sampling {
  std::optional<float> temperature;                    // [0, 2]; 0 = greedy
  std::optional<float> top_p;                          // (0, 1]
  std::optional<float> min_p;                          // [0, 1]
  std::optional<float> repetition_penalty;             // (0, 10]
  std::optional<float> presence_penalty;               // [-2, 2]
  std::optional<float> frequency_penalty;              // [-2, 2]
  std::optional<uint32_t> top_k;                       // > 0; "off" is absent
  std::vector<std::pair<uint32_t, float>> logit_bias;  // [-100, 100]; ids unique, ascending
  std::optional<uint64_t> seed;                        // < 2^63
};

struct GenerateRequest {
  // One prompt of /completions: text, or ids if they are not empty.
  struct Prompt {
    std::string text;
    std::vector<uint32_t> ids;
  };

  Surface surface = Surface::kChat;
  std::string model;  // as asked for, without a trailing "[...]"; "" if none was named
  bool stream = false;
  bool include_usage = false;

  // Chat, Messages, Responses: ready for chat::EncodePrompt with EncodeOptionsOf(). Tools and the
  // response format are already on the leading system message.
  chat::Conversation conversation;
  bool thinking = true;
  std::optional<chat::ReasoningEffort> effort;  // set if thinking; in the words of the format
  bool continue_last =
      false;  // the last message is an assistant's, to be continued (wo_eos is set)

  // Completions. FIM if has_suffix: all prompts are text then.
  std::vector<Prompt> prompts;
  std::string suffix;
  bool has_suffix = false;
  bool echo = false;

  // What the model is shown: empty if tool_choice is kNone, the one tool if kNamed. Objects of
  // name, description, parameters (these as the client wrote them), in this order.
  std::vector<chat::JsonValue> tools;
  std::vector<chat::ToolSchema> schemas;  // one per tool
  std::vector<bool> strict;               // one per tool
  std::vector<std::string>
      custom_tools;  // Responses: names of those whose one parameter is `input`
  ToolChoice tool_choice = ToolChoice::kNone;  // kRequired, kNamed: thinking is off
  std::string tool_name;                       // kNamed
  bool parallel_tool_calls = true;
  bool strict_tools = false;  // any of `strict`

  OutputFormat output = OutputFormat::kText;
  // kJsonSchema: JSON text; kRegex: an expression for the whole answer; kChoice: a JSON list of
  // strings; kGrammar: GBNF. Fields of an error in it go by `format_field`.
  std::string schema;
  std::string format_field = "response_format";

  std::vector<std::string> stops;      // none is empty
  std::optional<uint32_t> max_tokens;  // >= 1
  uint32_t n = 1;                      // choices per prompt
  bool logprobs = false;
  uint32_t top_logprobs = 0;
  Sampling sampling;
  std::string user_id;  // separates caches; "" = none
  // Who is admitted first when several wait; lower is earlier, as vLLM has it.
  int32_t priority = 0;  // [-100, 100]

  // Choices of the reply: n, or prompts * n with index = prompt * n + k.
  uint32_t NumChoices() const {
    return n * (prompts.empty() ? 1 : static_cast<uint32_t>(prompts.size()));
  }
};

// What a request is held against.
struct ParseContext {
  chat::Format format = chat::Format::kV4Preview;
  uint32_t max_n = 8;
  uint32_t max_max_tokens = 393216;
};

// `body` is any bytes. Errors are 4xx and name the field; nothing is half done. Unknown fields are
// ignored, null is absent, 1.0 is an integer, a duplicate key takes the last value. Linear in the
// body.
ApiResult<GenerateRequest> ParseChat(std::string_view body, const ParseContext& context);
ApiResult<GenerateRequest> ParseCompletions(std::string_view body, const ParseContext& context);
ApiResult<GenerateRequest> ParseMessages(std::string_view body, const ParseContext& context);
ApiResult<GenerateRequest> ParseResponses(std::string_view body, const ParseContext& context);
// Messages without max_tokens.
ApiResult<GenerateRequest> ParseCountTokens(std::string_view body, const ParseContext& context);
// One of the first four.
ApiResult<GenerateRequest> ParseRequest(Surface surface, std::string_view body,
                                        const ParseContext& context);

// How the conversation of `request` is encoded.
chat::EncodeOptions EncodeOptionsOf(const GenerateRequest& request, chat::Format format);

}  // namespace cachalot::api
