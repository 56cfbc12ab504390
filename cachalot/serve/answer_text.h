// SPDX-License-Identifier: Apache-2.0
// The text of one answer: ids to characters, characters to reasoning, content and calls.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/api/reply.h"
#include "cachalot/api/request.h"
#include "cachalot/chat/stream_parser.h"
#include "cachalot/engine/engine.h"
#include "cachalot/serve/prompt.h"
#include "cachalot/serve/served_model.h"
#include "cachalot/tokenizer/stream_decoder.h"

namespace cachalot::serve {

// How an answer ended, as the protocols see it.
struct AnswerEnd {
  api::Finish finish = api::Finish::kStop;
  std::string stop_string;
};

// Not thread-safe.
class AnswerText {
 public:
  // What is kept of `request` and `prompt` is copied.
  AnswerText(const api::GenerateRequest& request, const Prompt& prompt, const ServedModel& model,
             uint32_t choice);
  AnswerText(const AnswerText&) = delete;
  AnswerText& operator=(const AnswerText&) = delete;

  // The deltas that `token` completes. A stop token has no text.
  std::vector<api::Delta> Push(uint32_t token,
                               const std::optional<engine::TokenLogprobs>& logprobs);
  // What was held; nothing is pushed afterwards.
  std::vector<api::Delta> Finish();

  // Nothing that follows can matter: a stop string, the end of the tool block.
  bool done() const;
  // Pre: Finish() was called. `reason` is the engine's.
  AnswerEnd End(engine::FinishReason reason) const;

  uint32_t num_tokens() const { return static_cast<uint32_t>(tokens_.size()); }
  uint32_t num_reasoning_tokens() const { return reasoning_tokens_; }
  // Without the token that ended the answer.
  const std::vector<uint32_t>& fed_tokens() const { return tokens_; }
  const std::string& bytes() const { return bytes_; }

  // The complete calls of the answer, without ids.
  const std::vector<chat::ToolCall>& calls() const { return calls_; }
  // What the model wrote of them: all that follows the content, its block closed. Empty if the
  // parser had to repair it: then it is not to be repeated.
  std::string CallsText() const;

 private:
  std::string BlockCloser() const;
  void TakeEvent(const chat::Event& event);
  void AddText(api::Delta::Kind kind, std::string_view text);
  api::TokenLogprob ToApi(uint32_t token, const engine::TokenLogprobs& logprobs) const;

  const ServedModel& model_;
  const uint32_t choice_;
  const bool one_call_;
  const bool thinking_;
  const std::string open_block_;
  bool in_reasoning_;
  tokenizer::StreamDecoder decoder_;
  chat::StreamParser parser_;
  std::vector<api::Delta> deltas_;
  std::vector<api::TokenLogprob> pending_;  // of tokens whose text is still held
  std::vector<uint32_t> tokens_;
  std::string bytes_;
  std::string content_;
  std::vector<chat::ToolCall> calls_;  // complete ones
  chat::ToolCall open_call_;
  uint32_t reasoning_tokens_ = 0;
  uint32_t num_calls_ = 0;
  bool lacks_bracket_ = false;  // the block's closing tag is not quite there
  bool enough_ = false;         // one call was asked for and is complete
  bool ended_itself_ = false;   // done() before the input ended
};

}  // namespace cachalot::serve
