// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/stream_decoder.h"

#include <utility>

#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {

std::string Utf8Stream::Push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  size_t at = 0;
  while (at < held_.size()) {
    const Utf8Step step = NextUtf8(held_, at);
    if (step.kind == Utf8Kind::kIncomplete) break;
    text += step.kind == Utf8Kind::kValid ? std::string_view(held_).substr(at, step.size)
                                          : kReplacementCharacter;
    at += step.size;
  }
  held_.erase(0, at);
  return text;
}

std::string Utf8Stream::Finish() {
  return std::exchange(held_, {}).empty() ? std::string() : std::string(kReplacementCharacter);
}

}  // namespace cachalot::tokenizer
