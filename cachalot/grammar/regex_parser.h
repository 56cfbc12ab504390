// SPDX-License-Identifier: Apache-2.0
// Regular expressions of JSON Schema's `pattern` as trees: ECMA-262 without what is not regular.
// Internal to the module.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/grammar/char_set.h"

namespace cachalot::grammar {

struct RegexNode {
  enum class Kind : uint8_t { kSet, kSequence, kChoice, kRepeat, kBegin, kEnd };
  static constexpr uint32_t kUnbounded = UINT32_MAX;

  Kind kind = Kind::kSequence;  // of no parts: the empty text
  CharSet set;                  // kSet: one of these characters
  std::vector<RegexNode> parts;
  uint32_t least = 0, most = 0;  // kRepeat of parts[0]
};

// kInvalidArgument: bad syntax, with the byte; kUnsupported names the construct: look-around, back
// references, word boundaries, Unicode properties. Names of groups and laziness change no language
// and are read over.
Result<RegexNode> ParseRegex(std::string_view pattern);

}  // namespace cachalot::grammar
