// SPDX-License-Identifier: Apache-2.0
// An answer on its way out: token bytes to whole characters, reasoning apart from content, stop
// strings, then the screen.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/chat/stop_matcher.h"
#include "cachalot/cli/chat_turn.h"
#include "cachalot/cli/terminal.h"
#include "cachalot/tokenizer/stream_decoder.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::cli {

struct AnswerStreamOptions {
  bool thinking = false;  // the prompt ended inside <think>
  bool quiet = false;     // collect only
  std::vector<std::string> stops;
};

class AnswerStream {
 public:
  AnswerStream(const tokenizer::Tokenizer& tokenizer, AnswerStreamOptions options);

  // False once a stop string has come.
  bool Push(uint32_t token);
  // The held rest; call once, at the end.
  void Finish();
  const std::string& content() const { return content_; }
  const std::string& reasoning() const { return reasoning_; }
  bool stopped() const { return stops_.stopped(); }

 private:
  void Take(const AnswerPiece& piece);
  void ShowReasoning(const std::string& text);
  void ShowContent(const std::string& text);
  void Print(const std::string& text) const;

  tokenizer::StreamDecoder decoder_;
  AnswerSplitter splitter_;
  chat::StopMatcher stops_;
  bool quiet_;
  bool terminal_;
  Style style_;
  std::string content_;
  std::string reasoning_;
};

}  // namespace cachalot::cli
