// SPDX-License-Identifier: Apache-2.0
// tokenizer.json writes Oniguruma expressions; we run PCRE2. This is the bridge, and it is strict:
// a construct the two read differently is translated or refused, never passed through.
#pragma once

#include <string>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot::tokenizer {

// Longer expressions are refused; the longest known (o200k) has 600 bytes.
inline constexpr size_t kMaxRegexBytes = 16384;

// The PCRE2 expression (for UTF and UCP, newline = LF, MULTILINE) with the meaning `regex` has in
// Oniguruma's Ruby syntax:
//   \s \S    spelled out as Unicode White_Space; PCRE2's also has U+180E
//   \uHHHH   becomes \x{HHHH}
//   \p{..} \P{..} \d \D \r \n \t \f \x{..}, escaped punctuation: the same in both
// kUnsupported, starting with `name` and quoting the construct: any other escape, a class inside a
// class, "&&" in a class, {,n}, {n}+, "(*" and "(?" with anything but : = ! <= <! > or the option
// i.
Result<std::string> TranslateRegex(std::string_view regex, std::string_view name);

// `literal` as an expression that matches exactly it.
std::string QuoteRegex(std::string_view literal);

}  // namespace cachalot::tokenizer
