// SPDX-License-Identifier: Apache-2.0
// UTF-8, one step at a time: the base of splitting at invalid bytes and of streaming decode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::tokenizer {

enum class Utf8Kind : uint8_t {
  kValid,       // one whole character
  kInvalid,     // bytes no continuation can make a character: one U+FFFD stands for them
  kIncomplete,  // the text ends inside what may still become a character
};

struct Utf8Step {
  Utf8Kind kind;
  uint8_t size;         // bytes, 1..4 (kInvalid: the longest well-formed beginning, or 1)
  char32_t code_point;  // kValid only
};

// The step at text[at]. Overlong forms, surrogates and code points above U+10FFFF are invalid, as
// in the Unicode standard, table 3-7; kInvalid follows its "maximal subpart" practice, which makes
// the number of replacement characters the same as in Python and in browsers. Pre: at < size.
Utf8Step NextUtf8(std::string_view text, size_t at);

// Length of the longest prefix of text.substr(at) that is valid UTF-8.
size_t ValidUtf8Length(std::string_view text, size_t at);

// `code_point` (<= U+10FFFF) as UTF-8.
void AppendUtf8(char32_t code_point, std::string& out);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace cachalot::tokenizer
