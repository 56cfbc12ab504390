// SPDX-License-Identifier: Apache-2.0
// The bytes of all tokens, sorted, so that tokens with a common beginning are walked once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::grammar {

// Immutable, so thread-safe.
class Vocabulary {
 public:
  struct Token {
    uint32_t id = 0;
    uint32_t common = 0;  // bytes shared with the token before it
    std::string bytes;    // not empty
  };

  // All ordinary tokens below `vocab_size` (0: the tokenizer's), and of the added ones those
  // listed: markers that a grammar spells.
  static std::shared_ptr<const Vocabulary> Create(const tokenizer::Tokenizer& tokenizer,
                                                  uint32_t vocab_size,
                                                  const std::vector<uint32_t>& added);

  const std::vector<Token>& tokens() const { return tokens_; }
  uint32_t size() const { return size_; }  // ids are below
  // Bytes of a listed token; empty for any other.
  const std::string& bytes(uint32_t id) const { return by_id_[id]; }

 private:
  std::vector<Token> tokens_;  // by bytes
  std::vector<std::string> by_id_;
  uint32_t size_ = 0;
};

}  // namespace cachalot::grammar
