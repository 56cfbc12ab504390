// SPDX-License-Identifier: Apache-2.0
// JSON's own syntax as pieces of automaton. [RFC 8259]
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "cachalot/grammar/nfa.h"

namespace cachalot::grammar {

class JsonPieces {
 public:
  explicit JsonPieces(Nfa& nfa) : nfa_(nfa) {}

  // Nothing, a space, or a line break and at most 20 spaces: models like to indent, and endless
  // whitespace must not be an answer. [api.md 4.8]
  Piece Space();
  // One character inside quotes: well-formed UTF-8 or an escape that is no surrogate half.
  Piece Character();
  // With the quotes; `most`: no bound without.
  Piece String(uint32_t least, std::optional<uint32_t> most);
  Piece Integer();              // up to 17 digits, no -0
  Piece Number(bool negative);  // up to 17 digits before and after the point
  Piece Boolean();
  Piece Null();
  Piece Value();   // anything
  Piece Object();  // any object
  // [ first.., items ] with `least` to `most` of both together. Pre: most >= first.size().
  Piece Array(const std::vector<Piece>& first, const std::function<Piece()>& item, uint32_t least,
              std::optional<uint32_t> most);
  // { key: value, ... }
  Piece Map(const std::function<Piece()>& key, const std::function<Piece()>& value);
  Piece Member(const Piece& key, const Piece& value);  // key : value

 private:
  Piece Utf8();
  Piece Digits(uint32_t least, uint32_t most);
  Piece CharacterRule();

  Nfa& nfa_;
  std::optional<uint32_t> space_, character_, value_;
};

}  // namespace cachalot::grammar
