// SPDX-License-Identifier: Apache-2.0
// What a tokenizer consists of and how it is read from tokenizer.json. Internal to the module.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/tokenizer/added_tokens.h"
#include "cachalot/tokenizer/bpe.h"
#include "cachalot/tokenizer/pre_tokenizer.h"

namespace cachalot::tokenizer {

struct AddedToken {
  uint32_t id;
  bool special;
};

// The bytes of every id in one string.
class TokenBytesTable {
 public:
  void Append(std::string_view token) {
    bytes_ += token;
    ends_.push_back(bytes_.size());
  }
  uint32_t size() const { return static_cast<uint32_t>(ends_.size()); }
  // Pre: id < size().
  std::string_view operator[](uint32_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

struct TokenizerParts {
  TokenBytesTable token_bytes;
  std::array<uint32_t, 256> byte_ids{};
  MergeTable merges{0};
  // With ignore_merges: a piece that is an entry as a whole is taken without merging.
  bool ignore_merges = false;
  std::unordered_map<std::string, uint32_t> whole_pieces;  // filled only then
  std::optional<PreTokenizer> pre_tokenizer;               // always set after parsing
  std::map<std::string, AddedToken, std::less<>> added;
  std::unordered_map<uint32_t, bool> added_special;  // id -> its flag
  // Tokens flagged `normalized` are looked for only in the gaps the others leave, as the tokenizers
  // library does. The order matters only where two overlap.
  AddedTokenMatcher plain_matcher, normalized_matcher;
};

// `name` starts every error message.
Result<TokenizerParts> ParseTokenizerJson(std::string_view text, std::string_view name);

}  // namespace cachalot::tokenizer
