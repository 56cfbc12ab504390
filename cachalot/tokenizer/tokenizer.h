// SPDX-License-Identifier: Apache-2.0
// Text <-> token ids for any byte-level BPE tokenizer.json. [chat.md 2;
// docs/formats/tokenizer_json.md]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::tokenizer {

struct TokenizerParts;

// Immutable, so every member is thread-safe. Added tokens (BOS, <think>, ...) are found by content:
// their ids differ between models and must not be written into programs.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json, the only file needed. kNotFound, kIo; kDataCorruption if the file
  // contradicts itself; kUnsupported, naming the field, if it asks for what we do not implement.
  static Result<std::shared_ptr<const Tokenizer>> Load(const std::string& dir);
  // From the text of such a file; `name` starts every error message.
  static Result<std::shared_ptr<const Tokenizer>> FromJson(std::string_view text,
                                                           std::string_view name);
  explicit Tokenizer(TokenizerParts parts);
  ~Tokenizer();

  // The ids of `text`. With `parse_special`, added tokens in it become their ids; without, they are
  // text like any other (for content a user must not be able to forge turns with). Nothing is added
  // at the ends. Any bytes: those that are not UTF-8 are encoded as they are, so that
  // Decode(Encode(x)) == x always holds (unless the file asks for a prefix space).
  // Cost O(n log n) for any text; < 1 s for 1 MB of anything.
  std::vector<uint32_t> Encode(std::string_view text, bool parse_special) const;

  // The bytes `id` stands for, possibly a part of a character (see stream_decoder.h); empty for an
  // id >= vocab_size(), which a model with padded embedding rows can produce. Lives as long as
  // this.
  std::string_view TokenBytes(uint32_t id) const;
  // The bytes of all ids, one after the other; not necessarily valid UTF-8.
  std::string Decode(std::span<const uint32_t> ids) const;

  // Highest id + 1; every id below has an entry.
  uint32_t vocab_size() const;
  // The id of the added token with exactly this content, whatever its `special` flag.
  std::optional<uint32_t> FindSpecial(std::string_view content) const;
  bool IsAdded(uint32_t id) const;    // is an added token
  bool IsSpecial(uint32_t id) const;  // is an added token that is flagged special in the file

 private:
  std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace cachalot::tokenizer
