// SPDX-License-Identifier: Apache-2.0
#include "cachalot/base/json.h"

#include <string>

#include "cachalot/base/strings.h"

namespace cachalot {
namespace {

// Byte offset where nesting first exceeds kMaxJsonDepth, or npos. Brackets inside strings do not
// count. Runs before the real parser, which recurses on nothing but builds a recursive tree.
size_t FindTooDeep(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) return i;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return std::string_view::npos;
}

template <typename J>
Result<J> Parse(std::string_view text, std::string_view name) {
  if (const size_t at = FindTooDeep(text); at != std::string_view::npos) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": JSON nested deeper than ", kMaxJsonDepth, " levels at byte ", at)};
  }
  try {
    return J::parse(text);
  } catch (const typename J::parse_error& e) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": not valid JSON at byte ", e.byte, ": ", e.what())};
  } catch (const std::exception& e) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": not valid JSON: ", e.what())};
  }
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view name) {
  return Parse<Json>(text, name);
}

Result<SortedJson> ParseSortedJson(std::string_view text, std::string_view name) {
  return Parse<SortedJson>(text, name);
}

}  // namespace cachalot
