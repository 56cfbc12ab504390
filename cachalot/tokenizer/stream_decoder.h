// SPDX-License-Identifier: Apache-2.0
// Ids to text while they are generated: never half a character. [chat.md 2.6]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::tokenizer {

// Bytes in pieces -> valid UTF-8 in pieces. However the bytes are cut, the pieces put together are
// the same. Holds back at most 3 bytes: a character that may still be completed.
class Utf8Stream {
 public:
  // What is certain after `bytes`; bytes that belong to no character become U+FFFD.
  std::string Push(std::string_view bytes);
  // At the end: U+FFFD for an unfinished character, else nothing. Ready for a new text afterwards.
  std::string Finish();

 private:
  std::string held_;
};

class StreamDecoder {
 public:
  // `tokenizer` must outlive this.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // The text that `id` completes, often empty.
  std::string Push(uint32_t id) { return stream_.Push(tokenizer_->TokenBytes(id)); }
  std::string Finish() { return stream_.Finish(); }

 private:
  const Tokenizer* tokenizer_;
  Utf8Stream stream_;
};

}  // namespace cachalot::tokenizer
