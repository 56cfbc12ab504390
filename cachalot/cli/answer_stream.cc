// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/answer_stream.h"

#include <cstdio>
#include <utility>

#include "cachalot/base/strings.h"

namespace cachalot::cli {

AnswerStream::AnswerStream(const tokenizer::Tokenizer& tokenizer, AnswerStreamOptions options)
    : decoder_(tokenizer),
      splitter_(options.thinking),
      stops_(std::move(options.stops)),
      quiet_(options.quiet),
      terminal_(StdoutIsTerminal()),
      style_(StyleFor(UseColor(terminal_))) {}

bool AnswerStream::Push(uint32_t token) {
  Take(splitter_.Push(decoder_.Push(token)));
  return !stops_.stopped();
}

void AnswerStream::Finish() {
  Take(splitter_.Push(decoder_.Finish()));
  Take(splitter_.Finish());
  ShowContent(stops_.Finish());
}

void AnswerStream::Take(const AnswerPiece& piece) {
  if (!piece.reasoning.empty()) ShowReasoning(piece.reasoning);
  // Stop strings end the answer, not the thought before it.
  if (!piece.content.empty()) ShowContent(stops_.Push(piece.content));
}

void AnswerStream::ShowReasoning(const std::string& text) {
  reasoning_ += text;
  // Each piece ends its own style, so that Ctrl-C cannot leave the terminal dimmed.
  Print(StrCat(style_.dim, terminal_ ? SanitizeForTerminal(text) : text, style_.reset));
}

void AnswerStream::ShowContent(const std::string& text) {
  if (text.empty()) return;
  if (content_.empty() && !reasoning_.empty()) Print("\n\n");
  content_ += text;
  Print(terminal_ ? SanitizeForTerminal(text) : text);
}

void AnswerStream::Print(const std::string& text) const {
  if (quiet_) return;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace cachalot::cli
